package deliver

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// expiredAfter returns how long after their deliveries were made the outcomes
// expired came, by delivery.
func (s *sim) expiredAfter(made map[string]time.Time) map[string]time.Duration {
	out := map[string]time.Duration{}
	for _, a := range s.attempts() {
		if a.Outcome == schemas.OutcomeExpired {
			out[a.Delivery] = a.StartedAt.Sub(made[a.Delivery])
		}
	}
	return out
}

// sendMade appends the record of an attempt of a delivery to ep_1 that was made some
// time ago.
func (s *sim) sendMade(n, attempt int, ago time.Duration) string {
	r := s.record("ep_1", int64(n))
	d, err := schemas.DecodeDelivery(r.Key, r.Value, r.Headers)
	if err != nil {
		s.t.Fatal(err)
	}
	d.Attempt, d.MadeAt = attempt, time.Now().Add(-ago)
	s.append(&kgo.Record{
		Topic: s.topics.Deliveries, Key: r.Key, Value: r.Value, Headers: schemas.AppendDeliveryHeaders[kgo.RecordHeader](nil, &d),
	})
	return d.ID
}

// wantWithin checks that of the deliveries those expired whose time has come, each
// no later than two visits after it.
func (s *sim) wantWithin(made map[string]time.Time, age time.Duration, want int) {
	s.t.Helper()
	got := s.expiredAfter(made)
	if len(got) != want {
		s.t.Errorf("%d of %d deliveries expired, want %d", len(got), len(made), want)
	}
	for id, after := range got {
		if after < age || after > age+2*expireEvery {
			s.t.Errorf("delivery %s expired %s after it was made, with a max_age of %s", id, after, age)
		}
	}
}

// A retry that comes back to an endpoint that is paused expires when the delivery is too old,
// counted from when it was made.
func TestRetryExpiresParked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return true }
		e := registry.Endpoint{ID: "ep_1", Retry: registry.Retry{MaxAge: registry.Duration(time.Hour), Schedule: steps(40 * time.Minute)}}
		s.endpoint(e)
		ctx, stop := context.WithCancel(t.Context())
		var world sync.WaitGroup
		world.Go(func() { s.turnWheel(ctx) })
		l := s.start("w0")
		made := map[string]time.Time{s.send("ep_1", "", 1): time.Now()}
		sleep(t.Context(), time.Minute)
		e.State = registry.StatePaused
		s.change(e)
		sleep(t.Context(), 50*time.Minute) // the retry is back
		l.die()
		l = s.start("w1")
		sleep(t.Context(), 20*time.Minute)
		s.wantWithin(made, time.Hour, 1)
		l.die()
		stop()
		world.Wait()
	})
}

// Old retries stand among younger records, in any chunk: each expires when its
// time has come, none is read over and over, and what is left is delivered.
func TestVisitsGoThroughAllChunks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return false }
		e := registry.Endpoint{ID: "ep_1", State: registry.StatePaused, Retry: registry.Retry{MaxAge: registry.Duration(time.Hour)}}
		s.endpoint(e)
		l := s.start("w0")
		made := map[string]time.Time{}
		for n := range 60 {
			ago := time.Duration(0)
			if n%3 == 2 {
				ago = time.Duration(n+5) * 30 * time.Second
			}
			made[s.sendMade(n, 1+n%3, ago)] = time.Now().Add(-ago)
			if n%10 == 9 {
				sleep(t.Context(), 10*time.Second) // a chunk
			}
		}
		sleep(t.Context(), 57*time.Minute)
		s.wantWithin(made, time.Hour, 20)
		before := s.counted()
		sleep(t.Context(), time.Minute/2)
		if reads := s.counted() - before; reads != 0 {
			t.Errorf("%d reads while nothing is too old", reads)
		}
		l.w.mu.Lock()
		for _, h := range l.w.homes {
			if len(h.visits) != 0 {
				t.Errorf("%d visits do not end", len(h.visits))
			}
		}
		l.w.mu.Unlock()
		e.State = registry.StateEnabled
		s.change(e)
		sleep(t.Context(), time.Minute)
		if n := len(s.posts); n != 40 {
			t.Errorf("%d posts, want the 40 that are young enough", n)
		}
		l.die()
	})
}

