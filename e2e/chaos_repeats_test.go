package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/postrider/postrider/schemas"
)

// clockSlack is what the clocks of a receiver and a broker on one machine, and
// a busy scheduler, may be apart.
const clockSlack = 3 * time.Second

// repeats is what receivers saw more than once.
type repeats struct {
	unacknowledged int // the outcome was not in Kafka when the next owner took over
	byProducer     int // of events that were sent twice while Redis lost its claims
	wrong          []string
}

// repeated judges every request that came again as the same attempt. By P3 there
// must be a hand-over between the two, and the outcome of the first must not have
// been in Kafka by then.
func (c *chaos) repeated(posts []post, sentOften map[string]bool) repeats {
	var out repeats
	groups := map[string][]post{}
	for _, p := range posts {
		key := c.id(p.name) + " " + p.event + " " + p.attempt
		groups[key] = append(groups[key], p)
	}
	for _, group := range groups {
		slices.SortFunc(group, func(a, b post) int { return a.at.Compare(b.at) })
		for i := range group[1:] {
			c.judgeRepeat(&out, group[i], group[i+1], sentOften)
		}
	}
	return out
}

func (c *chaos) judgeRepeat(out *repeats, first, second post, sentOften map[string]bool) {
	if sentOften[first.event] && c.claimsLost {
		out.byProducer++
		return
	}
	endpoint := c.id(first.name)
	attempt, _ := strconv.Atoi(first.attempt)
	delivery := schemas.DeliveryID(first.event, endpoint, "")
	taken, owner := c.takenOver(c.log.homes[delivery], first.at, second.at)
	known := c.outcomeAt(delivery, attempt)
	what := fmt.Sprintf("%s: event %s attempt %d at %s and %s", first.name, first.event, attempt, c.since(first.at), c.since(second.at))
	switch {
	case taken.IsZero() && c.thawed(second.at):
		out.unacknowledged++
	case taken.IsZero():
		out.wrong = append(out.wrong, what+": the partition had the same owner all the time")
	case !known.IsZero() && known.Before(taken):
		out.wrong = append(out.wrong, fmt.Sprintf("%s: its outcome was in Kafka at %s, before %s took over at %s", what, c.since(known), owner, c.since(taken)))
	default:
		out.unacknowledged++
	}
}

// takenOver returns when a partition was first taken over after a
// request and not after its repeat, and by whom. (An outcome that the old owner
// got through to Kafka still later is no news to anybody: the next owners may or
// may not find it.)
func (c *chaos) takenOver(partition int32, first, second time.Time) (at time.Time, by string) {
	for _, o := range c.log.owners[partition] {
		switch {
		case o.at.After(second):
		case o.at.After(first):
			return o.at, o.instance
		case o.at.After(first.Add(-clockSlack)):
			at, by = o.at, o.instance // the request was on its way for long
		}
	}
	return at, by
}

// thawed reports whether a worker went on just before a time after it had been
// frozen: a request that it was about to send goes out then.
func (c *chaos) thawed(at time.Time) bool {
	for _, f := range c.faults {
		if f.name == "freeze" && at.After(f.ended.Add(-clockSlack)) && at.Before(f.ended.Add(5*time.Second)) {
			return true
		}
	}
	return false
}

// outcomeAt returns when the first outcome of an attempt came to Kafka, zero if
// none did.
func (c *chaos) outcomeAt(delivery string, attempt int) (first time.Time) {
	for _, a := range c.log.attempts[delivery] {
		if a.Attempt.Attempt == attempt && a.Outcome != schemas.OutcomeRepeat && (first.IsZero() || a.at.Before(first)) {
			first = a.at
		}
	}
	return first
}

// overdue finds requests that a worker sent although it had been cut off from
// Kafka for longer than its lease: it owned the partition by the log, and nobody
// had taken over yet.
func (c *chaos) overdue(posts []post) (out []string) {
	for _, p := range posts {
		var owner owning
		for _, o := range c.log.owners[c.log.homes[schemas.DeliveryID(p.event, c.id(p.name), "")]] {
			if !o.at.After(p.at) {
				owner = o
			}
		}
		for _, f := range c.faults {
			if f.name != "cut from kafka" || !f.hit(owner.instance, p.at) || owner.at.After(f.began) {
				continue
			}
			if after := p.at.Sub(f.began); after > lease+clockSlack {
				out = append(out, fmt.Sprintf("%s: event %s attempt %s at %s, %s after %s was cut off", p.name, p.event, p.attempt, c.since(p.at), after, owner.instance))
			}
		}
	}
	return out
}

// since shows a time as seconds since the load began.
func (c *chaos) since(t time.Time) string { return fmt.Sprintf("%.2f s", t.Sub(c.began).Seconds()) }

// disorder finds first successes that came before an earlier record's, for
// endpoints that are ordered.
func (c *chaos) disorder(posts []post) (out []string) {
	for _, t := range c.targets {
		if !t.ordered {
			continue
		}
		offsets := map[string]int64{}
		for at, d := range c.log.deliveries {
			if old, ok := offsets[d.event]; d.endpoint == t.id && (!ok || at.offset < old) {
				offsets[d.event] = at.offset
			}
		}
		seen, last := map[string]bool{}, map[string]post{}
		for _, p := range posts {
			if p.name != t.name || p.status >= 300 || seen[p.event] {
				continue
			}
			seen[p.event] = true
			if before, ok := last[p.key]; ok && offsets[before.event] > offsets[p.event] {
				out = append(out, fmt.Sprintf("%s: key %s: event %s (offset %d) succeeded at %s after %s (offset %d) at %s", t.name, p.key,
					p.event, offsets[p.event], c.since(p.at), before.event, offsets[before.event], c.since(before.at)))
				continue
			}
			last[p.key] = p
		}
	}
	return out
}
