package e2e

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/postrider/postrider/schemas"
)

// judge counts, prints the report and fails the test where a promise is broken.
func (c *chaos) judge() {
	a := c.settle()
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	posts := c.receivers.all()
	often := map[string]bool{}
	for _, e := range c.load.sent {
		if e.tries > 1 {
			often[e.id] = true
		}
	}
	reps := c.repeated(posts, often)
	overdue := c.overdue(posts)
	var out strings.Builder
	c.writeFaults(&out)
	c.writeSums(&out, a, posts, &reps)
	c.t.Log("\n" + out.String())

	c.complain("events that were accepted and are not in the log", c.missing(a))
	c.complain("pairs that should have been made and were not, or the other way round", c.mismatched(a))
	c.complain("pairs that are nowhere", c.nowhere(a))
	c.complain("events without a pair and a reason", c.unexplained(a))
	c.complain("made, decided or ended twice", c.excess(a, often))
	c.complain("repeats beyond P3", reps.wrong)
	c.complain("requests of a worker beyond its lease", overdue)
	c.complain("out of order", c.disorder(posts))
	c.complain("unreadable records", c.log.faults)
	c.complain("processes that panicked", c.panics())
	verdict := "PASS"
	if c.t.Failed() {
		verdict = "FAIL"
	}
	c.t.Logf("%s: CHAOS_SEED=%d CHAOS_DURATION=%s CHAOS_RATE=%d", verdict, c.run.seed, c.run.duration, c.run.rate)
}

// panics finds processes whose log says that they panicked.
func (c *chaos) panics() (out []string) {
	for _, instance := range instances() {
		log, err := os.ReadFile(c.g.proc(instance).log.Name())
		if err != nil {
			out = append(out, err.Error())
		}
		for line := range strings.Lines(string(log)) {
			if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
				out = append(out, instance+": "+strings.TrimSpace(line))
			}
		}
	}
	return out
}

// complain fails the test with the first of what was found.
func (c *chaos) complain(what string, found []string) {
	if len(found) == 0 {
		return
	}
	slices.Sort(found)
	c.t.Errorf("%s: %d\n  %s", what, len(found), strings.Join(found[:min(len(found), 8)], "\n  "))
}

// missing are accepted events that the topic events does not have.
func (c *chaos) missing(a *account) (out []string) {
	for _, e := range c.load.sent {
		if !a.known[e.id] {
			out = append(out, e.id)
		}
	}
	return out
}

// expected are the pairs that the load knows of: true must be, false may be.
func (c *chaos) expected() map[pairKey]bool {
	out := map[pairKey]bool{}
	for _, e := range c.load.sent {
		for _, t := range c.targets {
			if e.tenant != "acme" || !slices.Contains(t.types, e.typ) {
				continue
			}
			if e.typ == typeFiltered && !e.passes {
				continue
			}
			out[pairKey{e.id, t.id}] = !t.optional
		}
		for _, id := range c.operator.churn {
			out[pairKey{e.id, id}] = false
		}
		if e.tenant == "doomed" {
			out[pairKey{e.id, c.id("doomed")}] = false
		}
	}
	return out
}

func (c *chaos) mismatched(a *account) (out []string) {
	expected := c.expected()
	for key, must := range expected {
		_, made := a.state[key]
		t, known := c.target(key.endpoint)
		if !made && known && (must || !a.disabled(key.event, key.endpoint)) {
			out = append(out, fmt.Sprintf("%s: event %s became no delivery", t.name, key.event))
		}
	}
	accepted := map[string]bool{}
	for _, e := range c.load.sent {
		accepted[e.id] = true
	}
	for key := range a.state {
		if _, ok := expected[key]; !ok && accepted[key.event] {
			t, _ := c.target(key.endpoint)
			out = append(out, fmt.Sprintf("%s (%s): event %s should not have become a delivery", t.name, key.endpoint, key.event))
		}
	}
	return out
}

func (c *chaos) nowhere(a *account) (out []string) {
	for key, state := range a.state {
		if state == inNothing {
			t, _ := c.target(key.endpoint)
			at := a.records[key]
			delivery := c.log.deliveries[at[0]].delivery
			hops := []string{}
			for place, m := range c.log.scheduled {
				if m.delivery == delivery {
					hops = append(hops, fmt.Sprintf("%v: %+v", place, m))
				}
			}
			out = append(out, fmt.Sprintf("%s (%s): event %s, records %v, outcomes %+v, hops in schedule %v",
				t.name, key.endpoint, key.event, at, c.log.attempts[delivery], hops))
		}
	}
	return out
}

