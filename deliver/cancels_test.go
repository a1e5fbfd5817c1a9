package deliver

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"pgregory.net/rapid"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// A cancel ends a delivery of the endpoint that it names and of no other, wherever
// the delivery is when it comes, and also if a new owner has found it. What was
// carried out is settled under its own name alone.
func TestCancelNamesItsEndpoint(t *testing.T) {
	for _, test := range []struct {
		name    string
		paused  bool // the delivery is parked
		ordered bool // its first attempt fails, and it waits in its line
		before  bool // cancelled before it is there
		restart bool // a new owner loads the cancels
		shard   int
	}{
		{name: "not there yet", before: true},
		{name: "not there yet, loaded", before: true, restart: true},
		{name: "parked", paused: true},
		{name: "parked, loaded", paused: true, restart: true},
		{name: "in a shard", paused: true, shard: 2},
		{name: "in a shard, loaded", paused: true, restart: true, shard: 2},
		{name: "in its line", ordered: true},
		{name: "in its line, loaded", ordered: true, restart: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, 1)
				s.failing = func(_ string, attempt int) bool { return test.ordered && attempt == 1 }
				e := registry.Endpoint{ID: "ep_1", Ordered: test.ordered, Retry: minutes()}
				if test.shard > 0 {
					e.Shards, e.MostShards = 4, 4
				}
				enabled := e
				if test.paused {
					e.State = registry.StatePaused
				}
				s.endpoint(e)
				s.endpoint(registry.Endpoint{ID: "ep_2"})
				l := s.start("w0")
				l.follow()
				ended, stays := firstAttempt("ep_1", "k", 1), firstAttempt("ep_1", "other", 2)
				ended.Shard, stays.Shard = test.shard, test.shard
				cancel := func() {
					s.cancel("ep_2", stays.ID)
					s.cancel("ep_1", ended.ID)
					s.cancel("ep_2", ended.ID)
				}
				if test.before {
					cancel()
					sleep(t.Context(), time.Minute)
				}
				if test.before && test.restart {
					l.die()
					l = s.start("w1")
					l.follow()
				}
				s.put(ended)
				s.put(stays)
				sleep(t.Context(), time.Minute)
				if !test.before {
					cancel()
					sleep(t.Context(), time.Minute)
				}
				if !test.before && test.restart {
					l.die()
					l = s.start("w1")
					l.follow()
				}
				s.change(enabled)
				sleep(t.Context(), time.Hour)
				held := l.openCancels()
				l.die()
				got := map[string]schemas.Outcome{}
				for _, a := range s.attempts() {
					if a.Outcome.Final() {
						got[a.Delivery] = a.Outcome
					}
				}
				want := map[string]schemas.Outcome{ended.ID: schemas.OutcomeCancelled, stays.ID: schemas.OutcomeDelivered}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("outcomes (-want +got):\n%s", diff)
				}
				left := []string{string(schemas.CancelKey("ep_2", ended.ID)), string(schemas.CancelKey("ep_2", stays.ID))}
				slices.Sort(left)
				if diff := cmp.Diff(left, s.openInLog()); diff != "" {
					t.Errorf("cancels left in the log (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(left, held); diff != "" {
					t.Errorf("cancels left in memory (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// What is beyond the bounds is neither held nor left in the log, whether it was
// there before a take-over or came later, and is counted. Other endpoints' cancels
// are taken up all the while.
func TestCancelsBeyondTheBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const found = cancelSlack * maxCancelsEach
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return false }
		for n := range found + 1500 {
			s.cancel("ep_many", fmt.Sprint("dlv_", n))
		}
		for n := range maxCancelsEach {
			s.cancel("ep_full", fmt.Sprint("dlv_", n))
		}
		s.cancel("ep_few", "dlv_1")
		l := s.start("w0")
		reader := sdkmetric.NewManualReader()
		m, err := newMeters(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter(""), false)
		if err != nil {
			t.Fatal(err)
		}
		l.w.mu.Lock()
		l.w.meters = m
		l.w.mu.Unlock()
		l.follow()
		check := func(when string, want int) {
			t.Helper()
			held := l.openCancels()
			if diff := cmp.Diff(held, s.openInLog()); diff != "" || len(held) != want {
				t.Errorf("%s: %d held, want %d, and not the same in the log (-held +log):\n%.1000s", when, len(held), want, diff)
			}
		}
		sleep(t.Context(), 10*time.Minute)
		check("taken over", found+maxCancelsEach+1)
		for n := range 20 {
			s.cancel("ep_many", fmt.Sprint("dlv_later_", n))
			s.cancel("ep_full", fmt.Sprint("dlv_later_", n))
			s.cancel("ep_few", fmt.Sprint("dlv_later_", n))
		}
		sleep(t.Context(), 10*time.Minute)
		check("followed", found+maxCancelsEach+21)
		var all metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &all); err != nil {
			t.Fatal(err)
		}
		dropped := all.ScopeMetrics[0].Metrics[0]
		if sum, ok := dropped.Data.(metricdata.Sum[int64]); !ok || dropped.Name != "postrider.deliver.cancels.dropped" || sum.DataPoints[0].Value != 1540 {
			t.Errorf("metric %+v, want 1540 cancels dropped", dropped)
		}
		l.die()
	})
}

