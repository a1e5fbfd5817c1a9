package ingest

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/postrider/postrider/internal/telemetry"
)

const (
	producerTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	eventsTrace   = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"
)

func tracing(t *testing.T, sampler sdktrace.Sampler) (trace.TracerProvider, *tracetest.InMemoryExporter) {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans), sdktrace.WithSampler(sampler))
	t.Cleanup(func() { _ = tp.Shutdown(t.Context()) })
	return tp, spans
}

func TestTrace(t *testing.T) {
	tp, spans := tracing(t, sdktrace.AlwaysSample())
	g := start(t, Config{}, Deps{Tracers: tp})
	got := g.post(t, `{"type":"order.paid","id":"1","subject":"s","data":{}}`, headers{
		"Content-Type", "application/json", "traceparent", producerTrace, "tracestate", "a=b",
	})
	if got.status != 202 || len(spans.GetSpans()) != 1 {
		t.Fatalf("status %d, %d spans", got.status, len(spans.GetSpans()))
	}
	span := spans.GetSpans()[0]
	if telemetry.Traceparent(span.Parent) != producerTrace || span.Name != "send events" || span.SpanKind != trace.SpanKindProducer {
		t.Errorf("parent %s, name %q, kind %s", telemetry.Traceparent(span.Parent), span.Name, span.SpanKind)
	}
	e := event(t, g.kafka.produced()[0])
	if e.TraceParent != telemetry.Traceparent(span.SpanContext) || e.TraceState != "a=b" {
		t.Errorf("the record's traceparent is %q, tracestate %q, want the span's %s", e.TraceParent, e.TraceState, telemetry.Traceparent(span.SpanContext))
	}
	want := map[attribute.Key]any{
		"messaging.system": "kafka", "messaging.operation.name": "send", "messaging.operation.type": "send",
		"messaging.destination.name": "events", "messaging.message.id": got.EventID, "messaging.message.body.size": int64(2),
		"messaging.destination.partition.id": "3", "messaging.kafka.offset": int64(0), "postrider.tenant": "acme",
		"cloudevents.event_id": "1", "cloudevents.event_source": "/acme", "cloudevents.event_spec_version": "1.0",
		"cloudevents.event_type": "order.paid", "cloudevents.event_subject": "s",
	}
	if diff := cmp.Diff(want, attributes(span)); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
}

func attributes(span tracetest.SpanStub) map[attribute.Key]any {
	out := make(map[attribute.Key]any)
	for _, a := range span.Attributes {
		out[a.Key] = a.Value.AsInterface()
	}
	return out
}

func TestTraceOfTheEvent(t *testing.T) {
	tp, spans := tracing(t, sdktrace.AlwaysSample())
	g := start(t, Config{}, Deps{Tracers: tp})
	g.post(t, "{}", headers{
		"Content-Type", "application/json", "ce-specversion", "1.0", "ce-id", "1", "ce-source", "/s", "ce-type", "a", "ce-traceparent", eventsTrace,
	})
	if parent := telemetry.Traceparent(spans.GetSpans()[0].Parent); parent != eventsTrace {
		t.Errorf("without a header of HTTP, the parent is %q, want the event's %q", parent, eventsTrace)
	}
}

func TestTraceOfABatch(t *testing.T) {
	tp, spans := tracing(t, sdktrace.AlwaysSample())
	g := start(t, Config{}, Deps{Tracers: tp})
	body := "[" + structured(`"traceparent":"`+eventsTrace+`"`) + "," + structured(`"id":"2"`) + "]"
	g.post(t, body, headers{"Content-Type", "application/cloudevents-batch+json", "traceparent", producerTrace})
	if n := len(spans.GetSpans()); n != 2 {
		t.Fatalf("%d spans, want the event's and the request's", n)
	}
	own, whole := spans.GetSpans()[0], spans.GetSpans()[1]
	if telemetry.Traceparent(own.Parent) != eventsTrace || len(own.Links) != 1 || own.Links[0].SpanContext.SpanID() != whole.SpanContext.SpanID() {
		t.Errorf("the event's span: parent %s, links %v", telemetry.Traceparent(own.Parent), own.Links)
	}
	if got := attributes(whole)["messaging.batch.message_count"]; got != int64(2) {
		t.Errorf("message count %v", got)
	}
	for i, want := range []trace.SpanContext{own.SpanContext, whole.SpanContext} {
		if got := event(t, g.kafka.produced()[i]).TraceParent; got != telemetry.Traceparent(want) {
			t.Errorf("event %d carries %s, want %s", i, got, telemetry.Traceparent(want))
		}
	}
}

