package deliver

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// No more attempts start than the endpoint's rate allows; what waits for that is
// parked, and all of it arrives once.
func TestRateLimit(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		const rate, burst, n = 40, 10, 120
		s := newSink(t, nil)
		e, _ := r.endpoint(s.URL, func(e *registry.Endpoint) { e.RateLimit = registry.RateLimit{PerSecond: rate, Burst: burst} })
		r.worker("w1")
		ds := r.deliveries(e.ID, n)
		r.send(ds...)
		r.eventually("delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == n })
		onceEach(t, s, ds)
		var starts []time.Time
		for _, a := range r.attempts() {
			starts = append(starts, a.StartedAt)
		}
		slices.SortFunc(starts, time.Time.Compare)
		// A start is noted after it was allowed, on a busy machine much later. (What a
		// bucket allows is held exactly by its own tests.)
		const slack = time.Second
		for i := range starts {
			for j := i; j < n; j++ {
				if most := burst + (starts[j].Sub(starts[i])+slack).Seconds()*rate; float64(j-i+1) > most+1 {
					t.Fatalf("%d attempts within %s at %d/s with a burst of %d", j-i+1, starts[j].Sub(starts[i]), rate, burst)
				}
			}
		}
	})
}

// A breaker opens after failures in a row; from then on deliveries park and
// nothing but probes goes out. It is told while it is open, survives its owner,
// and closes with the first success.
func TestBreakerParks(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		var healthy atomic.Bool
		s := newSink(t, func(int, *http.Request) int {
			if healthy.Load() {
				return http.StatusOK
			}
			return http.StatusInternalServerError
		})
		e, _ := r.endpoint(s.URL, func(e *registry.Endpoint) {
			e.Breaker = registry.Breaker{Failures: 3, ProbeAfter: registry.Duration(time.Second), MaxProbeAfter: registry.Duration(time.Second)}
			e.Retry.Schedule = slices.Repeat([]registry.Duration{registry.Duration(time.Second)}, 20)
		})
		w, stop := r.worker("w1")
		const n = 60
		ds := r.deliveries(e.ID, n)
		r.send(ds...)
		r.eventually("parked", func() bool { return w.parkedNow() >= n-10 })
		report := func() (out registry.Report) {
			found, err := r.view.Entities(t.Context(), []registry.Ref{registry.ReportRef(e.ID)})
			if err == nil && found[0].OK {
				if got, err := registry.Decode[registry.Report](found[0].Value); err == nil {
					out = *got
				}
			}
			return out
		}
		r.eventually("told", func() bool { return report().OpenReason == openFailures })
		stop()
		before, began := s.len(), time.Now()
		w, _ = r.worker("w1")
		r.eventually("the new owner probes", func() bool { return s.len() > before })
		probes, most := s.len()-before, 2+int(time.Since(began)/time.Second) // one a second
		if parked := w.parkedNow(); probes > most || parked < n-20 {
			t.Errorf("%d requests of the new owner, %d deliveries parked: the breaker was forgotten", probes, parked)
		}
		healthy.Store(true)
		r.eventually("delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == n })
		r.eventually("taken back", func() bool { return report() == registry.Report{} })
		spent := 0
		for _, a := range r.attempts() {
			if a.Outcome == schemas.OutcomeRetry {
				spent++
			}
		}
		if spent > n {
			t.Errorf("%d failed attempts of %d deliveries: they were not parked", spent, n)
		}
	})
}

