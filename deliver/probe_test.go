package deliver

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// eventOf returns the id of the nth event of a simulation.
func eventOf(n int) string {
	e := schemas.Event{ID: strconv.Itoa(n), Source: "/sim", Tenant: "acme"}
	return e.EventID()
}

// every is a retry schedule of equal steps.
func every(step time.Duration, steps int) registry.Retry {
	return registry.Retry{Schedule: slices.Repeat([]registry.Duration{registry.Duration(step)}, steps)}
}

// poison has the receiver refuse the events below n for ever, and take all others.
func (s *sim) poison(n int) {
	bad := map[string]bool{}
	for i := range n {
		bad[eventOf(i)] = true
	}
	s.failing = func(id string, _ int) bool { return bad[id] }
}

// postsOf returns what came for an event.
func (s *sim) postsOf(n int) (out []post) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.posts {
		if p.offset == n {
			out = append(out, p)
		}
	}
	return out
}

// run has the worker of a simulation, and its wheel, live while fn runs.
func (s *sim) run(fn func(l *life)) {
	ctx, stop := context.WithCancel(s.t.Context())
	var turning sync.WaitGroup
	turning.Go(func() { s.turnWheel(ctx) })
	fn(s.start("w0"))
	s.mu.Lock()
	last := s.life
	s.mu.Unlock()
	last.die()
	stop()
	turning.Wait()
}

// opened reports whether the breaker of ep_1 is open.
func (l *life) opened() bool {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	one := l.w.homes[0].lanes["ep_1"]
	return one != nil && one.breaker.isOpen()
}

// A few deliveries that fail whatever the endpoint's health hold up nobody else, be
// the endpoint ordered or not, and however often they are tried again.
func TestPoisonHoldsUpNobodyElse(t *testing.T) {
	for _, test := range []struct {
		name     string
		poison   int
		endpoint registry.Endpoint
	}{
		{"one key, for the share", 1, registry.Endpoint{Ordered: true, OnExhausted: registry.BlockExhausted, Retry: every(time.Second, 1)}},
		{"two keys that alternate", 2, registry.Endpoint{Ordered: true, OnExhausted: registry.BlockExhausted, Retry: every(time.Second, 1)}},
		{"nine keys", 9, registry.Endpoint{Ordered: true, OnExhausted: registry.BlockExhausted, Retry: every(time.Second, 1)}},
		{"two without order", 2, registry.Endpoint{Retry: every(time.Second, 20)}},
		{"nine without order", 9, registry.Endpoint{Retry: every(time.Second, 20)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, 1)
				s.poison(test.poison)
				test.endpoint.ID = "ep_1"
				s.endpoint(test.endpoint)
				s.run(func(l *life) {
					for n := range test.poison {
						s.send("ep_1", fmt.Sprint("bad", n), n)
					}
					sleep(t.Context(), 2*time.Minute)
					if l.opened() {
						t.Errorf("%d deliveries opened the breaker", test.poison)
					}
					sent := time.Now()
					for n := range 3 {
						s.send("ep_1", fmt.Sprint("good", n), 100+n)
					}
					sleep(t.Context(), 30*time.Second) // Kafka is slow now and then
					for n := range 3 {
						if len(s.postsOf(100+n)) != 1 {
							t.Errorf("event %d came %d times in %s", 100+n, len(s.postsOf(100+n)), time.Since(sent))
						}
					}
				})
			})
		})
	}
}

// Where so many deliveries fail that the breaker opens, the first probe is one that
// never failed: where the endpoint is well, it closes at once.
func TestFirstProbeIsFresh(t *testing.T) {
	for _, ordered := range []bool{true, false} {
		t.Run(fmt.Sprintf("ordered %t", ordered), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, 2)
				s.poison(DefaultBreakerFailures)
				s.endpoint(registry.Endpoint{
					ID: "ep_1", Ordered: ordered, Retry: every(time.Second, 20),
					Breaker: registry.Breaker{ProbeAfter: registry.Duration(time.Minute), MaxProbeAfter: registry.Duration(time.Hour)},
				})
				s.run(func(l *life) {
					for n := range DefaultBreakerFailures {
						s.send("ep_1", fmt.Sprint("bad", n), n)
					}
					for !l.opened() {
						sleep(t.Context(), 100*time.Millisecond)
					}
					began := time.Now()
					sleep(t.Context(), 30*time.Second) // all retries are back
					s.send("ep_1", "good", 100)
					sleep(t.Context(), time.Minute)
					if got := s.postsOf(100); len(got) != 1 {
						t.Errorf("came %d times in %s: the first probe was another", len(got), time.Since(began))
					}
				})
			})
		})
	}
}

// While an endpoint fails, probes take turns: none is tried again before all others
// were. A new owner goes on with that.
func TestProbesTakeTurns(t *testing.T) {
	for _, ordered := range []bool{true, false} {
		t.Run(fmt.Sprintf("ordered %t", ordered), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 5
				s := newSim(t, 3)
				s.failing = func(string, int) bool { return true }
				ten := registry.Duration(10 * time.Second)
				s.endpoint(registry.Endpoint{
					ID: "ep_1", Ordered: ordered, Retry: every(time.Second, 20),
					Breaker: registry.Breaker{Failures: n, ProbeAfter: ten, MaxProbeAfter: ten},
				})
				s.run(func(l *life) {
					for i := range n {
						s.send("ep_1", fmt.Sprint("k", i), i)
					}
					for !l.opened() {
						sleep(t.Context(), 100*time.Millisecond)
					}
					sleep(t.Context(), time.Second)
					s.mu.Lock()
					before := len(s.posts)
					s.mu.Unlock()
					probes := func() []post {
						s.mu.Lock()
						defer s.mu.Unlock()
						return slices.Clone(s.posts[before:])
					}
					for len(probes()) < n+2 {
						sleep(t.Context(), time.Second)
					}
					sleep(t.Context(), 5*time.Second)
					l.die()
					s.start("w1")
					for len(probes()) < 3*n {
						sleep(t.Context(), time.Second)
					}
					count := map[int]int{}
					for _, p := range probes() {
						count[p.offset]++
						least, most := 3*n, 0
						for i := range n {
							least, most = min(least, count[i]), max(most, count[i])
						}
						if most-least > 1 {
							t.Errorf("probes %v", probes())
							return
						}
					}
				})
			})
		})
	}
}

// Where everything fails the breaker opens, also when nothing is left but retries.
func TestRetriesOpenTheBreaker(t *testing.T) {
	for _, ordered := range []bool{true, false} {
		t.Run(fmt.Sprintf("ordered %t", ordered), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = DefaultBreakerFailures
				s := newSim(t, 4)
				s.failing = func(_ string, attempt int) bool { return attempt > 0 }
				s.endpoint(registry.Endpoint{ID: "ep_1", Ordered: ordered, Retry: every(10*time.Second, 20)})
				s.run(func(l *life) {
					for i := range n - 1 {
						s.send("ep_1", fmt.Sprint("k", i), i)
					}
					sleep(t.Context(), 5*time.Second)
					// One success between, then retries alone, and of them one more.
					s.poison(n)
					s.send("ep_1", "good", 100)
					s.send("ep_1", "bad", n-1)
					for until := time.Now().Add(time.Minute); !l.opened() && time.Now().Before(until); {
						sleep(t.Context(), 100*time.Millisecond)
					}
					if !l.opened() {
						t.Error("still closed")
					}
					if got := len(s.posts); got > 3*n {
						t.Errorf("%d requests", got)
					}
				})
			})
		})
	}
}
