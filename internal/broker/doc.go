// Package broker is the gateway's way to Kafka: client settings, topics,
// partition layout, group starts and the embedded broker.
//
// In: addresses and a few settings. Out: options for kgo clients in which
// nothing that matters is left to a library default, topics that exist with
// safe settings, and groups that have a first commit.
//
// Promises:
//
//  1. A consumer built from [Config.Options] reads committed records only and
//     never jumps to the start or the end of a partition by itself: a missing
//     commit or an offset out of range is an error that the caller sees.
//  2. [Ensure] reports what could lose an accepted record (too few replicas,
//     unclean election, producer timestamps, short retention) and refuses to go
//     on unless the operator allowed it.
//  3. [Layout.Partition] maps an endpoint to the same partition for ever.
//
// Only this package knows kfake.
package broker
