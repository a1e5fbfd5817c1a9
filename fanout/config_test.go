package fanout

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/postrider/postrider/internal/broker"
)

func TestNewRefuses(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{})
	t.Cleanup(func() { _ = rdb.Close() })
	good := func() Config {
		return Config{
			Broker: broker.Config{Brokers: []string{"127.0.0.1:9"}}, Layout: broker.Layout{Deliveries: 8, ScheduleShards: 1, Version: 1},
			Instance: "a", Redis: rdb, View: newStaticView(),
		}
	}
	if _, err := New(good()); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		want   string
		change func(*Config)
	}{
		{"instance", func(c *Config) { c.Instance = "" }},
		{"redis and view", func(c *Config) { c.Redis = nil }},
		{"redis and view", func(c *Config) { c.View = nil }},
		{"window", func(c *Config) { c.Window = time.Millisecond }},
		{"retention of events", func(c *Config) { c.Broker.Retention.Events, c.Window = 2*time.Hour, 61*time.Minute }},
		{"cache", func(c *Config) { c.CacheBytes = -1 }},
		{"layout", func(c *Config) { c.Layout = broker.Layout{} }},
		{"brokers", func(c *Config) { c.Broker.Brokers = nil }},
	}
	for _, tt := range tests {
		cfg := good()
		tt.change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want one about %s", err, tt.want)
		}
	}
}

func TestWindowIsTheClaimsLife(t *testing.T) {
	r := newRig(t)
	r.view.subscribe("acme", 1, "", "*")
	r.start("a", func(c *Config) { c.Window = 10 * time.Minute })
	ev := event("acme", "e", "order.paid")
	r.produce(r.record(ev, 0))
	r.deliveries(1)
	it := item{rec: r.record(ev, 0)}
	it.decode([16]byte{})
	ttl, err := r.rdb.PTTL(t.Context(), it.claim.key).Result()
	if err != nil || ttl < 9*time.Minute || ttl > 10*time.Minute {
		t.Errorf("the claim lives for %s, %v", ttl, err)
	}
}

func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s status
		ready := func(want ...string) {
			t.Helper()
			err := s.ready(t.Context())
			if (err == nil) != (len(want) == 0) {
				t.Fatalf("ready: %v, want %v", err, want)
			}
			for _, text := range want {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("ready: %v, want %s in it", err, text)
				}
			}
		}
		pass := func(d time.Duration) { <-time.After(d) }
		ready()
		s.waiting(errAway)
		ready() // a short wait is normal
		pass(waitGrace)
		ready("away", "waiting since")
		s.going()
		ready()
		s.note(errors.New("dial"))
		ready("dial")
		pass(noteMemory)
		ready()
		s.losses.Note("events", 0, errors.New("first loss"))
		pass(time.Hour)
		s.clearAll()
		ready("first loss")
		s.unread(time.Now())
		pass(time.Minute)
		if s.unreadAge() != time.Minute {
			t.Errorf("unread age %s", s.unreadAge())
		}
	})
}

func TestPollErrors(t *testing.T) {
	tests := []struct {
		err               error
		ends, loss, noted bool
	}{
		{kgo.ErrClientClosed, true, false, false},
		{&kgo.ErrGroupSession{Err: kerr.FencedInstanceID}, true, false, false},
		{&kgo.ErrGroupSession{Err: kerr.CoordinatorNotAvailable}, false, false, true},
		{&kgo.ErrDataLoss{Topic: "events"}, false, true, false},
	}
	for _, tt := range tests {
		s := &session{Fanout: &Fanout{cfg: Config{}.withDefaults()}}
		err := s.takeErrors(t.Context(), kgo.NewErrFetch(tt.err))
		if got := [3]bool{err != nil, s.status.losses.Check(t.Context()) != nil, s.status.last != nil}; got != [3]bool{tt.ends, tt.loss, tt.noted} {
			t.Errorf("%v: ends, loss, noted = %v", tt.err, got)
		}
	}
}

func TestMetrics(t *testing.T) {
	r := newRig(t)
	reader := sdkmetric.NewManualReader()
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("fanout")
	r.view.subscribe("acme", 1, "", "order.paid")
	r.view.subscribe("acme", 2, "data.nothing > 1", "order.paid")
	r.view.subscribe("acme", 3, "type == 'other'", "order.paid")
	r.start("a", func(c *Config) { c.Meter = meter })
	r.produce(
		r.record(event("acme", "1", "order.paid"), 0), r.record(event("acme", "1", "order.paid"), 0),
		r.record(event("acme", "2", "nobody.asked"), 0), r.record(event("nobody", "3", "order.paid"), 0),
	)
	r.deliveries(1)
	want := map[string]int64{"matched": 1, "duplicate": 1, "unmatched": 1, "rejected": 1}
	got := map[string]int64{}
	// Counting follows the commit.
	for deadline := time.Now().Add(settleWait); len(got) < len(want) && time.Now().Before(deadline); {
		got = sums(t, reader, "postrider.fanout.events")
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("events by result %v, want %v", got, want)
	}
	if got, want := sums(t, reader, "postrider.fanout.withheld"), (map[string]int64{"filtered": 1, "filter_error": 1}); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("withheld by reason %v, want %v", got, want)
	}
}

// sums returns the values of a counter by the label "result" or "reason".
func sums(t *testing.T, reader *sdkmetric.ManualReader, name string) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == name {
				for _, p := range sum.DataPoints {
					name := "" // of a counter without labels
					for _, label := range []attribute.Key{"result", "reason"} {
						if value, ok := p.Attributes.Value(label); ok {
							name = value.AsString()
						}
					}
					got[name] = p.Value
				}
			}
		}
	}
	return got
}

// A member that died holds up the group no longer than its session lasts, and a
// transaction that it left open no longer than that whoever reads behind it.
func TestSessionOptions(t *testing.T) {
	r := newRig(t)
	f, err := New(Config{Broker: r.broker, Layout: r.layout, Instance: "a", Redis: r.rdb, View: r.view})
	if err != nil {
		t.Fatal(err)
	}
	s := &session{Fanout: f}
	s.bombs.log = f.cfg.Logger
	if err := s.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.txn.Close()
	for name, option := range map[string]any{"transaction": kgo.TransactionTimeout, "rebalance": kgo.RebalanceTimeout} {
		if got, ok := s.txn.Client().OptValue(option).(time.Duration); !ok || got > broker.SessionTimeout {
			t.Errorf("%s timeout is %s, a session's is %s", name, got, broker.SessionTimeout)
		}
	}
}
