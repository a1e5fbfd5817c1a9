package match

import "strings"

// explainCost bounds one Explain: about a second of filters.
const explainCost = 10_000_000

// Outcome is what Explain says of one subscription: a closed set.
type Outcome string

// The outcomes of a verdict; those of filters are named as the reasons.
const (
	OutcomeMatched        Outcome = "matched"
	OutcomeTypeNotMatched Outcome = "type_not_matched"
	OutcomeDisabled       Outcome = "disabled"
	OutcomeFiltered               = Outcome(ReasonFiltered)
	OutcomeFilterError            = Outcome(ReasonFilterError)
	OutcomeFilterBudget           = Outcome(ReasonFilterBudget)
)

// Verdict is the answer for one subscription. Pattern is the type pattern that
// matched; Detail is set for filter errors.
type Verdict struct {
	EndpointID     string  `json:"endpoint_id"`
	SubscriptionID string  `json:"subscription_id"`
	Outcome        Outcome `json:"outcome"`
	Pattern        string  `json:"pattern,omitempty"`
	Detail         string  `json:"detail,omitempty"`
}

// Explain judges the event for every subscription of the set, in ascending order of
// endpoint and subscription id. Unlike Match it looks at each one by itself, also
// when another one of its endpoint matched; that a subscription is disabled is told
// only where it would match. All filters together may cost about a
// second; what is beyond is OutcomeFilterBudget.
func (s *Set) Explain(ev *Input) []Verdict {
	var sc scratch
	sc.begin(s, ev, NewBudget(explainCost))
	defer sc.end()
	verdicts := make([]Verdict, 0, len(s.subs))
	for i := range s.subs {
		sub := &s.subs[i]
		v := Verdict{EndpointID: sub.EndpointID, SubscriptionID: sub.ID}
		pattern, ok := matchingPattern(sub.Types, ev.Type)
		switch {
		case !ok:
			v.Outcome = OutcomeTypeNotMatched
		default:
			said := sc.verdict(s, sub)
			v.Outcome, v.Pattern, v.Detail = OutcomeMatched, pattern, said.detail
			if said.reason != "" {
				v.Outcome = Outcome(said.reason)
			} else if sub.Disabled {
				v.Outcome = OutcomeDisabled
			}
		}
		verdicts = append(verdicts, v)
	}
	return verdicts
}

// matchingPattern returns the most specific, that is the longest, pattern that
// matches the type.
func matchingPattern(patterns []string, eventType string) (best string, ok bool) {
	for _, p := range patterns {
		if CheckPattern(p) != nil || !matchesType(p, eventType) {
			continue
		}
		if !ok || len(p) > len(best) || p == eventType {
			best, ok = p, true
		}
	}
	return best, ok
}

// matchesType reports whether a valid pattern matches the type.
func matchesType(pattern, eventType string) bool {
	if pattern == everything {
		return true
	}
	if prefix, isPrefix := prefixOf(pattern); isPrefix {
		return strings.HasPrefix(eventType, prefix+".")
	}
	return pattern == eventType
}
