package deliver

import (
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/signature"
	"github.com/postrider/postrider/schemas"
)

// Each delivery is POSTed once, with a signature that verifies, and has one
// outcome.
func TestDelivers(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		e, secret := r.endpoint(s.URL)
		r.worker("w1")
		ds := r.deliveries(e.ID, 500)
		r.send(ds...)
		r.eventually("all delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == len(ds) })
		for id, n := range s.counts() {
			if n != 1 {
				t.Errorf("event %s arrived %d times", id, n)
			}
		}
		key, err := signature.Parse(secret)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range s.all() {
			if err := signature.Verify([]signature.Key{key}, g.header, g.body, time.Now(), time.Minute); err != nil {
				t.Fatalf("verify: %v", err)
			}
		}
	})
}

// A failed attempt is repeated on the schedule under the same webhook-id, and
// ends in dead when the schedule is over.
func TestRetriesUntilExhausted(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		flaky := newSink(t, func(n int, _ *http.Request) int {
			if n <= 2 {
				return http.StatusInternalServerError
			}
			return http.StatusOK
		})
		dead := newSink(t, func(int, *http.Request) int { return http.StatusTeapot })
		e1, _ := r.endpoint(flaky.URL, quick(3))
		e2, _ := r.endpoint(dead.URL, quick(1))
		r.worker("w1")
		r.send(r.delivery(e1.ID), r.delivery(e2.ID))
		r.eventually("one delivered, one exhausted", func() bool {
			o := r.outcomes()
			return o[schemas.OutcomeDelivered] == 1 && o[schemas.OutcomeExhausted] == 1
		})
		got := flaky.all()
		if len(got) != 3 || got[0].id != got[2].id || got[2].attempt != "3" {
			t.Errorf("flaky endpoint saw %d requests, last attempt %s", len(got), got[len(got)-1].attempt)
		}
		for i := 1; i < len(got); i++ {
			if wait := got[i].at.Sub(got[i-1].at); wait < time.Second {
				t.Errorf("attempt %d came after %s, before its time", i+1, wait)
			}
		}
		if o := r.outcomes(); o[schemas.OutcomeRetry] != 3 {
			t.Errorf("outcomes %v, want 3 retries", o)
		}
	})
}

// A paused endpoint's deliveries park; resume drains them in the order of their
// offsets, once each; nobody else notices.
func TestPauseParksAndResumeDrains(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s, other := newSink(t, nil), newSink(t, nil)
		e, _ := r.endpoint(s.URL, func(e *registry.Endpoint) { e.State, e.MaxInFlight = registry.StatePaused, 1 })
		o, _ := r.endpoint(other.URL)
		w, _ := r.worker("w1")
		const n = 3000
		ds := r.deliveries(e.ID, n)
		r.send(ds...)
		r.send(r.deliveries(o.ID, 10)...)
		r.eventually("the other endpoint is served", func() bool { return other.len() == 10 })
		r.eventually("all parked", func() bool { return w.parkedNow() == n })
		if s.len() != 0 {
			t.Fatalf("%d requests to a paused endpoint", s.len())
		}
		e.State = registry.StateEnabled
		r.store(e)
		r.eventually("drained", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == n+10 })
		got := s.all()
		if len(got) != n {
			t.Fatalf("%d requests, want %d", len(got), n)
		}
		for i := range got {
			if got[i].id != ds[i].EventID {
				t.Fatalf("request %d is %s, want %s: out of order", i, got[i].id, ds[i].EventID)
			}
		}
		r.eventually("no chunk is left", func() bool { return w.parkedNow() == 0 })
	})
}

func (w *Worker) parkedNow() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.census().parked
}

// A new worker takes parked records over, and goes on with what the old one had
// not finished; nothing is missing.
func TestHandOver(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		e, _ := r.endpoint(s.URL, func(e *registry.Endpoint) { e.State = registry.StatePaused })
		ds := r.deliveries(e.ID, 1500)
		w, stop := r.worker("w1")
		r.send(ds[:1000]...)
		r.eventually("parked", func() bool { return w.parkedNow() == 1000 })
		stop()
		w, stop = r.worker("w1")
		r.send(ds[1000:]...)
		r.eventually("parked again", func() bool { return w.parkedNow() == 1500 })
		stop()
		e.State = registry.StateEnabled
		r.store(e)
		r.worker("w1")
		r.eventually("delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == 1500 })
		counts := s.counts()
		for _, d := range ds {
			if counts[d.EventID] != 1 {
				t.Fatalf("event %s arrived %d times", d.EventID, counts[d.EventID])
			}
		}
	})
}

// lines keeps what is logged.
type lines struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	return len(p), nil
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(string(l.text), text)
}

// 410 disables the endpoint, and the log says so.
func TestGoneDisables(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		log := new(lines)
		r.log = slog.New(slog.NewTextHandler(log, nil))
		s := newSink(t, func(int, *http.Request) int { return http.StatusGone })
		e, _ := r.endpoint(s.URL, quick(5))
		w, _ := r.worker("w1")
		r.send(r.delivery(e.ID))
		r.eventually("disabled", func() bool {
			found, err := r.view.Entities(t.Context(), []registry.Ref{{Tenant: "acme", Entity: e.ID + registry.HealthSuffix}})
			return err == nil && found[0].OK
		})
		r.send(r.deliveries(e.ID, 5)...)
		r.eventually("parked", func() bool { return w.parkedNow() >= 5 })
		if s.len() != 1 {
			t.Errorf("%d requests to an endpoint that is gone", s.len())
		}
		if log.count("endpoint disabled") != 1 || log.count("reason=gone") != 1 || log.count("endpoint_id="+e.ID) == 0 {
			t.Errorf("want one line that says which endpoint was disabled, and why: %s", log.text)
		}
	})
}

// The deliveries of a deleted endpoint end as cancelled, parked ones too.
func TestDeletedEndpointCancels(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		e, _ := r.endpoint(s.URL, func(e *registry.Endpoint) { e.State = registry.StatePaused })
		w, _ := r.worker("w1")
		r.send(r.deliveries(e.ID, 200)...)
		r.eventually("parked", func() bool { return w.parkedNow() == 200 })
		r.put("acme", e.ID, nil)
		r.eventually("cancelled", func() bool { return r.outcomes()[schemas.OutcomeCancelled] == 200 })
		d := r.delivery(e.ID)
		r.send(d)
		r.eventually("cancelled later, too", func() bool { return r.outcomes()[schemas.OutcomeCancelled] == 201 })
		if s.len() != 0 {
			t.Errorf("%d requests to a deleted endpoint", s.len())
		}
	})
}
