package match

import "slices"

// scratch is the memory of one Match at a time. Marks and verdicts are valid while
// their stamp is the current one, so nothing has to be cleared between events, not
// even when the next event belongs to another set.
type scratch struct {
	stamp     uint64
	endpoints []endpointMark // by endpoint number
	verdicts  []verdict      // by filter number
	touched   []int32        // endpoints with a mark of this event
	vars      variables
	budget    *Budget
}

// endpointMark is what is known of an endpoint: matched when reason is empty.
type endpointMark struct {
	stamp  uint64
	sub    int32
	reason Reason
	detail string
}

// verdict is what a filter said: yes when reason is empty.
type verdict struct {
	stamp  uint64
	reason Reason
	detail string
}

// begin makes room for the set and moves to a new stamp.
func (sc *scratch) begin(s *Set, ev *Input, b *Budget) {
	sc.stamp++
	sc.endpoints = grow(sc.endpoints, s.endpoints)
	sc.verdicts = grow(sc.verdicts, len(s.filters))
	sc.touched = sc.touched[:0]
	sc.vars.reset(ev)
	sc.budget = b
}

// end lets go of the event, so that a Result in a pool keeps no data alive.
func (sc *scratch) end() {
	sc.vars.reset(nil)
	sc.budget = nil
}

// verdict evaluates the subscription's filter, at most once per event.
func (sc *scratch) verdict(s *Set, sub *compiled) *verdict {
	v := &sc.verdicts[sub.filter]
	if v.stamp == sc.stamp {
		return v
	}
	v.stamp = sc.stamp
	f := &s.filters[sub.filter]
	switch {
	case f.err != nil:
		v.reason, v.detail = ReasonFilterError, detailOf(f.err)
	case f.program == nil:
		v.reason, v.detail = "", ""
	case sc.budget.Exhausted():
		v.reason, v.detail = ReasonFilterBudget, ""
	default:
		v.reason, v.detail = f.program.eval(&sc.vars, sc.budget)
	}
	return v
}

// grow returns s with at least n elements.
func grow[T any](s []T, n int) []T {
	if n <= len(s) {
		return s
	}
	return slices.Grow(s, n-len(s))[:n]
}
