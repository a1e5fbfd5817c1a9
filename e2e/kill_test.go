package e2e

import (
	"testing"
	"time"
)

// (2) kill -9 of each role in turn under load, with one attempt in five
// failing: nothing accepted is missing, no delivery record is made twice, each
// attempt has one recorded outcome.
func TestKillEachRole(t *testing.T) {
	g := newGateway(t).startAll()
	g.tenant()
	a, b := newSink(t, oneInFive()), newSink(t, nil)
	retry := settings{"retry": map[string]any{"schedule": []string{"1s", "1s", "2s", "2s", "2s", "4s", "4s", "4s"}}}
	endpoints := []string{g.endpoint(a.URL, retry), g.endpoint(b.URL, retry)}
	l := g.sendLoad("order.paid", 200)
	wait(t.Context(), 2*time.Second)
	for _, role := range []string{"deliver", "fanout", "ingest", "control", "deliver", "fanout"} {
		g.kill(role + "-1")
		g.start(role, role+"-1")
		g.ready(role + "-1")
		wait(t.Context(), 2*time.Second)
	}
	events := l.end()
	for i, s := range []*sink{a, b} {
		eventually(t, 2*time.Minute, "everything arrived", func() bool { return len(s.missing(events)) == 0 })
		t.Logf("sink %d: %d requests, %d repeated", i, len(s.arrivals()), s.repeats())
	}
	// Two kills of deliver: what was in Kafka's hands at that moment.
	tr := g.settledTruth(len(events) * len(endpoints))
	tr.check(g, events, endpoints, 20)
}

// settledTruth reads the topics once so many deliveries, and all others that were
// made, have ended.
func (g *gateway) settledTruth(deliveries int) truth {
	g.t.Helper()
	var tr truth
	defer func() {
		if len(tr.final) < max(deliveries, len(tr.pairs)) {
			g.t.Logf("%d deliveries made, %d ended, want %d; outcomes %v", len(tr.pairs), len(tr.final), deliveries, tr.ends)
		}
	}()
	eventually(g.t, 3*time.Minute, "every delivery has its final outcome", func() bool {
		tr = g.truth()
		return len(tr.final) >= max(deliveries, len(tr.pairs))
	})
	// Read once more: deliveries was read before attempts, and may have been
	// short of records whose outcomes were then found.
	return g.truth()
}
