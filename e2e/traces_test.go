package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/telemetry/otlptest"
	"github.com/postrider/postrider/schemas"
)

// A producer's span, and the name of the trace that it is in.
const (
	producerTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	producerSpan   = "00f067aa0ba902b7"
	producerParent = "00-" + producerTrace + "-" + producerSpan + "-01"
)

// startTraced starts all roles with their spans sent to the receiver.
func (g *gateway) startTraced(to *otlptest.Receiver, ingestEnv ...string) {
	g.t.Helper()
	env := []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + to.URL, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
		"OTEL_TRACES_SAMPLER=always_on", "OTEL_BSP_SCHEDULE_DELAY=100", "OTEL_METRICS_EXPORTER=none",
	}
	for _, role := range roles() {
		if role == "ingest" {
			g.start(role, role+"-1", append(ingestEnv, env...)...)
		} else {
			g.start(role, role+"-1", env...)
		}
		g.ready(role + "-1") // in this order: control makes the topics
	}
}

// firstFails has a sink refuse the first attempt of every delivery.
func firstFails(r *http.Request) int {
	if r.Header.Get("Postrider-Attempt") == "1" {
		return http.StatusInternalServerError
	}
	return http.StatusOK
}

// story is what the spans of one event say.
type story struct {
	t        *testing.T
	spans    []otlptest.Span
	attempts []otlptest.Span // by their number
}

// storyOf waits for the spans of an event with two attempts, down from the one that
// its trace begins with. Each process sends its own, in any order.
func storyOf(t *testing.T, from *otlptest.Receiver, event, begins string) *story {
	t.Helper()
	const attempts = 2
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	posts := func(spans []otlptest.Span) []otlptest.Span {
		out := make([]otlptest.Span, attempts)
		for _, s := range spans {
			if n, ok := s.Attributes["http.request.resend_count"].(int64); ok && s.Attributes["postrider.event_id"] == event && int(n) < attempts {
				out[n] = s
			}
		}
		return out
	}
	spans, err := from.Wait(ctx, func(spans []otlptest.Span) bool {
		for _, s := range posts(spans) {
			if s.SpanID == "" || len(otlptest.Tree(spans, s.TraceID)) == 0 {
				return false
			}
		}
		tree := otlptest.Tree(spans, posts(spans)[0].TraceID)
		return strings.HasPrefix(tree, begins) && strings.Contains(tree, "process events")
	})
	if err != nil {
		t.Fatal(err)
	}
	return &story{t: t, spans: spans, attempts: posts(spans)}
}

// tree checks the spans of the first attempt's trace.
func (s *story) tree(want string) {
	s.t.Helper()
	first := s.attempts[0]
	if first.TraceID != producerTrace {
		s.t.Errorf("first attempt is in trace %s, the producer's is %s", first.TraceID, producerTrace)
	}
	if diff := cmp.Diff(want, otlptest.Tree(s.spans, first.TraceID)); diff != "" {
		s.t.Errorf("trace (-want +got):\n%s", diff)
	}
}

// under returns the spans of a trace below a parent.
func (s *story) under(parent string) (out []otlptest.Span) {
	for _, span := range s.spans {
		if span.TraceID == s.attempts[0].TraceID && span.ParentID == parent {
			out = append(out, span)
		}
	}
	return out
}

// retries checks that each attempt after the first is a root of its own trace,
// linked to the attempt before.
func (s *story) retries() {
	s.t.Helper()
	for i := 1; i < len(s.attempts); i++ {
		before, a := s.attempts[i-1], s.attempts[i]
		if a.ParentID != "" || a.TraceID == before.TraceID {
			s.t.Errorf("attempt %d is no root: parent %q, trace %s", i+1, a.ParentID, a.TraceID)
		}
		if diff := cmp.Diff([]otlptest.Link{{TraceID: before.TraceID, SpanID: before.SpanID}}, a.Links); diff != "" {
			s.t.Errorf("links of attempt %d (-want +got):\n%s", i+1, diff)
		}
	}
}

