// Package fanout turns each event into one delivery per endpoint that subscribed
// to it.
//
// In: topics events and pages, in one consumer group, and the registry's view in
// Redis. Out: topics deliveries (by endpoint), pages, decisions and rejected. The
// offset of a record is committed in the transaction that holds what became of
// it, so a crash or a rebalance repeats both or neither.
//
// It promises:
//
//  1. No event is lost and none is doubled, whoever is killed and whenever.
//  2. An event is matched only against a view that has everything the registry
//     held when the event was polled. Until then fan-out waits, and says so.
//  3. A repeat of an event inside the window is dropped while Redis keeps its
//     claims; a crash between claim and commit never drops the event itself.
//  4. A record that can't be read, or that alone breaks its transaction, goes to
//     rejected and holds up nobody.
//  5. What a tenant makes of its settings holds up other tenants' events for moments
//     at most: the registry bounds each tenant, and only what changed is read again.
//  6. Every event that did not simply become deliveries leaves a decision.
//
// It may block on Kafka and Redis, with back-off and for as long as they are away.
// Matching is bounded per tenant and batch. DESIGN.md has states and invariants.
package fanout
