package ingest

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/schemas"
)

func TestKafkaFails(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		status int
		code   string
	}{
		{"time-out in the client", kgo.ErrRecordTimeout, 503, CodeOutcomeUnknown},
		{"context ended", context.DeadlineExceeded, 503, CodeOutcomeUnknown},
		{"retries used up", kgo.ErrRecordRetries, 503, CodeOutcomeUnknown},
		{"not enough replicas after append", kerr.NotEnoughReplicasAfterAppend, 503, CodeOutcomeUnknown},
		{"anything else", errors.New("boom"), 503, CodeOutcomeUnknown},
		{"not enough replicas", kerr.NotEnoughReplicas, 503, CodeKafkaUnavailable},
		{"no topic", kerr.UnknownTopicOrPartition, 503, CodeKafkaUnavailable},
		{"not allowed", kerr.TopicAuthorizationFailed, 503, CodeKafkaUnavailable},
		{"buffer full", kgo.ErrMaxBuffered, 503, CodeKafkaUnavailable},
		{"too large for Kafka", kerr.MessageTooLarge, 413, CodeEventTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			g := start(t, Config{RetryAfter: 7 * time.Second}, Deps{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			g.kafka.err = func(*kgo.Record) error { return tt.err }
			got := g.postJSON(t, `{"type":"a"}`)
			if got.status != tt.status || got.Code != tt.code {
				t.Fatalf("status %d: %s", got.status, got.raw)
			}
			if tt.status == 503 {
				if got.header.Get("Retry-After") != "7" {
					t.Errorf("Retry-After %q, want 7", got.header.Get("Retry-After"))
				}
				// The id that was made up must come back, for the repeat.
				if want := schemas.EventID("acme", "/acme", got.CloudEventsID); got.CloudEventsID == "" || got.EventID != want {
					t.Errorf("id %q of %q, want %q", got.EventID, got.CloudEventsID, want)
				}
			}
			if events, bytes := g.server.budget.used(); events != 0 || bytes != 0 {
				t.Errorf("%d events, %d bytes are still counted as in flight", events, bytes)
			}
			if !strings.Contains(log.String(), tt.code) {
				t.Errorf("log %q has no %s", log.String(), tt.code)
			}
		})
	}
}

func TestPartOfABatchFails(t *testing.T) {
	g := start(t, Config{}, Deps{})
	g.kafka.err = func(r *kgo.Record) error {
		if r.Offset == 1 {
			return kgo.ErrRecordTimeout
		}
		return nil
	}
	got := g.post(t, strings.Repeat("{\"type\":\"a\"}\n", 3), headers{"Content-Type", "application/x-ndjson"})
	checkResults(t, got, []string{"202", "503 outcome_unknown", "202"})
	if r := got.Results[1]; r.ID == "" || r.CloudEventsID == "" {
		t.Errorf("the event that is to be repeated has no id: %+v", r)
	}
}

func TestWholeBatchFails(t *testing.T) {
	g := start(t, Config{}, Deps{})
	g.kafka.err = func(*kgo.Record) error { return kerr.NotEnoughReplicas }
	got := g.post(t, strings.Repeat("{\"type\":\"a\"}\n", 2), headers{"Content-Type", "application/x-ndjson"})
	if got.status != 503 || got.Code != CodeKafkaUnavailable || got.header.Get("Retry-After") == "" || got.RequestID == "" {
		t.Fatalf("status %d: %s", got.status, got.raw)
	}
	for i, r := range got.Results {
		if r.Status != 503 || r.ID == "" || r.CloudEventsID == "" || r.Problem == nil {
			t.Errorf("result %d: %+v", i, r)
		}
	}
	if len(got.Results) != 2 || got.Accepted != 0 {
		t.Errorf("%d results, %d accepted", len(got.Results), got.Accepted)
	}
}

// TestNoAnswerInTime: what Kafka says after the request was answered must find
// nothing that is in use again, and end the count of what is in flight.
func TestNoAnswerInTime(t *testing.T) {
	g := start(t, Config{AckTimeout: 10 * time.Millisecond}, Deps{})
	g.kafka.hold = true
	got := g.postJSON(t, `{"type":"a","id":"42"}`)
	if got.status != 503 || got.Code != CodeOutcomeUnknown || got.CloudEventsID != "42" || got.EventID != schemas.EventID("acme", "/acme", "42") {
		t.Fatalf("status %d: %s", got.status, got.raw)
	}
	if events, bytes := g.server.budget.used(); events != 1 || bytes == 0 {
		t.Errorf("%d events, %d bytes in flight, want 1 event", events, bytes)
	}
	g.kafka.releaseAll()
	waitFor(t, "nothing is in flight", func() bool { events, bytes := g.server.budget.used(); return events == 0 && bytes == 0 })
}

func TestAckComesFirst(t *testing.T) {
	g := start(t, Config{}, Deps{})
	g.kafka.hold = true
	answer := make(chan answered, 1)
	go func() {
		answer <- g.post(t, "{\"type\":\"a\"}\n{\"type\":\"b\"}", headers{"Content-Type", "application/x-ndjson"})
	}()
	waitFor(t, "both are produced", func() bool { return len(g.kafka.produced()) == 2 })
	g.kafka.mu.Lock()
	first, second := g.kafka.held[0], g.kafka.held[1]
	g.kafka.mu.Unlock()
	first()
	select {
	case got := <-answer:
		t.Fatalf("answered before Kafka acknowledged both: %s", got.raw)
	default:
	}
	second()
	if got := <-answer; got.status != 202 || got.Accepted != 2 {
		t.Errorf("status %d: %s", got.status, got.raw)
	}
}