// Cancels that were asked for longer ago than a delivery lives are forgotten, and
// make room.
func TestOldCancelsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return false }
		s.cancel("ep_1", "dlv_1")
		l := s.start("w0")
		l.w.mu.Lock()
		l.w.cfg.MaxAge = 2 * time.Hour
		l.w.mu.Unlock()
		l.follow()
		sleep(t.Context(), time.Hour)
		s.cancel("ep_1", "dlv_2")
		sleep(t.Context(), 90*time.Minute)
		if diff := cmp.Diff([]string{"ep_1/cancel/dlv_2"}, l.openCancels()); diff != "" {
			t.Errorf("held (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"ep_1/cancel/dlv_2"}, s.openInLog()); diff != "" {
			t.Errorf("in the log (-want +got):\n%s", diff)
		}
		l.die()
	})
}

// However many endpoints take their part, there is room for the cancels of a
// further one, until there are about as many endpoints as places.
func TestCancelsAreShared(t *testing.T) {
	for _, test := range []struct{ endpoints, most, least int }{
		{1, maxCancelsEach, maxCancelsEach - 1},
		{100, 95_000, 800},
		{10_000, 99_999, 8},
	} {
		c := newCancels(1)
		take := func(endpoint string, n int) bool { return c.add(endpoint, strconv.Itoa(n), time.Time{}) }
		for n, taken := 0, true; taken && c.open <= maxCancels; n++ {
			taken = false
			for e := range test.endpoints {
				taken = take(fmt.Sprint("ep_", e), n) || taken
			}
		}
		held, more := c.open, 0
		for take("ep_last", more) {
			more++
		}
		if held > test.most || more < test.least {
			t.Errorf("%d endpoints hold %d cancels, want %d at most; then there is room for %d of another one, want %d", test.endpoints, held, test.most, more, test.least)
		}
	}
}

// Cancels are those of a plain map of pairs, counted right, and within the bounds.
func TestCancelsAreCounted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type pair struct{ endpoint, delivery string }
		c, want := newCancels(1), map[pair]bool{}
		names := rapid.StringMatching("[a-d]")
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			p := pair{names.Draw(t, "endpoint"), names.Draw(t, "delivery")}
			if rapid.Bool().Draw(t, "add") {
				want[p] = c.add(p.endpoint, p.delivery, time.Time{})
			} else if had := c.remove(p.endpoint, p.delivery); had != want[p] {
				t.Fatalf("remove %v: %t", p, had)
			} else {
				delete(want, p)
			}
			n := 0
			for _, one := range c.of {
				n += len(one)
			}
			if n != len(want) || n != c.open {
				t.Fatalf("%d open, counted %d, want %d", n, c.open, len(want))
			}
			for p := range want {
				if !c.has(p.endpoint, p.delivery) {
					t.Fatalf("%v is gone", p)
				}
			}
		}
	})
}