// The chunk that a lane reads is visited to its end, whatever stands at its
// beginning.
func TestVisitPassesYoungRecords(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return false }
		s.endpoint(registry.Endpoint{ID: "ep_1", State: registry.StatePaused, Retry: registry.Retry{MaxAge: registry.Duration(time.Hour)}})
		l := s.start("w0")
		made := map[string]time.Time{}
		for n, ago := range []time.Duration{0, 50 * time.Minute, 0, 40 * time.Minute, 0} {
			made[s.sendMade(n, 2, ago)] = time.Now().Add(-ago)
		}
		sleep(t.Context(), 25*time.Minute)
		s.wantWithin(made, time.Hour, 2)
		l.die()
	})
}

// What waits for an endpoint that can't be used as it is stored expires at the
// worker's own limit.
func TestExpiresWhereTheEndpointIsBroken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return false }
		s.endpoint(registry.Endpoint{ID: "ep_1"})
		s.mu.Lock()
		s.entries["ep_1"] = registry.Entry{Value: []byte(`{"id":`)}
		s.mu.Unlock()
		l := s.start("w0")
		made := map[string]time.Time{}
		age := l.w.cfg.MaxAge
		made[s.sendMade(1, 1, age-10*time.Minute)] = time.Now().Add(10*time.Minute - age)
		made[s.sendMade(2, 1, 0)] = time.Now()
		sleep(t.Context(), 15*time.Minute)
		s.wantWithin(made, age, 1)
		l.die()
	})
}

// An ordered lane whose first chunk has lost its oldest records is not visited over
// and over.
func TestOrderedVisitsAreRare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return false }
		s.endpoint(registry.Endpoint{
			ID: "ep_1", Ordered: true, State: registry.StatePaused, Retry: registry.Retry{MaxAge: registry.Duration(time.Hour)},
		})
		l := s.start("w0")
		made := map[string]time.Time{
			s.sendMade(1, 1, 50*time.Minute): time.Now().Add(-50 * time.Minute),
			s.sendMade(2, 1, 0):              time.Now(),
		}
		sleep(t.Context(), 15*time.Minute)
		s.wantWithin(made, time.Hour, 1)
		before := s.counted()
		sleep(t.Context(), 10*time.Minute)
		if reads := s.counted() - before; reads > 0 {
			t.Errorf("%d reads while nothing is too old", reads)
		}
		sleep(t.Context(), 40*time.Minute)
		s.wantWithin(made, time.Hour, 2)
		l.die()
	})
}

// When the oldest delivery of a chunk was made stands in its record, and one
// without that goes by when its first record was appended.
func TestChunkSaysHowOldItIs(t *testing.T) {
	t.Parallel()
	for _, p := range []*parked{
		{tenant: "acme", firstAt: 5000, madeAt: 1234, offsets: []int64{3, 9}},
		{tenant: "acme", firstAt: 5000, madeAt: 1234, offsets: []int64{3, 9}, keys: []uint32{7, 8}, retries: map[int]retry{1: {2, 99}}},
		{tenant: "acme", firstAt: 5000, offsets: []int64{3, 9}},
	} {
		got, err := decodeChunk(encodeChunk(p))
		if err != nil || got.madeAt != p.madeAt || len(got.keys) != len(p.keys) || len(got.retries) != len(p.retries) {
			t.Errorf("%+v became %+v: %v", p, got, err)
		}
	}
	parts := []*parked{{firstAt: 5000, offsets: []int64{3}}, {firstAt: 6000, madeAt: 4000, offsets: []int64{4}}}
	if got := gather(parts); got.madeAt != 4000 || got.firstAt != 5000 {
		t.Errorf("joined: %+v", got)
	}
	records := []parkedRecord{{offset: 1, made: 900}, {offset: 2, made: 700}, {offset: 3}}
	if got := inOrder("acme", 1000, records); got.madeAt != 700 {
		t.Errorf("in order: %+v", got)
	}
	if c := newChunk(1, &parked{firstAt: 5000, offsets: []int64{3}}); c.madeAt != 5000 {
		t.Errorf("without a time it counts from %d", c.madeAt)
	}
}
