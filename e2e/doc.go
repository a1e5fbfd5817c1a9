// Package e2e holds the system tests: they build the binary, start it as an
// operator would, send events as producers would, receive webhooks as
// receivers would, and kill, stop and cut what can be killed, stopped and cut.
//
// In: the binary, a real Kafka (KAFKA_BROKERS) and a real Redis (redis-server on
// the path). Out: the promises of docs/design.md, each with a test that tries to
// break it. What was accepted, decided and delivered is counted from the topics
// and from the receivers, never from the gateway's own word.
//
// A test whose service is missing is skipped with the reason; with REQUIRE=all
// it fails.
package e2e
