package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/schemas"
)

// Ends of a pair and of an event without one that aren't outcomes or reasons.
const (
	inParked    = "parked"
	inScheduled = "scheduled"
	inLog       = "still in the log"
	inNothing   = "LOST"
	byRejection = "rejected"
)

// pairKey is one event for one endpoint.
type pairKey struct{ event, endpoint string }

// account is where everything is, counted from the topics.
type account struct {
	l        *topicLog
	delivers map[int32]int64 // commits of the workers
	wheel    map[int32]int64 // commits of the wheel
	fanout   map[int32]int64
	parked   map[place]bool

	records map[pairKey][]place        // of deliveries
	waiting map[pairKey][]place        // of schedule, not yet read by the wheel
	state   map[pairKey]string         // where each pair is
	unmade  map[string]string          // position of an event without a pair → why
	known   map[string]bool            // event ids in events
	doubles []string                   // made, decided or ended twice
	byDlv   map[string]pairKey         // delivery id → pair
	origins map[pairKey]map[string]int // pair → positions → records of attempt 1
}

// count reads the commits first and the topics after them, so that what moves
// meanwhile is found late rather than missed.
func (l *topicLog) count(ctx context.Context) (*account, error) {
	topics := l.g.broker().Topics()
	a := &account{
		l: l, records: map[pairKey][]place{}, waiting: map[pairKey][]place{}, state: map[pairKey]string{}, unmade: map[string]string{},
		known: map[string]bool{}, byDlv: map[string]pairKey{}, origins: map[pairKey]map[string]int{},
	}
	var err error
	if a.delivers, err = l.commits(ctx, "deliver", topics.Deliveries); err != nil {
		return nil, err
	}
	if a.wheel, err = l.commits(ctx, "wheel", topics.Schedule); err != nil {
		return nil, err
	}
	if a.fanout, err = l.commits(ctx, "fanout", topics.Events); err != nil {
		return nil, err
	}
	if err := l.advance(ctx); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	a.parked = l.parked()
	a.pairs()
	a.events()
	return a, nil
}

// pairs finds where each pair is.
func (a *account) pairs() {
	for at, d := range a.l.deliveries {
		key := pairKey{d.event, d.endpoint}
		a.records[key] = append(a.records[key], at)
		a.byDlv[d.delivery] = key
		if d.attempt == 1 {
			if a.origins[key] == nil {
				a.origins[key] = map[string]int{}
			}
			a.origins[key][d.position.String()]++
		}
	}
	for key, origins := range a.origins {
		for position, n := range origins {
			if n > 1 {
				a.doubles = append(a.doubles, fmt.Sprintf("event %s at %s became %d deliveries for %s", key.event, position, n, key.endpoint))
			}
		}
	}
	for at, d := range a.l.scheduled {
		if at.offset >= a.wheel[at.partition] {
			key := pairKey{d.event, d.endpoint}
			a.waiting[key] = append(a.waiting[key], at)
		}
	}
	for key, records := range a.records {
		a.state[key] = a.where(key, records)
	}
}

// where is the place of a pair: its end if it has one, else where a record of it
// waits.
func (a *account) where(key pairKey, records []place) string {
	d := a.l.deliveries[records[0]]
	ends := map[schemas.Outcome]bool{}
	for _, one := range a.l.attempts[d.delivery] {
		if one.Outcome.Final() {
			ends[one.Outcome] = true
		}
	}
	for _, at := range records {
		for _, r := range a.l.ranges[at.partition] {
			if _, done := a.l.finished[at]; !done && r.Endpoint == key.endpoint && r.First <= at.offset && at.offset <= r.Last {
				ends[r.Outcome] = true
			}
		}
	}
	if len(ends) > 1 {
		a.doubles = append(a.doubles, fmt.Sprintf("delivery %s of %s ended in %d ways: %v", d.delivery, key.endpoint, len(ends), ends))
	}
	for _, o := range []schemas.Outcome{
		schemas.OutcomeDelivered, schemas.OutcomeExhausted, schemas.OutcomeExpired, schemas.OutcomeCancelled,
		schemas.OutcomeRejected, schemas.OutcomeLostByRetention,
	} {
		if ends[o] {
			return string(o)
		}
	}
	found := inNothing
	for _, at := range records {
		if _, done := a.l.finished[at]; done {
			continue
		}
		switch {
		case a.parked[at]:
			return inParked
		case at.offset >= a.delivers[at.partition]:
			found = inLog
		}
	}
	if found == inNothing && len(a.waiting[key]) > 0 {
		return inScheduled
	}
	return found
}