// (T) One trace from the producer's span over HTTP, and from a direct producer's,
// to the first attempt; a retry is a root linked to the attempt before; only an
// exhausted delivery failed; records and the receiver carry the ids.
func TestTraces(t *testing.T) {
	g := newGateway(t)
	collector := otlptest.New()
	t.Cleanup(collector.Close)
	g.startTraced(collector)
	g.tenant()
	never := func(*http.Request) int { return http.StatusTeapot }
	retried, dead := newSink(t, firstFails), newSink(t, never)
	retried.keep, dead.keep = true, true
	add := func(s *sink, typ string, trace bool) {
		g.endpoint(s.URL, settings{
			"retry": map[string]any{"schedule": []string{"1s"}}, "trace_context": trace,
			"subscriptions": []any{map[string]any{"types": []string{typ}}},
		})
	}
	add(retried, "order.*", true)
	add(dead, "lost", false)

	over := message{ID: "over-http", Type: "order.paid"}
	header := http.Header{"Content-Type": {"application/json"}, "Traceparent": {producerParent}}
	if got, err := g.call("ingest-1", "POST", "/v1/events", header, bytes.NewReader(over.plain())); err != nil || got.status != http.StatusAccepted {
		t.Fatalf("%d %s, %v", got.status, got.body, err)
	}
	http1 := storyOf(t, collector, over.event(), "send events")
	http1.tree("send events\n  process events\n    POST\n")
	http1.retries()
	if spans := http1.under(producerSpan); len(spans) != 1 || spans[0].Kind != "producer" || spans[0].Attributes["postrider.tenant"] != "acme" {
		t.Errorf("below the producer's span: %+v", spans)
	}

	direct := message{ID: "direct", Type: "order.refunded"}
	record := direct.record(true)
	other := strings.Replace(producerParent, producerTrace, strings.Repeat("ab", 16), 1)
	record.Headers = append(record.Headers, kafka.Header{Key: "traceparent", Value: []byte(other)})
	g.produce(t, record)
	kafka1 := storyOf(t, collector, direct.event(), "process events")
	kafka1.retries()
	if spans := kafka1.under(producerSpan); len(spans) != 1 || spans[0].Name != "process events" || spans[0].Kind != "consumer" ||
		spans[0].TraceID != strings.Repeat("ab", 16) {
		t.Errorf("below the direct producer's span: %+v", spans)
	}

	failed := storyOf(t, collector, g.event("lost", 1), "send events")
	failed.retries()
	for _, s := range []*story{http1, kafka1, failed} {
		for i, a := range s.attempts {
			if exhausted := s == failed && i == 1; a.Failed != exhausted || a.Kind != "client" {
				t.Errorf("attempt %d: failed %t, kind %s", i+1, a.Failed, a.Kind)
			}
		}
	}
	g.carried(t, http1, retried)
	g.carried(t, kafka1, retried)
	g.carried(t, failed, nil)
	for _, a := range dead.arrivals() {
		if got := a.Header.Get("Traceparent"); got != "" {
			t.Errorf("traceparent %s at an endpoint that did not ask", got)
		}
	}
}

// carried checks that the records of attempts, and the requests at a receiver that
// asked for it, name the spans.
func (g *gateway) carried(t *testing.T, s *story, at *sink) {
	t.Helper()
	event := s.attempts[0].Attributes["postrider.event_id"]
	var records []schemas.Attempt
	eventually(t, time.Minute, "the attempts are recorded", func() bool {
		records = nil
		g.scan(g.broker().Topics().Attempts, func(r *kgo.Record) {
			if a, err := schemas.DecodeAttempt(r.Value); err == nil && a.Event == event {
				records = append(records, a)
			}
		})
		return len(records) >= len(s.attempts)
	})
	for _, a := range records {
		if span := s.attempts[a.Attempt-1]; a.TraceID != span.TraceID || a.SpanID != span.SpanID {
			t.Errorf("attempt %d is recorded with span %s/%s, want %s/%s", a.Attempt, a.TraceID, a.SpanID, span.TraceID, span.SpanID)
		}
	}
	if at == nil {
		return
	}
	n := 0
	for _, a := range at.arrivals() {
		if a.ID != event {
			continue
		}
		span := s.attempts[n]
		if n++; a.Header.Get("Traceparent") != "00-"+span.TraceID+"-"+span.SpanID+"-01" {
			t.Errorf("attempt %d came with traceparent %s", n, a.Header.Get("Traceparent"))
		}
	}
	if n != len(s.attempts) {
		t.Errorf("%d requests, %d attempts", n, len(s.attempts))
	}
}

