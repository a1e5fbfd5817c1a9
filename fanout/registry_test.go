package fanout

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/registry"
)

// publish writes an entity to the topic registry and returns once it is
// acknowledged: from then on every event that is sent must be matched with it.
func (r *rig) publish(tenant, entity string, value any) {
	r.tb.Helper()
	doc, err := json.Marshal(value)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.produce(&kgo.Record{Topic: r.topics.Registry, Key: registry.EncodeKey(tenant, entity), Value: doc})
}

// project runs a projector and returns the view that it keeps.
func (r *rig) project() *registry.View {
	r.tb.Helper()
	id, err := broker.TopicID(r.tb.Context(), r.cl, r.topics.Registry)
	if err != nil {
		r.tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.tb.Context())
	var running sync.WaitGroup
	p := registry.NewProjector(registry.ProjectorConfig{Kafka: r.broker, Redis: r.rdb})
	running.Go(func() {
		if err := p.Run(ctx); err != nil {
			r.tb.Errorf("projector: %v", err)
		}
	})
	r.tb.Cleanup(func() { cancel(); running.Wait() })
	return registry.NewView(r.rdb, id)
}

// A subscription that was acknowledged before the event was sent always matches,
// also with Redis emptied over and over (P5): each event goes to exactly the
// endpoints that existed then, and those that came later never lose one.
func TestNothingIsMismatchedWhileRedisIsFlushed(t *testing.T) {
	eachKafka(t, func(t *testing.T, r *rig) {
		if err := r.rdb.FlushDB(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		view := r.project()
		r.publish("acme", registry.TenantEntity, registry.Tenant{ID: "acme"})
		r.start("a", func(c *Config) { c.View = view })
		const rounds, each = 8, 50
		want := 0
		for round := range rounds {
			ep, sub := fmt.Sprintf("ep_%026d", round), fmt.Sprintf("sub_%026d", round)
			r.publish("acme", ep, registry.Endpoint{ID: ep, Tenant: "acme", State: registry.StateEnabled})
			r.publish("acme", sub, registry.Subscription{ID: sub, Tenant: "acme", Endpoint: ep, Types: []string{"*"}})
			var events []*kgo.Record
			for n := range each {
				events = append(events, r.record(event("acme", fmt.Sprintf("%d.%d", round, n), "order.paid"), int32(n%8)))
			}
			r.produce(events...)
			if err := r.rdb.FlushDB(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			want += (round + 1) * each
			r.settle() // a later subscription must not exist yet when these are matched
		}
		perRound := map[string]int{}
		for _, d := range r.deliveries(want) {
			round, _, _ := strings.Cut(d.Event.ID, ".")
			perRound[round]++
		}
		for round := range rounds {
			if n := perRound[strconv.Itoa(round)]; n != (round+1)*each {
				t.Errorf("round %d: %d deliveries, want %d", round, n, (round+1)*each)
			}
		}
	})
}

// Without Redis fan-out waits, says so, and goes on by itself.
func TestRedisAway(t *testing.T) {
	r := newRig(t)
	r.startMini() // a shared one stays up
	r.view.subscribe("acme", 1, "", "*")
	beats := make(chan struct{}, 1)
	r.mini.SetError("LOADING Redis is loading the dataset in memory")
	f, _ := r.start("a", func(c *Config) {
		c.Beat = func() {
			select {
			case beats <- struct{}{}:
			default:
			}
		}
	})
	r.produce(r.record(event("acme", "e", "order.paid"), 0))
	deadline := time.After(settleWait)
	for err := f.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "claim events"); err = f.Ready(t.Context()) {
		select {
		case <-beats: // the watchdog sees life all the while
		case <-deadline:
			t.Fatalf("ready: %v", err)
		}
	}
	if f.status.unreadAge() < waitGrace {
		t.Errorf("unread age %s", f.status.unreadAge())
	}
	r.mini.SetError("")
	r.deliveries(1)
	if err := f.Ready(t.Context()); err != nil {
		t.Errorf("after Redis came back: %v", err)
	}
}

// A tenant at its quota, changed before each of its events, holds up neither its own
// nor another tenant's.
func TestTenantAtItsQuota(t *testing.T) {
	eachKafka(t, func(t *testing.T, r *rig) {
		view := r.project()
		const size = 100_000
		pad := strings.Repeat("d", size)
		var records []*kgo.Record
		add := func(tenant, entity string, value any) {
			doc, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, &kgo.Record{Topic: r.topics.Registry, Key: registry.EncodeKey(tenant, entity), Value: doc})
		}
		for n, tenant := range []string{"huge", "acme"} {
			ep, sub := fmt.Sprintf("ep_%026d", n), fmt.Sprintf("sub_%026d", n)
			add(tenant, registry.TenantEntity, registry.Tenant{ID: tenant})
			add(tenant, ep, registry.Endpoint{ID: ep, Tenant: tenant, State: registry.StateEnabled})
			add(tenant, sub, registry.Subscription{ID: sub, Tenant: tenant, Endpoint: ep, Types: []string{"*"}})
		}
		for n := range registry.MaxBytes/size - 1 {
			ep := fmt.Sprintf("ep_%026d", 100+n)
			add("huge", ep, registry.Endpoint{ID: ep, Tenant: "huge", State: registry.StateEnabled, Description: pad})
		}
		r.produce(records...)
		r.start("a", func(c *Config) { c.View = view })
		const rounds = 4
		for n := range rounds {
			r.publish("huge", "ep_00000000000000000000000100", registry.Endpoint{State: registry.StateEnabled, Description: strconv.Itoa(n)})
			id := strconv.Itoa(n)
			r.produce(r.record(event("huge", id, "order.paid"), int32(n)), r.record(event("acme", id, "order.paid"), int32(n)))
			r.settle()
		}
		r.deliveries(2 * rounds)
	})
}

// A batch of more tenants than may be in memory at once is worked on in parts.
func TestBatchOfTooManyTenants(t *testing.T) {
	r := newRig(t)
	var records []*kgo.Record
	const tenants = 20
	for n := range tenants {
		name := fmt.Sprintf("t%d", n)
		r.view.subscribe(name, n, "", "*")
		records = append(records, r.record(event(name, "e", "order.paid"), int32(n%8)))
	}
	r.produce(records...)
	f, _ := r.start("a", func(c *Config) { c.CacheBytes = 3000 }) // one or two tenants
	r.deliveries(tenants)
	if n := f.tenants.order.Len(); n > 2 {
		t.Errorf("%d tenants kept", n)
	}
}
