package wheel

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/internal/testkit"
	"github.com/postrider/postrider/schemas"
)

// A level whose beginning was deleted before it was read tells of that for good and
// passes the rest on; a new process begins behind the gap. A level whose log ends below
// the commit waits, and goes on once it has grown. Neither holds up the other.
func TestGaps(t *testing.T) {
	testkit.EachKafka(t, func(t *testing.T, cfg broker.Config) {
		topics := cfg.Topics()
		cl, report := prepared(t, cfg)
		send := func(levels uint32, n int) (last *kgo.Record) {
			t.Helper()
			for range n {
				d := schemas.Delivery{ID: "dlv_1", EventID: "evt_1", Endpoint: "ep_1", Attempt: 2, Levels: levels, Event: schemas.Event{Tenant: "acme", Data: []byte("x")}}
				last = Record(&d, topics, report.Layout)
				if err := cl.ProduceSync(t.Context(), last).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			return last
		}
		home := func() int64 {
			n, err := broker.LastStableOffset(t.Context(), cl, topics.Deliveries, report.Layout.Partition("ep_1"))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		adm := kadm.NewClient(cl)
		gone := send(1, 5).Partition // level 0
		var cut kadm.Offsets
		cut.AddOffset(topics.Schedule, gone, 3, -1)
		if _, err := adm.DeleteRecords(t.Context(), cut); err != nil {
			t.Fatal(err)
		}
		d := schemas.Delivery{ID: "dlv_1", Levels: 2}
		short := Record(&d, topics, report.Layout).Partition // level 1
		var above kadm.Offsets
		above.AddOffset(topics.Schedule, short, 2, -1)
		if err := adm.CommitAllOffsets(t.Context(), cfg.Group(Group), above); err != nil {
			t.Fatal(err)
		}

		health, stop := start(t, cfg, report.Layout)
		await(t, "what is left of level 0 is home", func() bool { return home() == 2 })
		for _, want := range []string{
			fmt.Sprintf("lost_by_retention: %s/%d: offsets 0 to 2", topics.Schedule, gone),
			fmt.Sprintf("truncated: %s/%d: offset 2 is to be read next, but the log ends at 0", topics.Schedule, short),
		} {
			await(t, want, func() bool {
				c := health.Ready(t.Context()).Checks[0]
				return c.Name == "deliver.wheel_data_loss" && c.Status == telemetry.StatusFailing && strings.Contains(c.Detail, want)
			})
		}
		send(2, 3)
		await(t, "level 1 goes on", func() bool { return home() == 3 })
		await(t, "committed", func() bool {
			commits, err := adm.FetchOffsets(t.Context(), cfg.Group(Group))
			at, _ := commits.Lookup(topics.Schedule, gone)
			return err == nil && at.At == 5
		})
		stop()
		health, stop = start(t, cfg, report.Layout)
		defer stop()
		send(1, 1)
		await(t, "a later one is home", func() bool { return home() == 4 })
		if got := health.Ready(t.Context()); got.Status != telemetry.StatusOK {
			t.Errorf("ready after a restart: %+v", got)
		}
	})
}

// Retries that wait in a level are more than an embedded broker keeps of it: all of
// them come home.
func TestEmbeddedKeepsWhatWaits(t *testing.T) {
	b, cfg := embedded(t, broker.EmbeddedConfig{Trim: 10 * time.Millisecond})
	cfg.EmbeddedBytes = 4 << 20 // 31 KB a level
	topics := cfg.Topics()
	cl, report := prepared(t, cfg)
	b.SpareUnread(cfg, map[string][]string{Group: {topics.Schedule}})
	const n = 150
	var level int32
	for range n {
		d := schemas.Delivery{ID: "dlv_1", EventID: "evt_1", Endpoint: "ep_1", Attempt: 2, Levels: 2, Event: schemas.Event{Tenant: "acme", Data: make([]byte, 1<<10)}}
		r := Record(&d, topics, report.Layout)
		if level = r.Partition; cl.ProduceSync(t.Context(), r).FirstErr() != nil {
			t.Fatal("produce")
		}
	}
	health, stop := start(t, cfg, report.Layout)
	defer stop()
	await(t, "all are home", func() bool {
		end, err := broker.LastStableOffset(t.Context(), cl, topics.Deliveries, report.Layout.Partition("ep_1"))
		return err == nil && end == n
	})
	await(t, "trimmed once read", func() bool {
		start, err := broker.StartOffset(t.Context(), cl, topics.Schedule, level)
		return err == nil && start > n/2
	})
	if got := health.Ready(t.Context()); got.Status != telemetry.StatusOK {
		t.Errorf("ready: %+v", got)
	}
}

// start runs a wheel until the returned function is called.
func start(t *testing.T, cfg broker.Config, layout broker.Layout) (health *telemetry.Health, stop func()) {
	t.Helper()
	w, stop := startAs(t, "w1", cfg, layout)
	return w.deps.Health, stop
}

func startAs(t *testing.T, instance string, cfg broker.Config, layout broker.Layout) (w *Wheel, stop func()) {
	t.Helper()
	w, err := New(Config{Instance: instance}, Deps{
		Broker: cfg, Layout: layout, Health: telemetry.NewHealth(), Logger: slog.New(slog.DiscardHandler), Meter: noop.NewMeterProvider().Meter(""),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return w, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// await waits for a condition, far longer than anything here takes.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not reached: %s", what)
		}
		<-tick.C
	}
}
