package wheel

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/goleak"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// embedded starts a broker and returns how to reach it.
func embedded(t *testing.T, c broker.EmbeddedConfig) (*broker.Embedded, broker.Config) {
	t.Helper()
	c.Dir = t.TempDir()
	b, err := broker.StartEmbedded(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b, broker.Config{Brokers: b.Brokers(), Embedded: true, Logger: slog.New(slog.DiscardHandler)}
}

// prepared makes the topics and the wheel's group, and returns a client.
func prepared(t *testing.T, cfg broker.Config) (*kgo.Client, broker.Report) {
	t.Helper()
	cl, err := cfg.NewClient(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	report, err := broker.Ensure(t.Context(), cl, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.EnsureGroup(t.Context(), cl, cfg, Group, cfg.Topics().Schedule); err != nil {
		t.Fatal(err)
	}
	return cl, report
}

// A delivery comes home after its delay and not before, across a restart; what
// can't be read goes to rejected and holds nothing up.
func TestWheelTurns(t *testing.T) {
	_, cfg := embedded(t, broker.EmbeddedConfig{})
	topics := cfg.Topics()
	cl, report := prepared(t, cfg)
	d := schemas.Delivery{
		ID: "dlv_1", EventID: "evt_1", Endpoint: "ep_1", Attempt: 2, Levels: 3, Event: schemas.Event{Tenant: "acme", Data: []byte("x")},
	}
	bad := &kgo.Record{Topic: topics.Schedule, Partition: Record(&d, topics, report.Layout).Partition, Value: []byte("bad")}
	sent := time.Now()
	if err := cl.ProduceSync(t.Context(), bad, Record(&d, topics, report.Layout)).FirstErr(); err != nil {
		t.Fatal(err)
	}
	home := read(t, cfg, topics.Deliveries, report.Layout.Partition("ep_1"))
	// Each run is short: the wheel is stopped and started on the way. On a busy machine
	// it may take longer than that to begin.
	for short := 700 * time.Millisecond; home() == nil; short += short / 4 {
		turn(t, cfg, report.Layout, short)
		if time.Since(sent) > 5*time.Minute {
			t.Fatal("never home")
		}
	}
	if took := home().Timestamp.Sub(sent); took < 3*time.Second-50*time.Millisecond {
		t.Errorf("home after %s, before its 3 s", took)
	}
	rejected := 0
	for p := range int32(64) {
		if _, err := broker.LastStableOffset(t.Context(), cl, topics.Rejected, p); err != nil {
			break
		}
		if r := read(t, cfg, topics.Rejected, p)(); r != nil && string(r.Value) == "bad" {
			rejected++
		}
	}
	if rejected != 1 {
		t.Errorf("%d records rejected, want 1", rejected)
	}
}

// turn runs a wheel for a while.
func turn(t *testing.T, cfg broker.Config, layout broker.Layout, d time.Duration) {
	t.Helper()
	w, err := New(Config{Instance: "w1"}, Deps{
		Broker: cfg, Layout: layout, Health: telemetry.NewHealth(), Logger: slog.New(slog.DiscardHandler), Meter: noop.NewMeterProvider().Meter(""),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := w.Run(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

// read returns what looks for the first record of a partition.
func read(t *testing.T, cfg broker.Config, topic string, partition int32) func() *kgo.Record {
	t.Helper()
	reader, err := broker.NewPointReader(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reader.Close)
	return func() *kgo.Record {
		s, err := reader.Read(t.Context(), topic, partition, 0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Records) == 0 {
			return nil
		}
		return s.Records[0]
	}
}
