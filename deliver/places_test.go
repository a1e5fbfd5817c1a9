package deliver

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// Retry-After holds the lane, not only the delivery, and a new owner keeps to it.
func TestRetryAfterOutlivesTheOwner(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, func(int, *http.Request) int { return http.StatusTooManyRequests })
		s.header = http.Header{"Retry-After": {"600"}}
		e, _ := r.endpoint(s.URL, quick(3))
		w, stop := r.worker("w1")
		r.send(r.delivery(e.ID))
		r.eventually("first attempt", func() bool { return r.outcomes()[schemas.OutcomeRetry] == 1 })
		r.send(r.deliveries(e.ID, 10)...)
		r.eventually("held", func() bool { return w.parkedNow() == 10 })
		stop()
		w, _ = r.worker("w1")
		r.send(r.deliveries(e.ID, 10)...)
		r.eventually("still held", func() bool { return w.parkedNow() == 20 })
		if s.len() != 1 {
			t.Errorf("%d requests though the receiver asked for ten minutes", s.len())
		}
	})
}

// Cancelled by hand: a parked delivery, one that waits for its retry; not one that
// is named with another endpoint.
func TestCancelByHand(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		failing := newSink(t, func(int, *http.Request) int { return http.StatusInternalServerError })
		s := newSink(t, nil)
		parked, _ := r.endpoint(s.URL, func(e *registry.Endpoint) { e.State = registry.StatePaused })
		scheduled, _ := r.endpoint(failing.URL, quick(60))
		w, _ := r.worker("w1")
		ds := r.deliveries(parked.ID, 20)
		r.send(ds...)
		retried := r.delivery(scheduled.ID)
		r.send(retried)
		r.eventually("parked and scheduled", func() bool {
			return w.parkedNow() == 20 && r.outcomes()[schemas.OutcomeRetry] >= 1
		})
		foreign := schemas.NewID(schemas.PrefixEndpoint)
		for r.layout.Partition(foreign) != r.layout.Partition(parked.ID) {
			foreign = schemas.NewID(schemas.PrefixEndpoint)
		}
		r.cancel(foreign, ds[8].ID)
		r.cancel(parked.ID, ds[7].ID)
		r.cancel(scheduled.ID, retried.ID)
		r.eventually("the retry is cancelled", func() bool { return r.outcomes()[schemas.OutcomeCancelled] == 1 })
		r.eventually("the cancel is known", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			h := w.homes[r.layout.Partition(parked.ID)]
			return h.cancels.has(parked.ID, ds[7].ID) && h.cancels.has(foreign, ds[8].ID)
		})
		parked.State = registry.StateEnabled
		r.store(parked)
		r.eventually("the rest is delivered", func() bool {
			o := r.outcomes()
			return o[schemas.OutcomeDelivered] == 19 && o[schemas.OutcomeCancelled] == 2
		})
		if s.counts()[ds[7].EventID] != 0 {
			t.Error("the cancelled delivery was sent")
		}
	})
}

// What can't be read goes to rejected, with one outcome, and holds nothing up;
// a restart doesn't do it again.
func TestRejects(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		e, _ := r.endpoint(s.URL)
		p := r.layout.Partition(e.ID)
		good := r.delivery(e.ID)
		r.send(good)
		foreign := r.delivery(e.ID)
		foreign.Event.Tenant = "other"
		stray := r.delivery(e.ID)
		records := []*kgo.Record{
			{Partition: p, Key: []byte(e.ID), Value: []byte("no headers")},
			{Partition: p, Value: []byte("no key")},
			{Partition: p, Key: []byte(e.ID), Value: foreign.Event.Data, Headers: schemas.AppendDeliveryHeaders[kgo.RecordHeader](nil, foreign)},
			{Partition: (p + 1) % r.layout.Deliveries, Key: []byte(e.ID), Value: stray.Event.Data, Headers: schemas.AppendDeliveryHeaders[kgo.RecordHeader](nil, stray)},
		}
		for _, rec := range records {
			rec.Topic = r.topics.Deliveries
		}
		if err := r.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		_, stop := r.worker("w1")
		reached := func() bool {
			o := r.outcomes()
			return o[schemas.OutcomeRejected] == 4 && o[schemas.OutcomeDelivered] == 1
		}
		r.eventually("rejected", reached)
		stop()
		w, _ := r.worker("w1")
		r.eventually("taken over", func() bool { return w.epochOf(p) >= 0 })
		r.send(r.delivery(e.ID))
		r.eventually("delivered", func() bool { return s.len() == 2 })
		if o := r.outcomes(); o[schemas.OutcomeRejected] != 4 {
			t.Errorf("outcomes %v after a restart", o)
		}
	})
}

// switchedView is a view that fails until it is switched on.
type switchedView struct {
	view
	on atomic.Bool
}

