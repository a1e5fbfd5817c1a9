// Package registry keeps tenants, endpoints, subscriptions and keys: the log
// that is their truth, and the view of it in Redis that every role reads.
//
// In: changes through [Writer], one record of topic registry each. Out: the
// view ([View], written by [Projector]) for reads in bulk, and [Tail] for
// whoever follows the log itself.
//
// Promises:
//
//  1. The log is the only truth. The view may be lost, cut or restored from an
//     old copy at any moment; it comes back by itself.
//  2. What is read from the view comes with its [Marker]. Under a complete
//     marker that has reached offset n, the data is the fold of all records
//     below n, or newer; absence is believed under such a marker only.
//  3. When [Writer.Update] returns, the view has what it wrote.
//
// The Run methods block until their context ends and have no goroutine left
// then; everything else blocks for a few round trips to Redis and Kafka, within
// the caller's context. DESIGN.md beside this file has the states, the
// invariants and what may crash where.
package registry
