package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// frozen is how long a process is stopped: longer than sessions, transactions,
// locks and the view's lease last.
const frozen = 30 * time.Second

// (9) SIGSTOP for 30 s, then SIGCONT, of each role under load and control
// writes, with a second instance that goes on meanwhile: nothing accepted is
// missing, no delivery record is made twice, and the view is what a new
// building of it from the log gives.
func TestFreezeEachRole(t *testing.T) {
	for _, role := range roles() {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			freeze(t, role)
		})
	}
}

func freeze(t *testing.T, role string) {
	t.Helper()
	g := newGateway(t).startAll()
	second := []string{"deliver", "fanout", "control"}
	for _, r := range second {
		g.start(r, r+"-2")
	}
	for _, r := range second {
		g.ready(r + "-2")
	}
	g.tenant()
	a, b, fresh := newSink(t, oneInFive()), newSink(t, nil), newSink(t, nil)
	s := settings{
		"retry":         map[string]any{"schedule": []string{"1s", "1s", "2s", "2s", "2s", "4s", "4s", "4s"}},
		"subscriptions": []any{map[string]any{"types": []string{"order.*"}}},
	}
	endpoints := []string{g.endpoint(a.URL, s), g.endpoint(b.URL, s)}
	l := g.sendLoad("order.paid", 60)
	first, other := g.writeControl("control-1", fresh.URL), g.writeControl("control-2", fresh.URL)
	wait(t.Context(), 2*time.Second)

	g.signal(role+"-1", syscall.SIGSTOP)
	wait(t.Context(), frozen)
	g.signal(role+"-1", syscall.SIGCONT)
	g.ready(role + "-1")
	wait(t.Context(), 3*time.Second)

	pairs := append(first.end(), other.end()...)
	events := l.end()
	for i, s := range []*sink{a, b} {
		eventually(t, 2*time.Minute, "everything arrived", func() bool { return len(s.missing(events)) == 0 })
		t.Logf("sink %d: %d requests, %d repeated", i, len(s.arrivals()), s.repeats())
	}
	fresh.arrived(t, pairs)
	tr := g.settledTruth(len(events)*len(endpoints) + len(pairs))
	// What a stopped deliver has in flight its successor does again, and the
	// stopped one writes its outcome when it goes on.
	twice := 0
	if role == "deliver" {
		twice = len(endpoints)*32 + 16 // an endpoint's window, and some new ones'
	}
	tr.check(g, events, endpoints, twice)
	tr.reached(g, pairs)
	all := append(eventsOf(pairs), events...)
	decided := g.decisions()
	decided.matched(g, all)
	tr.accounted(g, decided, all)
	g.rebuilt()
}

// rebuilt holds that the view is what a new building of it gives.
func (g *gateway) rebuilt() {
	g.t.Helper()
	rdb := g.rdb()
	g.whole(rdb)
	before := g.contents(rdb)
	g.flushall(rdb)
	g.whole(rdb)
	if diff := cmp.Diff(g.contents(rdb), before); diff != "" {
		g.t.Errorf("the view is not what the log says (-rebuilt +was):\n%s", diff)
	}
	if len(before) == 0 {
		g.t.Error("the view was empty")
	}
}
