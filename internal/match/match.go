// Package match decides which endpoints of a tenant get an event.
//
// In: the tenant's subscriptions, compiled once into a Set, and one event. Out:
// the endpoints that matched, each once, in ascending order, and those whose
// subscription asked for the type but whose filter said no, with the reason.
// It is pure: no Kafka, no Redis, no goroutines of its own, and the clock is only
// the last resort against a filter (Config.Timeout).
//
// It promises (DESIGN 4.2):
//
//  1. Finding the candidates costs O(segments of the type), not O(subscriptions).
//  2. A distinct filter is compiled once and evaluated at most once per event.
//  3. Data is parsed at most once per event, and only when a filter reads it.
//  4. A filter is untrusted: its cost is bounded before it runs, while it runs,
//     and over a batch (Budget). What is cut off is reported, never matched.
//  5. A filter that fails is not a match, and never hurts another filter.
package match

import "slices"

// MaxRejections is how many rejections a Result lists; Counts has them all.
const MaxRejections = 20

// Reason says why an endpoint whose subscription asked for the event's type did
// not match. It is a closed set, fit for a metric label.
type Reason string

// The reasons of a rejection.
const (
	// ReasonFiltered means that the filter evaluated to false.
	ReasonFiltered Reason = "filtered"
	// ReasonFilterError means that the filter could not be evaluated: a missing
	// field, data that is not JSON, the cost limit, or a filter that no longer compiles.
	ReasonFilterError Reason = "filter_error"
	// ReasonFilterBudget means that the filter was not evaluated, because the
	// tenant's budget for this batch was used up.
	ReasonFilterBudget Reason = "filter_budget"
)

// rank orders the reasons: of several subscriptions of one endpoint the reason that
// asks for somebody's attention is the one shown.
func (r Reason) rank() int {
	switch r {
	case ReasonFilterBudget:
		return 3
	case ReasonFilterError:
		return 2
	case ReasonFiltered:
		return 1
	default:
		return 0
	}
}

// Input is the event as filters see it: the CloudEvents attributes, the extension
// attributes, and the data as it was sent. Attributes that are absent are empty.
// Match only reads it and keeps nothing of it.
type Input struct {
	Type, Source, Subject, ID string
	// Time is RFC 3339, or empty.
	Time                                  string
	DataContentType, Tenant, PartitionKey string
	Extensions                            map[string]string
	Data                                  []byte
}

// Match is an endpoint that gets the event, and the subscription that said so: the
// one with the most specific pattern, of equals the one with the lowest id.
type Match struct {
	EndpointID, SubscriptionID string
}

// Rejection is an endpoint that asked for the type and did not match. Detail is set
// for errors: at most 256 bytes, safe to show to the tenant.
type Rejection struct {
	EndpointID, SubscriptionID string
	Reason                     Reason
	Detail                     string
}

// Counts is the number of rejected endpoints by reason.
type Counts struct {
	Filtered, FilterError, FilterBudget int
}

// Result is the outcome of one Match. It belongs to one goroutine and is meant to be
// reused: Match overwrites it and keeps its memory. An endpoint stands in Matches
// or counts as rejected, never both.
type Result struct {
	// Matches is in ascending order of endpoint id.
	Matches []Match
	// Rejections holds the first MaxRejections in ascending order of endpoint id.
	Rejections []Rejection
	Counts     Counts

	scratch scratch
}

// Match finds the endpoints of the set that get the event and writes them to out.
// The cost of filters is taken from b; a nil b is unlimited. A Set may be used by
// many goroutines at once, each with its own Result and Budget.
func (s *Set) Match(ev *Input, b *Budget, out *Result) {
	sc := &out.scratch
	sc.begin(s, ev, b)
	defer sc.end()
	s.candidates(ev.Type, func(sub int32) { s.consider(sub, sc) })
	s.report(out)
}

// candidates calls fn for each subscription that asks for the type: exact patterns,
// then prefixes from the longest to the shortest, then "*". A subscription with
// several patterns may be seen several times.
func (s *Set) candidates(eventType string, fn func(sub int32)) {
	for _, sub := range s.exact[eventType] {
		fn(sub)
	}
	if len(s.prefix) > 0 {
		for i := len(eventType) - 1; i >= 0; i-- {
			if eventType[i] != '.' {
				continue
			}
			for _, sub := range s.prefix[eventType[:i]] {
				fn(sub)
			}
		}
	}
	for _, sub := range s.all {
		fn(sub)
	}
}

// consider judges one candidate and notes the result at its endpoint.
func (s *Set) consider(idx int32, sc *scratch) {
	sub := &s.subs[idx]
	mark := &sc.endpoints[sub.endpoint]
	fresh := mark.stamp != sc.stamp
	if !fresh && mark.reason == "" {
		return // already matched: no need to ask another filter
	}
	v := sc.verdict(s, sub)
	switch {
	case fresh:
		*mark = endpointMark{stamp: sc.stamp, sub: idx, reason: v.reason, detail: v.detail}
		sc.touched = append(sc.touched, sub.endpoint)
	case v.reason == "", v.reason.rank() > mark.reason.rank(),
		v.reason == mark.reason && idx < mark.sub:
		mark.sub, mark.reason, mark.detail = idx, v.reason, v.detail
	}
}

// report turns the marks into the public part of out.
func (s *Set) report(out *Result) {
	sc := &out.scratch
	out.Matches, out.Rejections, out.Counts = out.Matches[:0], out.Rejections[:0], Counts{}
	slices.Sort(sc.touched) // endpoints are numbered in the order of their ids
	for _, ep := range sc.touched {
		mark := &sc.endpoints[ep]
		sub := &s.subs[mark.sub]
		switch mark.reason {
		case "":
			out.Matches = append(out.Matches, Match{EndpointID: sub.EndpointID, SubscriptionID: sub.ID})
			continue
		case ReasonFiltered:
			out.Counts.Filtered++
		case ReasonFilterBudget:
			out.Counts.FilterBudget++
		default:
			out.Counts.FilterError++
		}
		if len(out.Rejections) < MaxRejections {
			out.Rejections = append(out.Rejections, Rejection{
				EndpointID: sub.EndpointID, SubscriptionID: sub.ID,
				Reason: mark.reason, Detail: mark.detail,
			})
		}
	}
}
