// Package telemetry gives every role its traces, metrics, logs and health.
//
// In: the standard OTEL_* variables, W3C trace context on Kafka headers, and
// the checks and loops that the roles register. Out: spans and, where asked
// for, metrics and logs over OTLP; /metrics for Prometheus; JSON logs that
// carry trace ids; /healthz and /readyz.
//
// It promises three things. Nothing is dialled unless the environment names an
// exporter or an endpoint. Metric labels are bounded: tenant and endpoint ids
// are dropped from every series, and from exemplars, unless the operator asks
// for them. And telemetry never holds up an event: queues are bounded and drop,
// and without an exporter a whole stage pays less than a microsecond.
//
// This package reads no environment variable itself. Config.Getenv is the one
// way in for the switches that it decides on; the OpenTelemetry libraries read
// the rest of OTEL_* (addresses, headers, sampler, batch sizes, resource
// attributes) from the process as their specification says.
package telemetry
