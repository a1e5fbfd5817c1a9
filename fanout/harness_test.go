package fanout

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/testkit"
	"github.com/postrider/postrider/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// staticView is a view that is always complete. Tests change it while it is read.
type staticView struct {
	mu      sync.Mutex
	offset  int64
	tenants map[string]*registry.Snapshot
	loads   int
}

func newStaticView() *staticView { return &staticView{tenants: map[string]*registry.Snapshot{}} }

func (v *staticView) marker() registry.Marker {
	return registry.Marker{Generation: 1, Next: 1 << 40, Complete: true}
}

// put stores an entity's state; nil removes it.
func (v *staticView) put(tenant, entity string, value any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.offset++
	snap := v.tenants[tenant]
	if snap == nil {
		snap = &registry.Snapshot{Tenant: tenant, Entries: map[string]registry.Entry{}}
	}
	snap.Version = registry.Version{Marker: v.marker(), At: v.offset}
	if value == nil {
		delete(snap.Entries, entity)
	} else {
		doc, err := json.Marshal(value)
		if err != nil {
			panic(err)
		}
		snap.Entries[entity] = registry.Entry{Offset: v.offset, Value: doc}
	}
	v.tenants[tenant] = snap
}

func (v *staticView) Versions(_ context.Context, tenants []string) ([]registry.Version, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]registry.Version, len(tenants))
	for i, name := range tenants {
		out[i] = registry.Version{Marker: v.marker(), At: -1}
		if snap := v.tenants[name]; snap != nil {
			out[i] = snap.Version
		}
	}
	return out, nil
}

func (v *staticView) Load(_ context.Context, tenants []string) ([]registry.Snapshot, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.loads++
	out := make([]registry.Snapshot, len(tenants))
	for i, name := range tenants {
		out[i] = registry.Snapshot{Tenant: name, Version: registry.Version{Marker: v.marker(), At: -1}}
		if snap := v.tenants[name]; snap != nil {
			out[i] = *snap
			out[i].Entries = maps.Clone(snap.Entries)
		}
	}
	return out, nil
}

// subscribe adds an endpoint with one subscription and returns the endpoint's id.
func (v *staticView) subscribe(tenant string, n int, filter string, types ...string) string {
	ep := fmt.Sprintf("ep_%026d", n)
	v.put(tenant, registry.TenantEntity, registry.Tenant{ID: tenant})
	v.put(tenant, ep, registry.Endpoint{ID: ep, Tenant: tenant, State: registry.StateEnabled})
	sub := fmt.Sprintf("sub_%026d", n)
	v.put(tenant, sub, registry.Subscription{ID: sub, Tenant: tenant, Endpoint: ep, Types: types, Filter: filter})
	return ep
}

// settleWait bounds how long a test waits for the stage.
const settleWait = 3 * time.Minute

// rig is a gateway's Kafka and Redis around the stage under test.
type rig struct {
	tb     testing.TB
	broker broker.Config
	layout broker.Layout
	topics broker.Topics
	mini   *miniredis.Miniredis // nil with REDIS_URL
	rdb    redis.UniversalClient
	view   *staticView
	cl     *kgo.Client
}

// eachKafka runs the test on the embedded broker, and on a real one if
// KAFKA_BROKERS names it.
func eachKafka(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	testkit.EachKafka(t, func(t *testing.T, c broker.Config) { test(t, newRigOn(t, c)) })
}

func newRig(tb testing.TB) *rig {
	tb.Helper()
	return newRigOn(tb, testkit.EmbeddedKafka(tb))
}

func newRigOn(tb testing.TB, conf broker.Config) *rig {
	tb.Helper()
	r := &rig{tb: tb, broker: conf, topics: conf.Topics(), view: newStaticView()}
	var err error
	if r.cl, err = conf.NewClient(kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(r.cl.Close)
	ctx, cancel := context.WithTimeout(tb.Context(), settleWait)
	defer cancel()
	report, err := broker.Ensure(ctx, r.cl, conf)
	if err != nil {
		tb.Fatal(err)
	}
	r.layout = report.Layout
	if err := broker.EnsureGroup(ctx, r.cl, conf, Group, Topics(r.topics)...); err != nil {
		tb.Fatal(err)
	}
	r.startRedis()
	return r
}

// testDB keeps a shared Redis apart from the tests of other packages.
const testDB = 8

func (r *rig) startRedis() {
	if rdb, ok := testkit.RealRedis(r.tb, testDB); ok {
		r.rdb = rdb
		return
	}
	r.startMini()
}

// startMini starts a Redis that can be made to fail.
func (r *rig) startMini() {
	r.mini = miniredis.RunT(r.tb)
	rdb := redis.NewClient(&redis.Options{Addr: r.mini.Addr()})
	r.rdb = rdb
	r.tb.Cleanup(func() { _ = rdb.Close() })
}

// start runs an instance until the returned function is called.
func (r *rig) start(instance string, change ...func(*Config)) (f *Fanout, stop func()) {
	r.tb.Helper()
	cfg := Config{Broker: r.broker, Layout: r.layout, Instance: instance, Redis: r.rdb, View: r.view}
	for _, fn := range change {
		fn(&cfg)
	}
	f, err := New(cfg)
	if err != nil {
		r.tb.Fatal(err)
	}
	return f, r.run(f)
}

// run runs the stage until the returned function is called.
func (r *rig) run(f *Fanout) (stop func()) {
	ctx, cancel := context.WithCancel(r.tb.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.tb.Errorf("Run: %v", err)
		}
	})
	r.tb.Cleanup(stop)
	return stop
}

