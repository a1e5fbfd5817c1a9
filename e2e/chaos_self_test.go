package e2e

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/schemas"
)

// handmade is a log that a test fills by hand.
func handmade() *topicLog {
	return &topicLog{
		g: &gateway{prefix: "x."}, events: map[string]string{}, deliveries: map[place]made{}, homes: map[string]int32{}, attempts: map[string][]ended{},
		finished: map[place]ended{}, ranges: map[int32][]schemas.Attempt{}, scheduled: map[place]made{}, owners: map[int32][]owning{},
		decisions: map[string][]schemas.Decision{}, rejected: map[string]string{},
	}
}

func (l *topicLog) account() *account {
	return &account{
		l: l, records: map[pairKey][]place{}, waiting: map[pairKey][]place{}, state: map[pairKey]string{}, unmade: map[string]string{},
		known: map[string]bool{}, byDlv: map[string]pairKey{}, origins: map[pairKey]map[string]int{}, parked: map[place]bool{},
		delivers: map[int32]int64{0: 100}, wheel: map[int32]int64{0: 100}, fanout: map[int32]int64{0: 100},
	}
}

func (l *topicLog) outcome(at int64, delivery string, attempt int, o schemas.Outcome) {
	one := ended{Attempt: schemas.Attempt{Offset: at, Delivery: delivery, Attempt: attempt, Outcome: o}, at: time.Now()}
	l.attempts[delivery] = append(l.attempts[delivery], one)
	l.finished[place{0, at}] = one
}

// The count finds each pair where it is, and those that are nowhere.
func TestChaosCountsPairs(t *testing.T) {
	l := handmade()
	record := func(offset int64, name string, attempt int) {
		l.deliveries[place{0, offset}] = made{"dlv_" + name, "evt_" + name, "ep", attempt, schemas.Position{Offset: offset}}
	}
	for i, name := range []string{"delivered", "parked", "lost", "retried", "vanished", "consumed", "scheduled"} {
		record(int64(i), name, 1)
	}
	record(100, "log", 1)
	record(7, "retried", 2)
	l.outcome(0, "dlv_delivered", 1, schemas.OutcomeDelivered)
	l.outcome(3, "dlv_retried", 1, schemas.OutcomeRetry)
	l.outcome(7, "dlv_retried", 2, schemas.OutcomeExhausted)
	l.outcome(4, "dlv_vanished", 1, schemas.OutcomeRetry)
	for _, name := range []string{"consumed", "scheduled"} {
		l.outcome(map[string]int64{"consumed": 5, "scheduled": 6}[name], "dlv_"+name, 1, schemas.OutcomeRetry)
		l.scheduled[place{0, map[string]int64{"consumed": 99, "scheduled": 100}[name]}] = made{"dlv_" + name, "evt_" + name, "ep", 2, schemas.Position{}}
	}
	record(8, "cancelled", 1)
	l.ranges[0] = []schemas.Attempt{{Endpoint: "ep", Outcome: schemas.OutcomeCancelled, First: 8, Last: 8}}
	a := l.account()
	a.parked[place{0, 1}] = true
	a.pairs()
	want := map[pairKey]string{}
	for name, state := range map[string]string{
		"delivered": "delivered", "parked": inParked, "lost": inNothing, "retried": "exhausted", "vanished": inNothing,
		"consumed": inNothing, "scheduled": inScheduled, "log": inLog, "cancelled": "cancelled",
	} {
		want[pairKey{"evt_" + name, "ep"}] = state
	}
	if diff := cmp.Diff(want, a.state); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(a.doubles) > 0 {
		t.Errorf("doubles %v", a.doubles)
	}

	l.deliveries[place{0, 9}] = l.deliveries[place{0, 0}] // made twice of one record of events
	l.outcome(9, "dlv_delivered", 1, schemas.OutcomeExhausted)
	a = l.account()
	if a.pairs(); len(a.doubles) != 2 {
		t.Errorf("doubles %q, want one made twice and one ended in two ways", a.doubles)
	}
}

