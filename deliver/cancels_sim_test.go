package deliver

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// cancel appends a cancel, as control does.
func (s *sim) cancel(endpoint, delivery string) {
	s.append(&kgo.Record{Topic: s.topics.Lanes, Key: schemas.CancelKey(endpoint, delivery), Value: []byte(`{"v":1}`)})
}

// follow reads what others write to lanes as long as the worker lives.
func (l *life) follow() {
	l.done.Go(func() {
		for next := int64(0); sleep(l.ctx, 100*time.Millisecond); {
			l.w.mu.Lock()
			loading := l.w.homes[0].phase == phaseLoading
			l.w.mu.Unlock()
			if loading {
				continue
			}
			slice, _ := l.sim.Read(l.ctx, l.w.topics.Lanes, 0, next, 1<<30)
			l.w.mu.Lock()
			for _, r := range slice.Records {
				l.w.followed(r)
			}
			l.w.mu.Unlock()
			next = slice.Next
		}
	})
}

// openInLog returns the keys of the cancels that have no tombstone.
func (s *sim) openInLog() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := map[string]bool{}
	for _, r := range s.logs[s.topics.Lanes] {
		if kind, _, _ := laneKind(string(r.Key)); kind != kindCancel {
			continue
		}
		if delete(open, string(r.Key)); r.Value != nil {
			open[string(r.Key)] = true
		}
	}
	return slices.Sorted(maps.Keys(open))
}

// openCancels returns the keys of the cancels that the worker holds.
func (l *life) openCancels() []string {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	var out []string
	for endpoint, one := range l.w.homes[0].cancels.of {
		for delivery := range one {
			out = append(out, string(schemas.CancelKey(endpoint, delivery)))
		}
	}
	slices.Sort(out)
	return out
}

// simulateCancels cancels deliveries of three endpoints, before they are there and
// while they wait in memory, parked, in their line and for their retry; half of the
// cancels name another endpoint. It kills the worker at random moments. Each
// delivery ends once, as cancelled only if its own endpoint was named.
func simulateCancels(t *testing.T, seed uint64) {
	s := newSim(t, seed)
	second := registry.Duration(time.Second)
	endpoints := []registry.Endpoint{{ID: "ep_a"}, {ID: "ep_order", Ordered: true}, {ID: "ep_shards", Shards: 3, MostShards: 3}}
	for i := range endpoints {
		endpoints[i].Retry.Schedule = []registry.Duration{second, 2 * second, 30 * second}
		endpoints[i].Breaker = registry.Breaker{Failures: 1000, MinAttempts: 100_000}
		s.endpoint(endpoints[i])
	}
	share := s.draw(60)
	s.failing = func(id string, attempt int) bool {
		h := rand.New(rand.NewPCG(seed^uint64(schemas.ShardOf(id, 1<<30)), uint64(attempt)))
		return h.IntN(100) < share
	}
	pace := []int{60, 600}[s.draw(2)] // milliseconds
	const n = 150

	ctx, stop := context.WithCancel(t.Context())
	var world, sending sync.WaitGroup
	world.Go(func() { s.turnWheel(ctx) })
	asked := map[string]bool{} // by the right name
	ask := func(d *schemas.Delivery) {
		if name := endpoints[s.draw(len(endpoints))].ID; s.draw(2) == 0 && name != d.Endpoint {
			s.cancel(name, d.ID)
		}
		if s.draw(3) == 0 {
			s.cancel(d.Endpoint, d.ID)
			asked[d.ID] = true
		}
	}
	sent := map[string]int{}
	sending.Go(func() {
		for i := range n {
			d := firstAttempt(endpoints[s.draw(len(endpoints))].ID, strconv.Itoa(s.draw(3)), i)
			if d.Endpoint == "ep_shards" {
				d.Shard = schemas.ShardOf(d.EventID, 3)
			}
			before := s.draw(2) == 0
			if before {
				ask(d)
			}
			s.put(d)
			sent[d.ID] = i
			sleep(ctx, time.Duration(s.draw(pace))*time.Millisecond)
			if !before {
				ask(d)
			}
		}
	})
	sending.Go(func() {
		for range 20 {
			sleep(ctx, time.Duration(s.draw(8*pace))*time.Millisecond)
			e := endpoints[s.draw(len(endpoints))]
			e.State = []registry.State{registry.StatePaused, registry.StateEnabled}[s.draw(2)]
			s.change(e) //nolint:contextcheck // the worker has a life of its own
		}
		for _, e := range endpoints {
			s.change(e) //nolint:contextcheck // as above
		}
	})
	l := s.start("w0")
	l.follow()
	for i := range 1 + s.draw(6) {
		sleep(ctx, time.Duration(s.draw(50*pace))*time.Millisecond)
		l.die()
		l = s.start(fmt.Sprint("w", i+1))
		l.follow()
	}
	sending.Wait()
	for until := time.Now().Add(time.Hour); len(s.ended()) < n && time.Now().Before(until); {
		sleep(ctx, 10*time.Second)
	}
	sleep(ctx, 2*rewriteAfter)
	l.die()
	stop()
	world.Wait()
	ended, forked := s.ended(), s.forked()
	for id, number := range sent {
		if n := ended[id]; n != 1 && (n != 2 || !forked[id] || !asked[id]) {
			t.Errorf("seed %d: event %d ended %d times", seed, number, n)
		}
	}
	carried := 0
	for _, a := range s.attempts() {
		if a.Outcome == schemas.OutcomeCancelled {
			carried++
			if !asked[a.Delivery] {
				t.Errorf("seed %d: event %d of %s was cancelled though only another endpoint was named", seed, sent[a.Delivery], a.Endpoint)
			}
		}
	}
	if carried == 0 {
		t.Errorf("seed %d: nothing was cancelled", seed)
	}
	s.checkRepeats()
	s.checkParked()
}

// forked returns the deliveries of which a worker died between a retry and its
// outcome: if the attempt is not made again but cancelled, the retry goes on.
func (s *sim) forked() map[string]bool {
	told := map[string]bool{}
	for _, a := range s.attempts() {
		if a.Outcome == schemas.OutcomeRetry {
			told[fmt.Sprint(a.Delivery, a.Attempt+1)] = true
		}
	}
	out := map[string]bool{}
	for _, r := range s.logs[s.topics.Schedule] {
		d, err := schemas.DecodeDelivery(r.Key, r.Value, r.Headers)
		if err != nil {
			s.t.Fatal(err)
		}
		if !told[fmt.Sprint(d.ID, d.Attempt)] {
			out[d.ID] = true
		}
	}
	return out
}

// TestSimulationCancels is the model of cancels.
func TestSimulationCancels(t *testing.T) {
	for seed := uint64(*firstSeed); seed < uint64(*firstSeed+*simulations); seed++ {
		synctest.Test(t, func(t *testing.T) { simulateCancels(t, seed) })
		if t.Failed() {
			return
		}
	}
}
