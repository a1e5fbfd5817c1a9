// Package ingest takes events over HTTP and puts them into the log.
//
// In: POST /v1/events with CloudEvents (binary, structured, batch), plain JSON
// or newline-delimited JSON, plain or as gzip or zstd. Out: topic events, one
// record per event in the binary mode of the CloudEvents Kafka binding, keyed
// by Event.RecordKey.
//
// It promises that a 202 is given only after Kafka acknowledged every event of
// the request on all in-sync replicas; that an answer which can't say whether an
// event was written is a 503 with the event's id, under which a repeat is
// harmless; and that the payload reaches the log byte for byte.
//
// Everything is bounded: the body as sent and as decompressed, the events of a
// request, what waits for Kafka, and per tenant the rate. A handler blocks until
// Kafka answered, at most Config.AckTimeout.
package ingest