func (c *chaos) unexplained(a *account) (out []string) {
	for position, why := range a.unmade {
		if why == inNothing {
			out = append(out, c.log.events[position]+" at "+position)
		}
	}
	return out
}

// excess is what happened twice, except the ends of deliveries that were made
// twice because their event was sent twice and Redis had lost its claims.
func (c *chaos) excess(a *account, often map[string]bool) (out []string) {
	return slices.DeleteFunc(slices.Clone(a.doubles), func(s string) bool {
		fields := strings.Fields(s)
		if fields[0] != "delivery" {
			return false
		}
		return c.claimsLost && often[a.byDlv[fields[1]].event]
	})
}

func (c *chaos) writeFaults(out *strings.Builder) {
	fmt.Fprintf(out, "faults\n%8s  %8s  %-24s %-12s\n", "from", "to", "what", "on")
	for _, f := range c.faults {
		fmt.Fprintf(out, "%8s  %8s  %-24s %-12s %s\n", c.since(f.began), c.since(f.ended), f.name, f.on, f.note)
	}
	if len(c.left) > 0 {
		fmt.Fprintf(out, "not in this build, so left out: endpoints that are %s\n", strings.Join(c.left, ", "))
	}
}

func (c *chaos) writeSums(out *strings.Builder, a *account, posts []post, reps *repeats) {
	tries := 0
	for _, e := range c.load.sent {
		tries += e.tries
	}
	fmt.Fprintf(out, "\nload: %d events accepted, sent %d times (answers %v); operator: %v\n", len(c.load.sent), tries, c.load.answers, c.operator.acts)

	columns := []string{"delivered", "exhausted", "expired", "cancelled", "rejected", "lost_by_retention", inParked, inScheduled, inLog, inNothing}
	rows := map[string]map[string]int{}
	for key, state := range a.state {
		name := "made and deleted"
		if t, ok := c.target(key.endpoint); ok {
			name = t.name
		}
		if rows[name] == nil {
			rows[name] = map[string]int{}
		}
		rows[name][state]++
		rows[name]["pairs"]++
	}
	fmt.Fprintf(out, "\npairs (event, endpoint)\n%-18s %7s", "", "pairs")
	for _, column := range columns {
		fmt.Fprintf(out, " %*s", max(9, len(column)), column)
	}
	total := map[string]int{}
	for _, name := range append(slices.Sorted(maps.Keys(rows)), "= sum") {
		row := rows[name]
		if name == "= sum" {
			row = total
		}
		fmt.Fprintf(out, "\n%-18s %7d", name, row["pairs"])
		sum := 0
		for _, column := range columns {
			fmt.Fprintf(out, " %*d", max(9, len(column)), row[column])
			sum += row[column]
		}
		if sum != row["pairs"] {
			c.t.Errorf("%s: the sum of the states is %d, there are %d pairs", name, sum, row["pairs"])
		}
		if name != "= sum" {
			for k, n := range row {
				total[k] += n
			}
		}
	}

	must, made, others := 0, 0, 0
	for key, needed := range c.expected() {
		_, ok := a.state[key]
		switch {
		case needed && ok:
			made++
			must++
		case needed:
			must++
		case ok:
			others++
		}
	}
	fmt.Fprintf(out, "\nexpected by the load: %d pairs must be made, %d of them are; %d more of endpoints that come, go or are disabled\n", must, made, others)

	why := map[string]int{}
	for _, reason := range a.unmade {
		why[reason]++
	}
	fmt.Fprintf(out, "\nrecords of events: %d, with pairs %d, without %d:", len(c.log.events), len(c.log.events)-len(a.unmade), len(a.unmade))
	for _, reason := range slices.Sorted(maps.Keys(why)) {
		fmt.Fprintf(out, " %s %d", reason, why[reason])
	}
	outcomes := map[schemas.Outcome]int{}
	for _, all := range c.log.attempts {
		for _, one := range all {
			outcomes[one.Outcome]++
		}
	}
	fmt.Fprintf(out, "\n\nrequests at the receivers: %d; the same attempt again: %d (outcome not acknowledged %d, sent twice by the producer after Redis lost its claims %d, beyond P3 %d)\n",
		len(posts), reps.unacknowledged+reps.byProducer+len(reps.wrong), reps.unacknowledged, reps.byProducer, len(reps.wrong))
	fmt.Fprintf(out, "processes that ended by themselves and were started again: %d\n", len(c.crashes))
	for _, one := range c.crashes {
		fmt.Fprintf(out, "  %s\n", one)
	}
	fmt.Fprintf(out, "outcomes in attempts: %v; processes killed because they did not end within the drain time: %d\n", outcomes, c.slowEnds)
}