func (v *switchedView) Entities(ctx context.Context, refs []registry.Ref) ([]registry.Found, error) {
	if !v.on.Load() {
		return nil, errors.New("redis is away")
	}
	return v.view.Entities(ctx, refs)
}

// Redis away at the first delivery of an endpoint: it parks, nothing ends as
// cancelled, and all goes on by itself.
func TestRedisAway(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		e, _ := r.endpoint(s.URL)
		v := &switchedView{view: r.view}
		w, _ := r.worker("w1", func(_ *Config, d *Deps) { d.View = v })
		ds := r.deliveries(e.ID, 30)
		r.send(ds...)
		r.eventually("parked", func() bool { return w.parkedNow() == 30 })
		v.on.Store(true)
		r.eventually("delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == 30 })
		onceEach(t, s, ds)
	})
}

// FLUSHALL under load loses nothing and cancels nothing.
func TestFlushUnderLoad(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		r.worker("w1")
		var all []*schemas.Delivery
		for i := range 12 {
			e, _ := r.endpoint(s.URL)
			ds := r.deliveries(e.ID, 20)
			for _, d := range ds {
				d.Registry = r.store(e)
			}
			all = append(all, ds...)
			r.send(ds...)
			if i%3 == 0 {
				if err := r.rdb.FlushDB(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
			}
		}
		r.eventually("delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == len(all) })
		onceEach(t, s, all)
	})
}

// Endpoints that hang and fill all slots keep nobody else from being served: the others finish while every hanging request is still open.
func TestHangingEndpointsHurtOnlyThemselves(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		release := make(chan struct{})
		hanging := newSink(t, func(int, *http.Request) int { <-release; return http.StatusOK })
		healthy := newSink(t, nil)
		w, _ := r.worker("w1", func(c *Config, _ *Deps) { c.Slots = 16 })
		stuck := 0
		for range 30 {
			e, _ := r.endpoint(hanging.URL, func(e *registry.Endpoint) { e.Timeout = registry.Duration(time.Minute) })
			r.send(r.deliveries(e.ID, 5)...)
			stuck += 5
		}
		r.eventually("slots are taken", func() bool { return hanging.len() >= 16 })
		e, _ := r.endpoint(healthy.URL)
		ds := r.deliveries(e.ID, 200)
		r.send(ds...)
		r.eventually("the healthy one is served", func() bool { return healthy.len() == 200 })
		if o := r.outcomes(); o[schemas.OutcomeDelivered] != 200 {
			r.eventually("outcomes written", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == 200 })
		}
		if open := hanging.len(); open > overflow*16 {
			t.Errorf("%d attempts at once with 16 slots", open)
		}
		r.eventually("what hangs behind is parked, not in memory", func() bool { return w.parkedNow()+hanging.len() >= stuck })
		close(release)
		r.eventually("all delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == 200+stuck })
	})
}

// A paused endpoint's records that grow too old end as expired, in dead, while
// the endpoint stays paused; younger ones stay.
func TestExpiredWhileParked(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		e, _ := r.endpoint(s.URL, func(e *registry.Endpoint) {
			e.State, e.Retry.MaxAge = registry.StatePaused, registry.Duration(time.Hour)
		})
		w, _ := r.worker("w1")
		old, young := r.deliveries(e.ID, 40), r.deliveries(e.ID, 10)
		for _, d := range old {
			d.MadeAt = time.Now().Add(-2 * time.Hour)
		}
		r.send(old...)
		r.send(young...)
		r.eventually("parked", func() bool { return w.parkedNow() == 50 })
		r.eventually("expired", func() bool {
			w.mu.Lock()
			w.visitOld(time.Now().Add(2 * time.Hour)) // the chunks are old enough to be looked at
			w.mu.Unlock()
			return r.outcomes()[schemas.OutcomeExpired] == 40
		})
		r.eventually("the young stay", func() bool { return w.parkedNow() == 10 })
		dead := 0
		r.scanAll(r.topics.Dead, func(rec *kgo.Record) {
			if d, err := schemas.DecodeDelivery(rec.Key, rec.Value, rec.Headers); err == nil && d.Reason == "expired" {
				dead++
			}
		})
		if dead != 40 || s.len() != 0 {
			t.Errorf("%d records in dead, %d requests", dead, s.len())
		}
	})
}

// scanAll gives every record of a topic to fn, however many partitions it has.
func (r *rig) scanAll(topic string, fn func(*kgo.Record)) {
	r.t.Helper()
	reader, err := broker.NewPointReader(r.kafka)
	if err != nil {
		r.t.Fatal(err)
	}
	defer reader.Close()
	w := &Worker{reader: reader}
	for p := int32(0); ; p++ {
		end, err := broker.LastStableOffset(r.t.Context(), r.client, topic, p)
		if err != nil {
			return // no such partition
		}
		if err := w.readAll(r.t.Context(), topic, p, logSpan{0, end}, fn); err != nil {
			r.t.Fatal(err)
		}
	}
}