// reasons are those of an event without a pair, the most telling first.
func reasons() []schemas.Reason {
	return []schemas.Reason{
		schemas.ReasonConflict, schemas.ReasonDuplicate, schemas.ReasonTenantDeleted, schemas.ReasonDisabled,
		schemas.ReasonFilterError, schemas.ReasonFiltered, schemas.ReasonUnmatched,
	}
}

// events finds why each record of events without a pair has none.
func (a *account) events() {
	made := map[string]bool{}
	for _, origins := range a.origins {
		for position := range origins {
			made[position] = true
		}
	}
	topic := a.l.g.broker().Topics().Events
	for position, event := range a.l.events {
		a.known[event] = true
		if n := len(a.l.decisions[position]); n > 1 {
			a.doubles = append(a.doubles, fmt.Sprintf("event %s at %s was decided %d times", event, position, n))
		}
		if made[position] {
			continue
		}
		a.unmade[position] = a.why(topic, position)
	}
}

func (a *account) why(topic, position string) string {
	if _, ok := a.l.rejected[topic+" "+position]; ok {
		return byRejection
	}
	for _, d := range a.l.decisions[position] {
		for _, reason := range reasons() {
			if d.Reasons[reason].Count > 0 {
				return string(reason)
			}
		}
	}
	if p, err := schemas.ParsePosition(position); err == nil && p.Offset >= a.fanout[p.Partition] {
		return inLog
	}
	return inNothing
}

// disabled reports whether a decision says that an event found an endpoint
// disabled.
func (a *account) disabled(event, endpoint string) bool {
	for position, id := range a.l.events {
		if id != event {
			continue
		}
		for _, d := range a.l.decisions[position] {
			if slices.Contains(d.Reasons[schemas.ReasonDisabled].IDs, endpoint) {
				return true
			}
		}
	}
	return false
}

// settle waits until what must arrive has, and what has fallen due has ended;
// at the latest it gives up and what is still under way is counted so.
func (c *chaos) settle() *account {
	var last *account
	begin, shown := time.Now(), ""
	ctx, cancel := context.WithTimeout(c.t.Context(), 3*time.Minute)
	defer cancel()
	for {
		a, err := c.log.count(ctx)
		if err == nil {
			last = a
			open := c.settled(a)
			if open == "" {
				c.t.Logf("settled after %s", time.Since(begin).Round(time.Second))
				return a
			}
			if open != shown {
				c.t.Logf("%3.0f s after the end: %s", time.Since(begin).Seconds(), open)
				shown = open
			}
		}
		if ctx.Err() != nil {
			if last == nil {
				c.t.Fatalf("the topics can't be read: %v", err)
			}
			c.t.Errorf("not settled: %s", c.settled(last))
			return last
		}
		wait(ctx, 3*time.Second)
	}
}

// settled says what is still under way, or nothing.
func (c *chaos) settled(a *account) string {
	open := map[string]int{}
	for _, why := range a.unmade {
		if why == inLog {
			open["events in the log"]++
		}
	}
	for key, state := range a.state {
		t, ok := c.target(key.endpoint)
		switch {
		case state == inLog && ok && t.answer != nil && !t.arrives:
			// it is being attempted, again and again
		case state == inLog:
			open[t.name+" "+state]++
		case !ok && (state == inParked || state == inScheduled):
			open["deleted endpoints: "+state]++
		case t.arrives && state != string(schemas.OutcomeDelivered):
			open[t.name+" "+state]++
		}
	}
	var out []string
	for what, n := range open {
		out = append(out, fmt.Sprintf("%d %s", n, what))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// target returns the kind of an endpoint; false for one that was deleted.
func (c *chaos) target(endpoint string) (target, bool) {
	for _, t := range c.targets {
		if t.id == endpoint {
			return t, true
		}
	}
	return target{}, false
}
