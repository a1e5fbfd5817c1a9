package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/postrider/postrider/schemas"
)

// (6) What was subscribed before an event was sent always gets it: 200 rounds of
// a new endpoint, or a new subscription, and an event at once, with two fan-outs
// that are busy with other events of the tenant.
func TestEndpointRightBeforeEvent(t *testing.T) {
	g := newGateway(t)
	g.start("fanout", "fanout-2")
	g.startAll()
	g.ready("fanout-2")
	g.tenant()
	s := newSink(t, nil)
	shared := g.endpoint(s.URL+"/shared", settings{"subscriptions": []any{}})
	noise := g.sendLoad("noise", 50) // nobody's
	want := map[string]string{}      // event → endpoint
	var events []string
	for round := range 200 {
		typ := fmt.Sprintf("round.%d", round)
		subscription := map[string]any{"types": []string{typ}}
		endpoint := shared
		if round%2 == 0 {
			endpoint = g.endpoint(s.URL, settings{"subscriptions": []any{subscription}})
		} else {
			subscription["endpoint_id"] = shared
			g.insist("POST", "/v1/tenants/acme/subscriptions", subscription, nil)
		}
		id := g.event(typ, round)
		want[id] = endpoint
		events = append(events, id)
	}
	others := noise.end()
	eventually(t, time.Minute, "everything arrived", func() bool { return len(s.missing(events)) == 0 })
	tr := g.settledTruth(len(events))
	if len(tr.pairs) != len(want) {
		t.Errorf("%d deliveries for %d events", len(tr.pairs), len(want))
	}
	for id, endpoint := range want {
		if n := tr.pairs[id+"/"+endpoint]; n != 1 {
			t.Errorf("event %s became %d deliveries for %s", id, n, endpoint)
		}
	}
	tr.check(g, nil, nil, 0)
	var decided decisions
	eventually(t, time.Minute, "every event that nobody wants has a decision", func() bool {
		decided = g.decisions()
		for _, id := range others {
			if decided[id][schemas.ReasonUnmatched] == 0 {
				return false
			}
		}
		return true
	})
	for id := range want {
		if len(decided[id]) > 0 {
			t.Errorf("event %s was decided: %+v", id, decided[id])
		}
	}
}