// Ordered by key: a failing head holds up its own key alone, and the keys' order
// outlives changes of the owner.
func TestOrdered(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		var mended atomic.Bool
		s := newSink(t, nil)
		s.answer = func(_ int, req *http.Request) int {
			if !mended.Load() && req.Header.Get(bodyHeader) == `{"n":1}` {
				return http.StatusInternalServerError
			}
			return http.StatusOK
		}
		e, _ := r.endpoint(s.URL, func(e *registry.Endpoint) {
			e.Ordered, e.OnExhausted = true, registry.BlockExhausted
			e.Retry.Schedule = []registry.Duration{registry.Duration(time.Second)}
		})
		_, stop := r.worker("w1")
		const n, keys = 60, 3
		var ds []*schemas.Delivery
		key := map[string]string{}
		for i := range n {
			d := r.delivery(e.ID)
			d.Event.PartitionKey = fmt.Sprint("k", i%keys)
			d.Event.DataContentType = "application/octet-stream" // the body as it is
			key[d.EventID] = d.Event.PartitionKey
			ds = append(ds, d)
		}
		r.send(ds...)
		r.eventually("all but the blocked key", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == n-n/keys })
		stop()
		r.worker("w2")
		r.eventually("the head is tried on", func() bool { return r.outcomes()[schemas.OutcomeRetry] >= 3 })
		if o := r.outcomes(); o[schemas.OutcomeDelivered] != n-n/keys || o[schemas.OutcomeExhausted] != 0 {
			t.Errorf("outcomes %v while the head of a key fails", o)
		}
		mended.Store(true)
		r.eventually("delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == n })
		want := map[string][]string{}
		for _, d := range ds {
			want[d.Event.PartitionKey] = append(want[d.Event.PartitionKey], d.EventID)
		}
		got, seen := map[string][]string{}, map[string]bool{}
		for _, req := range s.all() {
			if !seen[req.id] {
				seen[req.id] = true
				got[key[req.id]] = append(got[key[req.id]], req.id)
			}
		}
		for k := range want {
			if !slices.Equal(want[k], got[k]) {
				t.Errorf("key %s came as %v, want %v", k, got[k], want[k])
			}
		}
	})
}

// What an ordered endpoint gives up makes room for the next one of its key, and so
// does what is cancelled by hand.
func TestOrderedSkipsAndCancels(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		s.answer = func(_ int, req *http.Request) int {
			if b := req.Header.Get(bodyHeader); b == `{"n":1}` || b == `{"n":3}` {
				return http.StatusInternalServerError
			}
			return http.StatusOK
		}
		raw := func(e string) *schemas.Delivery {
			d := r.delivery(e)
			d.Event.DataContentType = "application/octet-stream"
			return d
		}
		skips, _ := r.endpoint(s.URL, func(e *registry.Endpoint) {
			e.Ordered = true
			e.Retry.Schedule = []registry.Duration{registry.Duration(time.Second)}
		})
		waits, _ := r.endpoint(s.URL, func(e *registry.Endpoint) {
			e.Ordered = true
			e.Retry.Schedule = []registry.Duration{registry.Duration(time.Hour)}
		})
		r.worker("w1")
		r.send(raw(skips.ID), raw(skips.ID))
		r.eventually("skipped", func() bool {
			o := r.outcomes()
			return o[schemas.OutcomeExhausted] == 1 && o[schemas.OutcomeDelivered] == 1
		})
		head := raw(waits.ID)
		r.send(head, raw(waits.ID))
		r.eventually("the head failed", func() bool { return r.outcomes()[schemas.OutcomeRetry] == 2 })
		r.cancel(waits.ID, head.ID)
		r.eventually("cancelled, and the next one follows", func() bool {
			o := r.outcomes()
			return o[schemas.OutcomeCancelled] == 1 && o[schemas.OutcomeDelivered] == 2
		})
	})
}

// An endpoint that becomes ordered, or ceases to be, loses nothing of what waits.
func TestOrderedSwitched(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		e, _ := r.endpoint(s.URL, func(e *registry.Endpoint) { e.State = registry.StatePaused })
		w, _ := r.worker("w1")
		ds := r.deliveries(e.ID, 40)
		r.send(ds[:20]...)
		r.eventually("parked", func() bool { return w.parkedNow() == 20 })
		e.Ordered = true
		r.store(e)
		r.send(ds[20:]...)
		r.eventually("parked in order", func() bool { return w.parkedNow() == 40 })
		e.State = registry.StateEnabled
		r.store(e)
		r.eventually("some came", func() bool { return s.len() > 3 })
		e.Ordered = false
		r.store(e)
		r.eventually("delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == 40 })
		onceEach(t, s, ds)
	})
}