// produce writes records to the topic events as a direct producer.
func (g *gateway) produce(t *testing.T, records ...kafka.Message) {
	t.Helper()
	w := g.kafkaWriter(0, &kafka.Hash{})
	defer func() { _ = w.Close() }()
	if err := w.WriteMessages(t.Context(), records...); err != nil {
		t.Fatal(err)
	}
}

// (T) A log line written in a span names it; every role's /metrics has its own
// metrics and no ids of tenants or endpoints.
func TestLogsAndMetrics(t *testing.T) {
	g := newGateway(t)
	collector := otlptest.New()
	t.Cleanup(collector.Close)
	// Ingest takes more than the topic, so Kafka refuses an event, and ingest says so.
	g.startTraced(collector, "POSTRIDER_MAX_RECORD_BYTES=8MiB")
	g.tenant()
	s := newSink(t, firstFails)
	endpoint := g.endpoint(s.URL, settings{"retry": map[string]any{"schedule": []string{"1s"}}, "breaker": map[string]any{"off": true}})
	events := g.events(20)
	eventually(t, time.Minute, "everything arrived", func() bool { return len(s.missing(events)) == 0 })

	noise := make([]byte, 2<<20) // does not compress
	_, _ = rand.Read(noise)
	big := fmt.Appendf(nil, `{"type":"order.paid","tenant":"acme","data":"%x"}`, noise)
	header := http.Header{"Content-Type": {"application/json"}, "Traceparent": {producerParent}}
	got, err := g.call("ingest-1", "POST", "/v1/events", header, bytes.NewReader(big))
	if err != nil || got.status != http.StatusRequestEntityTooLarge {
		t.Fatalf("%d %.300s, %v", got.status, got.body, err)
	}
	line := g.logLine(t, "ingest-1", "event not acknowledged")
	if line["trace_id"] != producerTrace || len(line["span_id"]) != 16 || line["span_id"] == producerSpan {
		t.Errorf("log line in trace %q, span %q", line["trace_id"], line["span_id"])
	}
	ids := regexp.MustCompile(`acme|ep_[0-9a-z]{10,}|evt_|dlv_|` + endpoint)
	for _, role := range roles() {
		got, err := g.call(role+"-1", "GET", "/metrics", nil, nil)
		if err != nil || got.status != http.StatusOK {
			t.Fatalf("%s: %d, %v", role, got.status, err)
		}
		if !bytes.Contains(got.body, []byte("\npostrider_"+role+"_")) {
			t.Errorf("%s has no metrics postrider_%s_…", role, role)
		}
		if id := ids.Find(got.body); id != nil {
			t.Errorf("%s has metrics that name %s", role, id)
		}
	}
}

// logLine waits for a process's log line with a message and returns its texts.
func (g *gateway) logLine(t *testing.T, instance, message string) map[string]string {
	t.Helper()
	out := map[string]string{}
	eventually(t, 30*time.Second, "log line "+message, func() bool {
		text, err := os.ReadFile(g.proc(instance).log.Name())
		if err != nil {
			t.Fatal(err)
		}
		for raw := range bytes.Lines(text) {
			var line map[string]any
			if json.Unmarshal(raw, &line) == nil && line["msg"] == message {
				for k, v := range line {
					out[k], _ = v.(string)
				}
				return true
			}
		}
		return false
	})
	return out
}
