package deliver

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// onceEach fails unless every delivery arrived exactly once.
func onceEach(t *testing.T, s *sink, ds []*schemas.Delivery) {
	t.Helper()
	counts := s.counts()
	wrong := 0
	for _, d := range ds {
		if counts[d.EventID] != 1 {
			wrong++
		}
	}
	if wrong > 0 || s.len() != len(ds) {
		t.Errorf("%d of %d events did not arrive exactly once; %d requests", wrong, len(ds), s.len())
	}
}

func (w *Worker) epochOf(partition int32) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.homes[partition]; h != nil && h.phase == phaseReady {
		return h.epoch
	}
	return -1
}

// Three hand-overs, with an owner of each epoch before that goes on writing as if
// nothing had happened: nothing is lost and nothing is done twice.
func TestHandOversWithZombies(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		e, _ := r.endpoint(s.URL, func(e *registry.Endpoint) { e.State = registry.StatePaused })
		p := r.layout.Partition(e.ID)
		const each = 700
		var all []*schemas.Delivery
		var epochs []int64
		for range 3 {
			w, stop := r.worker("w1")
			r.eventually("taken over", func() bool { return w.epochOf(p) >= 0 })
			for _, old := range epochs {
				r.zombie(e.ID, p, old)
			}
			epochs = append(epochs, w.epochOf(p))
			ds := r.deliveries(e.ID, each)
			all = append(all, ds...)
			r.send(ds...)
			r.eventually("parked", func() bool { return w.parkedNow() == len(all) })
			stop()
		}
		for _, old := range epochs[:2] {
			r.zombie(e.ID, p, old)
		}
		e.State = registry.StateEnabled
		r.store(e)
		r.worker("w1")
		r.eventually("delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == len(all) })
		onceEach(t, s, all)
		if o := r.outcomes(); len(o) != 1 {
			t.Errorf("outcomes %v, want delivered alone", o)
		}
	})
}

// zombie writes to lanes what an owner of an old epoch might still write: its
// ready, a chunk with offsets that don't exist, and tombstones.
func (r *rig) zombie(endpoint string, partition int32, epoch int64) {
	r.t.Helper()
	records := []*kgo.Record{
		{Key: readyRecordKey(epoch), Value: ownerValue("zombie")},
		{Key: chunkKey(endpoint, epoch, 999), Value: encodeChunk(&parked{tenant: "acme", firstAt: 1, offsets: []int64{1 << 40, 1<<40 + 1}})},
	}
	for n := range int64(20) {
		records = append(records, &kgo.Record{Key: chunkKey(endpoint, epoch, n)})
	}
	for _, rec := range records {
		rec.Topic, rec.Partition = r.topics.Lanes, partition
	}
	if err := r.client.ProduceSync(r.t.Context(), records...).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

// An owner record that was written late, by a worker that was asleep, takes the
// partition from its owner; the group still gives it to that one, which takes it
// over again.
func TestOvertakenOwnerComesBack(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		e, _ := r.endpoint(s.URL)
		p := r.layout.Partition(e.ID)
		w, _ := r.worker("w1")
		first := r.deliveries(e.ID, 50)
		r.send(first...)
		r.eventually("delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == 50 })
		epoch := w.epochOf(p)
		late := &kgo.Record{Topic: r.topics.Lanes, Partition: p, Key: []byte(ownerKey), Value: ownerValue("sleeper")}
		if err := r.client.ProduceSync(t.Context(), late).FirstErr(); err != nil {
			t.Fatal(err)
		}
		r.eventually("stopped", func() bool { return w.epochOf(p) != epoch })
		second := r.deliveries(e.ID, 50)
		r.send(second...)
		r.eventually("delivered by the new home", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == 100 })
		if got := w.epochOf(p); got <= late.Offset {
			t.Errorf("epoch %d, want one above the sleeper's %d", got, late.Offset)
		}
		onceEach(t, s, append(first, second...))
	})
}

// Two workers share the partitions, one joins and one leaves under load, and
// attempts fail: nothing is missing, and each attempt of each delivery has one
// outcome.
func TestRebalanceUnderLoad(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, func(_ int, r *http.Request) int {
			if n, _ := strconv.Atoi(r.Header.Get("Postrider-Attempt")); n == 1 && r.Header.Get("Webhook-Id")[5]%3 == 0 {
				return http.StatusInternalServerError
			}
			return http.StatusOK
		})
		var endpoints []string
		for range 20 {
			e, _ := r.endpoint(s.URL, quick(5))
			endpoints = append(endpoints, e.ID)
		}
		var all []*schemas.Delivery
		load := func() {
			for _, id := range endpoints {
				ds := r.deliveries(id, 20)
				all = append(all, ds...)
				r.send(ds...)
			}
		}
		w1, stop1 := r.worker("w1")
		load()
		r.eventually("first", func() bool { return s.len() > 100 })
		w2, _ := r.worker("w2")
		load()
		r.eventually("the second worker has homes", func() bool { return w2.readyHomes() > 0 && w1.readyHomes() > 0 })
		load()
		stop1()
		load()
		r.eventually("all delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] >= len(all) })
		type pair struct {
			delivery string
			attempt  int
		}
		seen := map[pair]int{}
		delivered := map[string]bool{}
		for _, a := range r.attempts() {
			if a.Outcome == schemas.OutcomeRepeat {
				continue
			}
			seen[pair{a.Delivery, a.Attempt}]++
			delivered[a.Delivery] = delivered[a.Delivery] || a.Outcome == schemas.OutcomeDelivered
		}
		for p, n := range seen {
			if n != 1 {
				t.Errorf("attempt %d has %d outcomes", p.attempt, n)
			}
		}
		for _, d := range all {
			if !delivered[d.ID] {
				t.Errorf("delivery %s is missing", d.ID)
			}
		}
	})
}

func (w *Worker) readyHomes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, h := range w.homes {
		if h.phase == phaseReady {
			n++
		}
	}
	return n
}

// A worker whose commits don't get through starts nothing once its lease is over,
// and goes on when they do.
func TestLease(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		e, _ := r.endpoint(s.URL, func(e *registry.Endpoint) { e.MaxInFlight = 1 })
		p := r.layout.Partition(e.ID)
		w, _ := r.worker("w1")
		r.send(r.delivery(e.ID))
		r.eventually("delivered", func() bool { return s.len() == 1 })
		w.committing.Lock() // no commit is sent from here on
		lease := w.leaseOf(p)
		r.eventually("lease over", func() bool { return time.Now().After(lease) })
		before := s.len()
		r.send(r.deliveries(e.ID, 20)...)
		r.eventually("parked for want of a lease", func() bool { return w.parkedNow() == 20 })
		if s.len() != before || !w.leaseOf(p).Equal(lease) {
			t.Errorf("%d requests without a lease", s.len()-before)
		}
		w.committing.Unlock()
		r.eventually("delivered after all", func() bool { return s.len() == 21 })
		for _, g := range s.all()[:before] {
			if g.at.After(lease) {
				t.Errorf("a request came %s after the lease", g.at.Sub(lease))
			}
		}
	})
}

func (w *Worker) leaseOf(partition int32) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.homes[partition]; h != nil {
		return h.lease
	}
	return time.Time{}
}