func TestTraceNotSampled(t *testing.T) {
	never, _ := tracing(t, sdktrace.NeverSample())
	for name, tp := range map[string]trace.TracerProvider{"not sampled": never, "no tracing": nil} {
		t.Run(name, func(t *testing.T) {
			g := start(t, Config{}, Deps{Tracers: tp})
			g.post(t, `{"type":"a"}`, headers{"Content-Type", "application/json", "traceparent", producerTrace, "tracestate", "a=b"})
			g.post(t, "["+structured(`"traceparent":"`+eventsTrace+`"`)+"]", headers{"Content-Type", "application/cloudevents-batch+json"})
			g.post(t, structured(`"traceparent":"garbage"`), headers{"Content-Type", "application/cloudevents+json"})
			r := g.kafka.produced()
			if e := event(t, r[0]); e.TraceParent != producerTrace || e.TraceState != "a=b" {
				t.Errorf("the record carries %q %q, want the producer's", e.TraceParent, e.TraceState)
			}
			if e := event(t, r[1]); e.TraceParent != eventsTrace {
				t.Errorf("the record carries %q, want the event's", e.TraceParent)
			}
			if e := event(t, r[2]); e.TraceParent == "garbage" {
				t.Error("a traceparent that is none was handed on")
			}
		})
	}
}

func TestTraceOfFailures(t *testing.T) {
	tp, spans := tracing(t, sdktrace.AlwaysSample())
	g := start(t, Config{}, Deps{Tracers: tp})
	g.postJSON(t, `{"type":""}`)
	g.kafka.err = func(*kgo.Record) error { return kgo.ErrRecordTimeout }
	g.postJSON(t, `{"type":"a"}`)
	g.post(t, `{"type":"a"}`, headers{"Content-Type", "application/x-ndjson"})
	for i, want := range []struct {
		kind   string
		status codes.Code
	}{{CodeInvalidEvent, codes.Unset}, {CodeOutcomeUnknown, codes.Error}, {CodeOutcomeUnknown, codes.Error}} {
		span := spans.GetSpans()[i]
		if got := attributes(span)["error.type"]; got != want.kind || span.Status.Code != want.status {
			t.Errorf("span %d: error.type %v, status %s, want %s %s", i, got, span.Status.Code, want.kind, want.status)
		}
	}
}

