// Package control is the management API: tenants, endpoints, subscriptions and
// keys, the live stream of attempts, and the OpenAPI document of all of it.
//
// In: HTTP requests, the registry's view in Redis, the topics attempts and events. Out:
// records of the topic registry through registry.Writer, one record of the topic
// audit for each, test deliveries, cancels.
//
// It promises:
//
//  1. An answer to a write means that the record is in Kafka and that the view
//     has it. Where that is not known the answer is 503 outcome_unknown, and the
//     repeat under the same Idempotency-Key or If-Match is safe.
//  2. Something is answered as missing (404) only under a complete view, which
//     also has what this process wrote before; else 503.
//  3. A tenant's key learns nothing about another tenant, not even that it exists.
//  4. A field that is not known is refused by name, never ignored.
//  5. Signing secrets leave only through the endpoint's secret, tokens of keys once,
//     credentials of endpoints never. Without a key there is only the event of a
//     thin delivery, for whoever has its token.
//
// There is no database: a tenant's deletion that a crash interrupts is found in
// the registry again and finished. Handlers block on Redis, on Kafka and, for the
// URL of an endpoint, on DNS, each for a bounded time.
package control
