// Package services starts a real Kafka and a real Redis for tests, without
// containers.
//
// In: java, mvn (once, to fetch the jars) and redis-server on this machine. Out:
// processes on free ports of 127.0.0.1 that can be killed, paused and started
// again. Every process ends with its parent at the latest (on Linux also after a
// kill -9 of the parent).
package services
