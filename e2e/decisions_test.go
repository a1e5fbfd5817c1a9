package e2e

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

// decisions is what fan-out says about events: event → reason → count.
type decisions map[string]map[schemas.Reason]int

// decisions reads the topic decisions.
func (g *gateway) decisions() decisions {
	g.t.Helper()
	out := decisions{}
	g.scan(g.broker().Topics().Decisions, func(r *kgo.Record) {
		d, err := schemas.DecodeDecision(r.Value)
		if err != nil {
			g.t.Errorf("decision record: %v", err)
			return
		}
		if out[d.Event] == nil {
			out[d.Event] = map[schemas.Reason]int{}
		}
		for reason, n := range d.Reasons {
			out[d.Event][reason] += n.Count
		}
	})
	return out
}

// matched holds that no event which had to match was decided otherwise. A
// duplicate is a repeat by its producer and says nothing.
func (d decisions) matched(g *gateway, events []string) {
	g.t.Helper()
	bad, duplicates := 0, 0
	for _, e := range events {
		for reason, n := range d[e] {
			switch reason {
			case schemas.ReasonMatched:
			case schemas.ReasonFiltered, schemas.ReasonUnmatched, schemas.ReasonFilterError, schemas.ReasonDisabled,
				schemas.ReasonConflict, schemas.ReasonTenantDeleted:
				if bad++; bad <= 10 {
					g.t.Errorf("event %s was decided %s (%d times)", e, reason, n)
				}
			case schemas.ReasonDuplicate:
				duplicates += n
			}
		}
	}
	g.t.Logf("%d events have decisions, %d repeats by producers", len(d), duplicates)
}

// accounted holds that every event became a delivery or has a decision.
func (tr *truth) accounted(g *gateway, d decisions, events []string) {
	g.t.Helper()
	delivered := map[string]bool{}
	for id := range tr.pairs {
		event, _, _ := strings.Cut(id, "/")
		delivered[event] = true
	}
	bad := 0
	for _, e := range events {
		if !delivered[e] && len(d[e]) == 0 {
			if bad++; bad <= 10 {
				g.t.Errorf("event %s became nothing and has no decision", e)
			}
		}
	}
}

// reached holds that each pair became exactly one delivery.
func (tr *truth) reached(g *gateway, pairs []pair) {
	g.t.Helper()
	bad := 0
	for _, p := range pairs {
		if n := tr.pairs[p.event+"/"+p.endpoint]; n != 1 {
			if bad++; bad <= 10 {
				g.t.Errorf("event %s, sent after endpoint %s was acknowledged, became %d deliveries for it", p.event, p.endpoint, n)
			}
		}
	}
}

// eventsOf returns the events of pairs.
func eventsOf(pairs []pair) []string {
	out := make([]string, len(pairs))
	for i, p := range pairs {
		out[i] = p.event
	}
	return out
}