func TestOverloaded(t *testing.T) {
	for name, tt := range map[string]struct {
		cfg  Config
		body string
	}{
		"events": {Config{MaxInFlightEvents: 2, MaxBatchEvents: 2}, "{\"type\":\"a\"}\n{\"type\":\"a\"}"},
		"bytes": {
			Config{MaxBodyBytes: 1 << 20, MaxInFlightBytes: 3 << 20},
			strings.Repeat(`{"type":"a","data":"`+strings.Repeat("x", 1<<17)+"\"}\n", 7),
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, tt.cfg, Deps{})
			g.kafka.hold = true
			lines := headers{"Content-Type", "application/x-ndjson"}
			waiting := make(chan answered, 8)
			sent := 0
			var refused answered
			// Held requests pile up until one is refused at once.
			for refused.status == 0 && sent < cap(waiting) {
				before := len(g.kafka.produced())
				go func() { waiting <- g.post(t, tt.body, lines) }()
				sent++
				waitFor(t, "it is produced or refused", func() bool {
					return len(g.kafka.produced()) > before || len(waiting) > 0
				})
				select {
				case refused = <-waiting:
				default:
				}
			}
			if refused.status != 503 || refused.Code != CodeOverloaded || refused.header.Get("Retry-After") != "2" || refused.Results[0].CloudEventsID == "" {
				t.Errorf("status %d: %.300s", refused.status, refused.raw)
			}
			waitFor(t, "all events are produced", func() bool {
				return len(g.kafka.produced()) == (sent-1)*strings.Count(tt.body, "type")
			})
			g.kafka.releaseAll()
			for range sent - 1 {
				if got := <-waiting; got.status != 202 {
					t.Errorf("status %d: %.300s", got.status, got.raw)
				}
			}
			if got := g.post(t, tt.body, lines); got.status != 202 {
				t.Errorf("when there is room again: status %d: %.300s", got.status, got.raw)
			}
		})
	}
}

func TestRedisAway(t *testing.T) {
	g := start(t, Config{}, Deps{})
	g.view.setErr(errors.New("redis is away"))
	if got := g.postJSON(t, `{"type":"a"}`); got.status != 503 || got.Code != CodeRegistryUnavailable || got.header.Get("Retry-After") != "2" {
		t.Errorf("a key not known yet: status %d: %s", got.status, got.raw)
	}
	got := g.post(t, `{"type":"a","tenant":"acme","id":"1"}`, headers{"Content-Type", "application/json", "Authorization", "Bearer " + adminKey})
	if got.status != 503 || got.Code != CodeRegistryUnavailable || got.CloudEventsID != "1" {
		t.Errorf("a tenant not known yet: status %d: %s", got.status, got.raw)
	}
	g.view.setErr(nil)
	if got := g.postJSON(t, `{"type":"a"}`); got.status != 202 {
		t.Fatalf("status %d: %s", got.status, got.raw)
	}
	g.view.setErr(errors.New("redis is away"))
	if got := g.postJSON(t, `{"type":"a"}`); got.status != 202 {
		t.Errorf("a key that is known: status %d: %s", got.status, got.raw)
	}
}

// TestBroker runs against the embedded broker, with the client as it is used.
func TestBroker(t *testing.T) {
	embedded, err := broker.StartEmbedded(broker.EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = embedded.Close() }()
	cfg := broker.Config{Brokers: embedded.Brokers(), Embedded: true}
	client, err := cfg.NewClient(kgo.RecordDeliveryTimeout(5 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := broker.Ensure(t.Context(), client, cfg); err != nil {
		t.Fatal(err)
	}
	topic := cfg.Topics().Events
	g := start(t, Config{Topic: topic, AckTimeout: 300 * time.Millisecond}, Deps{Producer: client})

	var lines strings.Builder
	for i := range 200 {
		lines.WriteString(`{"type":"order.paid","id":"` + itoa(i) + `","data":{"n":` + itoa(i) + "}}\n")
	}
	got := g.post(t, lines.String(), headers{"Content-Type", "application/x-ndjson"})
	if got.status != 202 || len(got.Results) != 200 {
		t.Fatalf("status %d: %.300s", got.status, got.raw)
	}
	results := got.Results
	// The largest event that ingest takes, the broker takes too.
	large := strings.Repeat("x", 1<<20)
	for got.status == 202 || got.status == 413 {
		if got = g.post(t, large, headers{
			"Content-Type", "text/plain", "ce-specversion", "1.0", "ce-id", "large", "ce-source", "/s", "ce-type", "a",
		}); got.status == 202 {
			break
		}
		large = large[:len(large)-64]
	}
	if got.status != 202 || len(large) < 1<<20-2*envelope {
		t.Fatalf("%d bytes: status %d: %.300s", len(large), got.status, got.raw)
	}

	from := map[string]map[int32]int64{topic: {}}
	for p := range int32(8) {
		from[topic][p] = 0
	}
	reader, err := cfg.NewReader(from)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	at := make(map[string]string)
	for len(at) < 201 {
		fetches := reader.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			at[event(t, r).ID] = schemas.Position{Partition: r.Partition, Offset: r.Offset}.String()
		})
	}
	for i, r := range results {
		if r.CloudEventsID != itoa(i) || at[r.CloudEventsID] != r.Position {
			t.Errorf("event %s stands at %s, answered %+v", itoa(i), at[itoa(i)], r)
		}
	}

	_ = embedded.Close()
	away := g.postJSON(t, `{"type":"a"}`)
	if away.status != http.StatusServiceUnavailable || away.header.Get("Retry-After") == "" || away.CloudEventsID == "" {
		t.Errorf("without a broker: status %d: %s", away.status, away.raw)
	}
}