// record returns the record of an event on a partition of events.
func (r *rig) record(ev schemas.Event, partition int32) *kgo.Record {
	return &kgo.Record{
		Topic: r.topics.Events, Partition: partition, Key: ev.RecordKey(), Value: ev.Data,
		Headers: schemas.AppendEventHeaders[kgo.RecordHeader](nil, &ev),
	}
}

func (r *rig) produce(records ...*kgo.Record) {
	r.tb.Helper()
	if err := r.cl.ProduceSync(r.tb.Context(), records...).FirstErr(); err != nil {
		r.tb.Fatal(err)
	}
}

func event(tenant, id, eventType string) schemas.Event {
	return schemas.Event{
		ID: id, Source: "/shop", Type: eventType, Tenant: tenant, Time: "2026-01-02T03:04:05Z",
		Data: []byte(`{"id":"` + id + `"}`),
	}
}

// read returns the committed records of a topic: as many as wanted, and what more
// there is.
func (r *rig) read(topic string, want int) []*kgo.Record {
	r.tb.Helper()
	ctx, cancel := context.WithTimeout(r.tb.Context(), settleWait)
	defer cancel()
	cl, err := r.broker.NewClient(kgo.ConsumeTopics(topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		r.tb.Fatal(err)
	}
	defer cl.Close()
	var got []*kgo.Record
	for len(got) < want {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			r.tb.Fatalf("%s: %d of %d records", topic, len(got), want)
		}
		fetches.EachError(func(_ string, _ int32, err error) { r.tb.Errorf("read %s: %v", topic, err) })
		got = append(got, fetches.Records()...)
	}
	const surplus = 200 * time.Millisecond // more than a fetch of what is there takes
	more, stop := context.WithTimeout(ctx, surplus)
	defer stop()
	for more.Err() == nil {
		got = append(got, cl.PollFetches(more).Records()...)
	}
	return got
}

// exactly reads a topic until it has as many records as wanted and every event
// that was produced so far is committed, so that a surplus would be seen.
func (r *rig) exactly(topic string, want int) []*kgo.Record {
	r.tb.Helper()
	r.settle()
	got := r.read(topic, want)
	if len(got) != want {
		r.tb.Fatalf("%s: %d records, want %d", topic, len(got), want)
	}
	return got
}

// settle waits until the group has committed everything in events and pages.
func (r *rig) settle() {
	r.tb.Helper()
	ctx, cancel := context.WithTimeout(r.tb.Context(), settleWait)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	last := ""
	for {
		lag, err := r.lag(ctx)
		if err == nil && lag == 0 {
			return
		}
		if ctx.Err() == nil {
			last = fmt.Sprintf("lag %d, %v", lag, err)
		}
		select {
		case <-ctx.Done():
			r.tb.Fatalf("fan-out does not get on: %s", last)
		case <-tick.C:
		}
	}
}

func (r *rig) deliveries(want int) []schemas.Delivery {
	r.tb.Helper()
	records := r.exactly(r.topics.Deliveries, want)
	out := make([]schemas.Delivery, 0, len(records))
	for _, rec := range records {
		d, err := schemas.DecodeDelivery(rec.Key, rec.Value, rec.Headers)
		if err != nil {
			r.tb.Fatal(err)
		}
		if p := r.layout.Partition(d.Endpoint); p != rec.Partition {
			r.tb.Errorf("delivery %s is in partition %d, want %d", d.ID, rec.Partition, p)
		}
		out = append(out, d)
	}
	return out
}

func (r *rig) decisions(want int) []schemas.Decision {
	r.tb.Helper()
	records := r.exactly(r.topics.Decisions, want)
	out := make([]schemas.Decision, 0, len(records))
	for _, rec := range records {
		d, err := schemas.DecodeDecision(rec.Value)
		if err != nil {
			r.tb.Fatal(err)
		}
		out = append(out, d)
	}
	return out
}