// The count finds why an event has no pair, and those without a reason.
func TestChaosCountsEvents(t *testing.T) {
	l := handmade()
	l.events = map[string]string{"0.1": "made", "0.2": "unmatched", "0.3": "both", "0.4": "rejected", "0.5": "lost", "0.100": "log"}
	l.deliveries[place{0, 1}] = made{"dlv", "made", "ep", 1, schemas.Position{Offset: 1}}
	decide := func(position string, reasons ...schemas.Reason) {
		d := schemas.Decision{Reasons: map[schemas.Reason]schemas.ReasonCount{}}
		for _, r := range reasons {
			d.Reasons[r] = schemas.ReasonCount{Count: 1}
		}
		l.decisions[position] = append(l.decisions[position], d)
	}
	decide("0.2", schemas.ReasonUnmatched)
	decide("0.3", schemas.ReasonUnmatched, schemas.ReasonDisabled)
	l.rejected["x.events 0.4"] = "malformed"
	a := l.account()
	a.pairs()
	a.events()
	want := map[string]string{"0.2": "unmatched", "0.3": "disabled", "0.4": byRejection, "0.5": inNothing, "0.100": inLog}
	if diff := cmp.Diff(want, a.unmade); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	decide("0.2", schemas.ReasonUnmatched)
	a = l.account()
	if a.events(); len(a.doubles) != 1 {
		t.Errorf("doubles %q, want one decided twice", a.doubles)
	}
}

// A repeat is one that P3 allows only with a hand-over before which Kafka did
// not have the outcome.
func TestChaosJudgesRepeats(t *testing.T) {
	begin := time.Now()
	at := func(s float64) time.Time { return begin.Add(time.Duration(s * float64(time.Second))) }
	request := func(s float64) post { return post{name: "n", event: "evt", attempt: "1", at: at(s), status: 200} }
	for name, row := range map[string]struct {
		outcome, taken float64 // 0: never
		wrong          int
	}{
		"no hand-over":                      {0, 0, 1},
		"outcome before the hand-over":      {11, 20, 1},
		"outcome after the hand-over":       {21, 20, 0},
		"no outcome":                        {0, 20, 0},
		"hand-over after the repeat":        {11, 31, 1},
		"long on its way, no outcome known": {0, 9, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := &chaos{t: t, began: begin, log: handmade(), names: map[string]string{"n": "ep"}}
			if row.taken > 0 {
				c.log.owners[0] = []owning{{"w1", at(1)}, {"w2", at(row.taken)}}
			}
			if row.outcome > 0 {
				delivery := schemas.DeliveryID("evt", "ep", "")
				c.log.attempts[delivery] = []ended{{schemas.Attempt{Delivery: delivery, Attempt: 1, Outcome: schemas.OutcomeDelivered}, at(row.outcome)}}
			}
			got := c.repeated([]post{request(30), request(10)}, nil)
			if len(got.wrong) != row.wrong || got.unacknowledged != 1-row.wrong {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A request beyond the lease is found, and so is a success out of order.
func TestChaosFindsLateAndDisordered(t *testing.T) {
	begin := time.Now()
	c := &chaos{t: t, began: begin, log: handmade(), names: map[string]string{"n": "ep"}, targets: []target{{kind{name: "n", ordered: true}, "ep"}}}
	c.log.owners[0] = []owning{{"deliver-1", begin}}
	c.faults = []*fault{{name: "cut from kafka", on: "deliver-1", began: begin.Add(10 * time.Second), ended: begin.Add(30 * time.Second)}}
	c.log.deliveries[place{0, 1}] = made{event: "first", endpoint: "ep"}
	c.log.deliveries[place{0, 2}] = made{event: "second", endpoint: "ep"}
	posts := []post{
		{name: "n", event: "second", key: "k", at: begin.Add(11 * time.Second), status: 200},
		{name: "n", event: "first", key: "k", at: begin.Add(20 * time.Second), status: 200},
	}
	if got := c.overdue(posts); len(got) != 1 {
		t.Errorf("overdue %q", got)
	}
	if got := c.disorder(posts); len(got) != 1 {
		t.Errorf("out of order %q", got)
	}
	posts[1].key = "another"
	if got := c.disorder(posts); len(got) != 0 {
		t.Errorf("out of order %q, of two keys", got)
	}
}
