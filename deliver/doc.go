// Package deliver POSTs each delivery to its endpoint until it succeeds, is
// exhausted, expires or is cancelled.
//
// In: topic deliveries, partitioned by endpoint, so that one worker is the home
// of an endpoint and its limits need no coordination. Out: attempts (every
// outcome), schedule (a delivery that waits for its own retry), lanes (offsets
// of deliveries that wait for their endpoint), dead and rejected.
//
// Promises, each with a test that tries to break it:
//
//  1. A record is in exactly one place: in flight, parked, scheduled or done.
//  2. The offset of a record is committed only when its outcome, or the chunk
//     that it is parked in, is acknowledged.
//  3. Attempts start only within the lease, two seconds from sending the last
//     commit that the coordinator accepted.
//  4. An endpoint that hangs, fails, is paused or slow changes nobody else's
//     latency; no lane waits for another one's slot.
//
// No call to Redis or a database stands between a record and its POST. What
// may block whom, the hand-over between workers and what may crash where is in
// DESIGN.md beside this file.
package deliver
