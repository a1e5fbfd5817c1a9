package match

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Subscription is what a tenant stored: which types go to an endpoint and, where
// Filter is not empty, under which condition.
type Subscription struct {
	ID, EndpointID string
	// Types are patterns, see CheckPattern; one that matches is enough.
	Types []string
	// Filter is a CEL expression, see CheckFilter; empty lets everything pass.
	Filter string
	// Disabled takes the subscription out of Match; Explain still names it.
	Disabled bool
}

// CompileError is a part of a subscription that could not be used. Field is "types"
// or "filter".
type CompileError struct {
	SubscriptionID, Field string
	Err                   error
}

// Error implements error.
func (e CompileError) Error() string {
	return fmt.Sprintf("subscription %s: %s: %v", e.SubscriptionID, e.Field, e.Err)
}

// Unwrap returns the cause.
func (e CompileError) Unwrap() error { return e.Err }

// Set is a tenant's subscriptions, compiled. It is immutable.
type Set struct {
	subs      []compiled
	exact     map[string][]int32 // type → subscriptions
	prefix    map[string][]int32 // "order" for "order.*" → subscriptions
	all       []int32
	filters   []filter // the first one stands for "no filter"
	endpoints int
}

// compiled is a subscription with its numbers in the set.
type compiled struct {
	Subscription
	endpoint, filter int32
}

// filter is one distinct filter: a program, an error, or neither for "no filter".
type filter struct {
	program *program
	err     error
}

// Compile builds the set of a tenant's subscriptions, whose programs come from and go
// to the given cache. The order of subs does not matter. It always returns a usable
// set: a pattern in error is left out, and a filter in error makes its subscription
// answer ReasonFilterError, so that what stopped compiling is seen and not guessed.
func Compile(subs []Subscription, programs *Programs) (*Set, []CompileError) {
	s := &Set{
		subs:   make([]compiled, 0, len(subs)),
		exact:  make(map[string][]int32),
		prefix: make(map[string][]int32),
	}
	for _, sub := range subs {
		sub.Types = slices.Compact(slices.Sorted(slices.Values(sub.Types)))
		s.subs = append(s.subs, compiled{Subscription: sub})
	}
	slices.SortStableFunc(s.subs, func(a, b compiled) int {
		return cmp.Or(cmp.Compare(a.EndpointID, b.EndpointID), cmp.Compare(a.ID, b.ID))
	})
	var errs []CompileError
	s.filters = append(s.filters, filter{})
	numbers := map[string]int32{"": 0}
	for i := range s.subs {
		sub := &s.subs[i]
		if i == 0 || sub.EndpointID != s.subs[i-1].EndpointID {
			s.endpoints++
		}
		sub.endpoint = int32(s.endpoints - 1) //nolint:gosec // far below 2³¹ subscriptions fit in memory
		sub.filter = s.addFilter(sub.Filter, numbers, programs)
		if err := s.filters[sub.filter].err; err != nil {
			errs = append(errs, CompileError{SubscriptionID: sub.ID, Field: "filter", Err: err})
		}
		errs = append(errs, s.addTypes(int32(i))...)
	}
	return s, errs
}

// addFilter returns the number of the filter in the set and compiles it if it is new.
func (s *Set) addFilter(expr string, numbers map[string]int32, programs *Programs) int32 {
	if n, ok := numbers[expr]; ok {
		return n
	}
	program, err := programs.load(expr)
	n := int32(len(s.filters)) //nolint:gosec // at most one per subscription
	s.filters = append(s.filters, filter{program: program, err: err})
	numbers[expr] = n
	return n
}

// addTypes enters the subscription under each of its patterns.
func (s *Set) addTypes(idx int32) (errs []CompileError) {
	sub := &s.subs[idx]
	if len(sub.Types) == 0 {
		return []CompileError{{SubscriptionID: sub.ID, Field: "types", Err: errors.New("no type pattern")}}
	}
	for _, p := range sub.Types {
		if err := CheckPattern(p); err != nil {
			errs = append(errs, CompileError{SubscriptionID: sub.ID, Field: "types", Err: err})
			continue
		}
		if sub.Disabled {
			continue
		}
		prefix, isPrefix := prefixOf(p)
		switch {
		case p == everything:
			s.all = append(s.all, idx)
		case isPrefix:
			s.prefix[prefix] = append(s.prefix[prefix], idx)
		default:
			s.exact[p] = append(s.exact[p], idx)
		}
	}
	return errs
}

// Len returns the number of subscriptions, the disabled ones included.
func (s *Set) Len() int { return len(s.subs) }

// ReadsData reports whether any filter of the set reads the event's data. Where it
// is false, Input.Data may be left out.
func (s *Set) ReadsData() bool {
	return slices.ContainsFunc(s.filters, func(f filter) bool {
		return f.program != nil && f.program.readsData
	})
}