func TestMetrics(t *testing.T) {
	reader := metric.NewManualReader()
	g := start(t, Config{}, Deps{Meters: metric.NewMeterProvider(metric.WithReader(reader))})
	g.postJSON(t, `{"type":"a","data":"12345678"}`)
	g.post(t, "{\"type\":\"a\",\"data\":1}\n{\"type\":\"\"}\n", headers{"Content-Type", "application/x-ndjson"})
	g.post(t, "{\"type\":\"\"}\n{", headers{"Content-Type", "application/x-ndjson"})
	g.post(t, "", headers{"Authorization", ""})
	g.post(t, "x", headers{"Content-Type", "text/plain"})

	var data metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &data); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int64)
	for _, m := range data.ScopeMetrics[0].Metrics {
		switch d := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range d.DataPoints {
				got[m.Name+labels(p.Attributes)] = p.Value
			}
		case metricdata.Histogram[float64]:
			for _, p := range d.DataPoints {
				got[m.Name+labels(p.Attributes)] = int64(p.Count)
			}
		}
	}
	want := map[string]int64{
		"postrider.ingest.events outcome=accepted": 2, "postrider.ingest.events outcome=invalid_event": 2,
		"postrider.ingest.events outcome=malformed_json": 1, "postrider.ingest.events outcome=missing_key": 1,
		"postrider.ingest.events outcome=unsupported_media_type": 1,
		"postrider.ingest.bytes outcome=accepted":                11, "postrider.ingest.bytes outcome=invalid_event": 0,
		"postrider.ingest.bytes outcome=malformed_json": 0,
		"postrider.ingest.duration outcome=accepted":    1, "postrider.ingest.duration outcome=partial": 1,
		"postrider.ingest.duration outcome=refused": 1, "postrider.ingest.duration outcome=missing_key": 1,
		"postrider.ingest.duration outcome=unsupported_media_type": 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

func labels(set attribute.Set) string {
	var b strings.Builder
	for _, kv := range set.ToSlice() {
		b.WriteString(" " + string(kv.Key) + "=" + kv.Value.AsString())
	}
	return b.String()
}

func TestLabelsAreClosed(t *testing.T) {
	reader := metric.NewManualReader()
	m, err := newInstruments(metric.NewMeterProvider(metric.WithReader(reader)).Meter("test"))
	if err != nil {
		t.Fatal(err)
	}
	m.refused(t.Context(), problem(400, "made_up", ""), 0)
	m.refused(t.Context(), errors.New("no problem at all"), 0)
	var data metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &data); err != nil {
		t.Fatal(err)
	}
	for _, got := range data.ScopeMetrics[0].Metrics {
		if sum, ok := got.Data.(metricdata.Sum[int64]); ok {
			if len(sum.DataPoints) != 1 || sum.DataPoints[0].Value != 2 || labels(sum.DataPoints[0].Attributes) != " outcome=other" {
				t.Errorf("%s: %+v, want one series, other", got.Name, sum.DataPoints)
			}
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"topic":             func(c *Config) { c.Topic = "" },
		"record too small":  func(c *Config) { c.MaxRecordBytes = envelope },
		"few in flight":     func(c *Config) { c.MaxInFlightEvents = 999 },
		"few bytes":         func(c *Config) { c.MaxInFlightBytes = 16 << 20 },
		"negative batch":    func(c *Config) { c.MaxBatchEvents = -1 },
		"negative body":     func(c *Config) { c.MaxBodyBytes = -1 },
		"no decompressor":   func(c *Config) { c.Decompressors = -1 },
		"negative tenants":  func(c *Config) { c.QuotaTenants = -1 },
		"negative ack time": func(c *Config) { c.AckTimeout = -1 },
		"negative retry":    func(c *Config) { c.RetryAfter = -1 },
		"negative rate":     func(c *Config) { c.EventsPerSecond = -1 },
		"negative bytes":    func(c *Config) { c.BytesPerSecond = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, Config{}, Deps{})
			cfg := Config{Topic: "events"}
			if _, err := New(cfg, Deps{Producer: g.kafka, Keys: g.server.deps.Keys}); err != nil {
				t.Fatalf("the defaults: %v", err)
			}
			change(&cfg)
			if _, err := New(cfg, Deps{Producer: g.kafka, Keys: g.server.deps.Keys}); err == nil {
				t.Errorf("%+v: no error", cfg)
			}
		})
	}
	g := start(t, Config{}, Deps{})
	for _, body := range []int{24 << 20, 256 << 20} { // what waits follows the largest body
		if _, err := New(Config{Topic: "events", MaxBodyBytes: body}, Deps{Producer: g.kafka, Keys: g.server.deps.Keys}); err != nil {
			t.Errorf("bodies of %d bytes: %v", body, err)
		}
	}
	if _, err := New(Config{Topic: "events"}, Deps{}); err == nil {
		t.Error("without a producer and keys: no error")
	}
}

func TestMaxRecordBytes(t *testing.T) {
	g := start(t, Config{MaxRecordBytes: 4096}, Deps{})
	for n, status := range map[int]int{2700: http.StatusAccepted, 3100: http.StatusRequestEntityTooLarge} {
		if got := g.postJSON(t, `{"type":"a","data":"`+strings.Repeat("x", n)+`"}`); got.status != status {
			t.Errorf("%d bytes: status %d, want %d: %s", n, got.status, status, got.raw)
		}
	}
}