// The shards of an endpoint are lanes of their own, each with its part of the
// limits; what is said of the endpoint holds for all of them.
func TestShards(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		const n, shards = 80, 4
		e, _ := r.endpoint(s.URL, func(e *registry.Endpoint) {
			e.Shards, e.MostShards, e.MaxInFlight, e.State = shards, shards, 8, registry.StatePaused
			e.RateLimit = registry.RateLimit{PerSecond: 400, Burst: 40}
		})
		w, _ := r.worker("w1")
		ds := r.deliveries(e.ID, n)
		for _, d := range ds {
			d.Shard = schemas.ShardOf(d.EventID, shards)
		}
		r.send(ds...)
		r.eventually("parked", func() bool { return w.parkedNow() == n })
		w.mu.Lock()
		lanes := 0
		for _, h := range w.homes {
			for _, l := range h.lanes {
				if l.endpoint == e.ID {
					lanes++
					if l.most() != 2 || l.bucket.rate != 100 || l.bucket.burst != 10 {
						t.Errorf("shard %d: %d in flight, %g/s, burst %g; want a quarter of 8, 400 and 40", l.shard, l.most(), l.bucket.rate, l.bucket.burst)
					}
				}
			}
		}
		w.mu.Unlock()
		if lanes != shards {
			t.Errorf("%d lanes, want %d", lanes, shards)
		}
		e.State = registry.StateEnabled
		r.store(e)
		r.eventually("delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == n })
		onceEach(t, s, ds)
		deleted := r.put("acme", e.ID, nil)
		last := r.delivery(e.ID)
		last.Shard, last.Registry = 3, deleted // matched after that
		r.send(last)
		r.eventually("deleted for every shard", func() bool { return r.outcomes()[schemas.OutcomeCancelled] == 1 })
	})
}

// However many endpoints of a tenant hang, it holds no more than its share of the
// slots, and another tenant is served.
func TestTenantShare(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		release := make(chan struct{})
		hanging := newSink(t, func(int, *http.Request) int { <-release; return http.StatusOK })
		w, _ := r.worker("w1", func(c *Config, _ *Deps) { c.Slots, c.TenantShare = 16, 25 })
		var ds []*schemas.Delivery
		for range 30 {
			e, _ := r.endpoint(hanging.URL)
			ds = append(ds, r.delivery(e.ID))
		}
		r.send(ds...)
		r.eventually("its share is used", func() bool { return hanging.len() >= 2 })
		for range 100 { // 25 % of the 8 slots for endpoints that never answered
			w.mu.Lock()
			if got := w.slots.tenants[classFresh]["acme"]; got > 2 {
				t.Errorf("a tenant holds %d slots for new endpoints, its share is 2", got)
			}
			w.mu.Unlock()
		}
		s := newSink(t, nil)
		other, _ := r.endpoint(s.URL, func(e *registry.Endpoint) { e.Tenant = "other" })
		d := r.delivery(other.ID)
		d.Event.Tenant = "other"
		r.send(d)
		r.eventually("the other tenant is served", func() bool { return s.len() == 1 })
		close(release)
		r.eventually("all are served", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == 31 })
	})
}

// countedView counts how often Redis is asked.
type countedView struct {
	view
	calls atomic.Int64
}

func (v *countedView) Entities(ctx context.Context, refs []registry.Ref) ([]registry.Found, error) {
	v.calls.Add(1)
	return v.view.Entities(ctx, refs)
}

// No call to Redis stands between a record and its POST: once an endpoint is
// known, attempts, retries and parked records make none, nor does a new version.
func TestNoRedisPerAttempt(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, func(n int, _ *http.Request) int {
			if n%7 == 0 {
				return http.StatusInternalServerError
			}
			return http.StatusOK
		})
		e, _ := r.endpoint(s.URL, quick(9))
		v := &countedView{view: r.view}
		w, _ := r.worker("w1", func(_ *Config, d *Deps) { d.View = v })
		r.send(r.delivery(e.ID))
		r.eventually("the endpoint is known", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == 1 })
		known := v.calls.Load()
		r.send(r.deliveries(e.ID, 150)...)
		r.eventually("delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == 151 })
		e.State = registry.StatePaused
		r.store(e)
		r.eventually("paused", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.homes[r.layout.Partition(e.ID)].lanes[e.ID].know.target.endpoint.State == registry.StatePaused
		})
		r.send(r.deliveries(e.ID, 50)...)
		r.eventually("parked", func() bool { return w.parkedNow() == 50 })
		e.State = registry.StateEnabled
		r.store(e)
		r.eventually("drained", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == 201 })
		if n := v.calls.Load() - known; n != 0 {
			t.Errorf("%d calls to Redis for 200 deliveries of a known endpoint", n)
		}
	})
}