// An endpoint that is deleted ends what it has everywhere: scheduled, too.
func TestDeletedWhileScheduled(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, func(int, *http.Request) int { return http.StatusBadGateway })
		e, _ := r.endpoint(s.URL, quick(60))
		r.worker("w1")
		r.send(r.deliveries(e.ID, 5)...)
		r.eventually("scheduled", func() bool { return r.outcomes()[schemas.OutcomeRetry] >= 5 })
		r.put("acme", e.ID, nil)
		r.eventually("cancelled", func() bool { return r.outcomes()[schemas.OutcomeCancelled] == 5 })
	})
}

// More lanes than max_lanes: idle ones are forgotten, busy ones stay.
func TestEvictsIdleLanes(t *testing.T) {
	w := &Worker{cfg: Config{MaxLanes: 10}.withDefaults(), homes: map[int32]*home{}, slots: newSlots(4, 64, 100), alarms: newAlarms()}
	h := newHome(t.Context(), 0)
	defer h.cancel()
	w.homes[0] = h
	now := time.Now()
	for i := range 30 {
		l := w.lane(h, schemas.NewID("ep"), "acme", now.Add(time.Duration(i)*time.Second))
		if i < 5 {
			l.pending = []parkedRecord{{offset: 1}}
		}
	}
	w.evict()
	busy := 0
	for _, l := range h.lanes {
		if len(l.pending) > 0 {
			busy++
		}
	}
	if len(h.lanes) != 9 || busy != 5 {
		t.Errorf("%d lanes left, %d of 5 busy ones", len(h.lanes), busy)
	}
}

// With no memory for waiting records they park, and are delivered all the same.
func TestMaxWaiting(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		e, _ := r.endpoint(s.URL, func(e *registry.Endpoint) { e.MaxInFlight = 1 })
		w, _ := r.worker("w1", func(c *Config, _ *Deps) { c.MaxWaiting = 1 })
		ds := r.deliveries(e.ID, 300)
		r.send(ds...)
		r.eventually("delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == 300 })
		onceEach(t, s, ds)
		r.eventually("nothing is left over", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.waiting == 0 && w.unwritten == 0 && w.slots.all() == 0 && len(w.running) == 0
		})
	})
}

// An endpoint that did nothing but fail for DefaultDisableAfter is disabled with that
// reason; what comes for it parks.
func TestFailingForDaysDisables(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, func(int, *http.Request) int { return http.StatusInternalServerError })
		e, _ := r.endpoint(s.URL, quick(8))
		w, _ := r.worker("w1")
		r.send(r.delivery(e.ID))
		r.eventually("it failed", func() bool { return r.outcomes()[schemas.OutcomeRetry] >= 1 })
		w.mu.Lock()
		for _, h := range w.homes {
			if l := h.lanes[e.ID]; l != nil {
				l.failingSince, l.failures = l.failingSince.Add(-DefaultDisableAfter), disableAttempts
			}
		}
		w.mu.Unlock()
		r.eventually("it is disabled", func() bool {
			found, err := r.view.Entities(t.Context(), []registry.Ref{{Tenant: "acme", Entity: e.ID + registry.HealthSuffix}})
			if err != nil || !found[0].OK {
				return false
			}
			h, err := registry.Decode[registry.Health](found[0].Value)
			return err == nil && h.Disabled && h.Reason == disabledFailing
		})
		before := s.len()
		r.send(r.deliveries(e.ID, 5)...)
		r.eventually("what comes parks", func() bool { return w.parkedNow() >= 5 })
		if s.len() != before {
			t.Errorf("%d requests to a disabled endpoint", s.len()-before)
		}
	})
}

// What Kafka acknowledges for a home that was given away counts for nobody: its
// places were taken off when it was closed.
func TestLateAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return false }
		s.endpoint(registry.Endpoint{ID: "ep_1"})
		l := s.start("w0")
		for i := range 50 {
			s.send("ep_1", "", i)
		}
		unwritten := func() int {
			l.w.mu.Lock()
			defer l.w.mu.Unlock()
			return l.w.unwritten
		}
		for unwritten() == 0 {
			sleep(t.Context(), 100*time.Microsecond)
		}
		l.w.mu.Lock()
		l.w.closeHome(l.w.homes[0])
		l.w.mu.Unlock()
		written := len(s.attempts())
		sleep(t.Context(), time.Minute)
		if len(s.attempts()) == written {
			t.Error("nothing was on its way")
		}
		if n := unwritten(); n != 0 {
			t.Errorf("%d places are taken", n)
		}
		l.die()
	})
}
