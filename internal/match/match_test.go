package match

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// naiveFilters are filters with their meaning in Go.
func naiveFilters() map[string]func(*Input) Reason {
	total := func(ev *Input) (float64, bool) {
		var d map[string]any
		if json.Unmarshal(ev.Data, &d) != nil {
			return 0, false
		}
		f, ok := d["total"].(float64)
		return f, ok
	}
	say := func(yes bool) Reason {
		if yes {
			return ""
		}
		return ReasonFiltered
	}
	return map[string]func(*Input) Reason{
		"":                  func(*Input) Reason { return "" },
		`subject == "a"`:    func(ev *Input) Reason { return say(ev.Subject == "a") },
		`ext.region != "x"`: func(ev *Input) Reason { return say(ev.Extensions["region"] != "x") },
		`data.total > 5`: func(ev *Input) Reason {
			f, ok := total(ev)
			if !ok {
				return ReasonFilterError
			}
			return say(f > 5)
		},
	}
}

// naive is the specification of Match, without indexes, memory or order of evaluation.
func naive(subs []Subscription, ev *Input, filters map[string]func(*Input) Reason) map[string]Reason {
	answers := map[string]Reason{}
	for _, sub := range subs {
		wanted := slices.ContainsFunc(sub.Types, func(p string) bool {
			prefix, isPrefix := strings.CutSuffix(p, "*")
			return p == ev.Type || isPrefix && strings.HasPrefix(ev.Type, prefix)
		})
		if sub.Disabled || !wanted {
			continue
		}
		reason := filters[sub.Filter](ev)
		before, seen := answers[sub.EndpointID]
		switch {
		case !seen, reason == "":
			answers[sub.EndpointID] = reason
		case before != "" && reason == ReasonFilterError:
			answers[sub.EndpointID] = reason
		}
	}
	return answers
}

func TestMatchIsNaive(t *testing.T) {
	filters := naiveFilters()
	exprs := make([]string, 0, len(filters))
	for expr := range filters {
		exprs = append(exprs, expr)
	}
	slices.Sort(exprs)
	programs := newPrograms(t, Config{})
	var out Result // reused across all sets and events
	rapid.Check(t, func(t *rapid.T) {
		segment := rapid.SampledFrom([]string{"a", "b", "ab"})
		types := rapid.Map(rapid.SliceOfN(segment, 1, 4), func(s []string) string { return strings.Join(s, ".") })
		pattern := rapid.OneOf(types, rapid.Just("*"), rapid.Map(types, func(s string) string { return s + ".*" }))
		sub := rapid.Custom(func(t *rapid.T) Subscription {
			return Subscription{
				ID:         fmt.Sprint("s", rapid.IntRange(0, 99).Draw(t, "id")),
				EndpointID: fmt.Sprint("e", rapid.IntRange(0, 9).Draw(t, "endpoint")),
				Types:      rapid.SliceOfN(pattern, 1, 3).Draw(t, "types"),
				Filter:     rapid.SampledFrom(exprs).Draw(t, "filter"),
				Disabled:   rapid.IntRange(0, 9).Draw(t, "disabled") == 0,
			}
		})
		subs := rapid.SliceOfN(sub, 0, 30).Draw(t, "subs")
		set, errs := Compile(subs, programs)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		for range 5 {
			ev := &Input{
				Type:       types.Draw(t, "type"),
				Subject:    rapid.SampledFrom([]string{"", "a"}).Draw(t, "subject"),
				Extensions: map[string]string{"region": rapid.SampledFrom([]string{"x", "y"}).Draw(t, "region")},
				Data:       []byte(rapid.SampledFrom([]string{``, `<`, `{}`, `{"total":3}`, `{"total":7}`}).Draw(t, "data")),
			}
			set.Match(ev, nil, &out)
			checkAgainstNaive(t, &out, naive(subs, ev, filters))
			checkExplain(t, set, ev, &out)
		}
	})
}

func checkAgainstNaive(t *rapid.T, out *Result, want map[string]Reason) {
	t.Helper()
	got := map[string]Reason{}
	counts := Counts{}
	for _, m := range out.Matches {
		got[m.EndpointID] = ""
	}
	for _, r := range out.Rejections {
		got[r.EndpointID] = r.Reason
		switch r.Reason {
		case ReasonFiltered:
			counts.Filtered++
		default:
			counts.FilterError++
		}
	}
	if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("endpoints (-want +got):\n%s", diff)
	}
	if len(got) != len(out.Matches)+len(out.Rejections) || counts != out.Counts {
		t.Fatalf("an endpoint twice, or wrong counts: %+v", out)
	}
	byEndpoint := func(a, b Match) int { return cmp.Compare(a.EndpointID, b.EndpointID) }
	if !slices.IsSortedFunc(out.Matches, byEndpoint) {
		t.Fatalf("matches are not in order: %v", out.Matches)
	}
}

// checkExplain: the subscriptions that Match names are among those that Explain
// gives the same outcome, and an endpoint has a match in one if it has in the other.
func checkExplain(t *rapid.T, set *Set, ev *Input, out *Result) {
	t.Helper()
	type key struct {
		endpoint, sub string
		outcome       Outcome
	}
	said := map[key]bool{}
	matched := map[string]bool{}
	verdicts := set.Explain(ev)
	for _, v := range verdicts {
		said[key{v.EndpointID, v.SubscriptionID, v.Outcome}] = true
		if v.Outcome == OutcomeMatched {
			matched[v.EndpointID] = true
		}
	}
	for _, m := range out.Matches {
		if !said[key{m.EndpointID, m.SubscriptionID, OutcomeMatched}] {
			t.Fatalf("match %v is not in %v", m, verdicts)
		}
	}
	for _, r := range out.Rejections {
		if !said[key{r.EndpointID, r.SubscriptionID, Outcome(r.Reason)}] {
			t.Fatalf("rejection %v is not in %v", r, verdicts)
		}
	}
	if len(matched) != len(out.Matches) || len(verdicts) != set.Len() {
		t.Fatalf("Explain %v, Match %v", verdicts, out.Matches)
	}
}

func TestMostSpecificSubscriptionIsNamed(t *testing.T) {
	subs := []Subscription{
		{ID: "s1", EndpointID: "e", Types: []string{"*"}},
		{ID: "s2", EndpointID: "e", Types: []string{"order.*"}},
		{ID: "s3", EndpointID: "e", Types: []string{"order.paid.*"}},
		{ID: "s5", EndpointID: "e", Types: []string{"order.paid.eu"}},
		{ID: "s4", EndpointID: "e", Types: []string{"order.paid.eu", "*"}},
	}
	p := newPrograms(t, Config{})
	for typ, want := range map[string]string{"order.paid.eu": "s4", "order.paid.us": "s3", "order.sent": "s2", "x": "s1"} {
		var out Result
		compileSet(t, p, subs...).Match(&Input{Type: typ}, nil, &out)
		if diff := gocmp.Diff([]Match{{"e", want}}, out.Matches, cmpopts.EquateEmpty()); typ != "x" && diff != "" {
			t.Errorf("%s (-want +got):\n%s", typ, diff)
		} else if typ == "x" && len(out.Matches) != 1 {
			t.Errorf("%s: %v", typ, out.Matches)
		}
	}
}

func TestEachFilterIsEvaluatedOncePerEvent(t *testing.T) {
	evals := map[string]int{}
	p := newPrograms(t, Config{})
	p.onEval = func(expr string) { evals[expr]++ }
	no, yes, bad := `type == "x"`, `data.total > 1`, `data.missing == 1`
	var subs []Subscription
	for i := range 60 {
		subs = append(subs, Subscription{
			ID: fmt.Sprint("s", i), EndpointID: fmt.Sprint("e", i),
			Types: []string{"order.paid", "order.*", "*"}, Filter: []string{no, yes, bad}[i%3],
		})
	}
	set := compileSet(t, p, subs...)
	var out Result
	const events = 3
	for range events {
		set.Match(order(), nil, &out)
	}
	if diff := gocmp.Diff(map[string]int{no: events, yes: events, bad: events}, evals); diff != "" {
		t.Errorf("evaluations (-want +got):\n%s", diff)
	}
	if len(out.Matches) != 20 || out.Counts != (Counts{Filtered: 20, FilterError: 20}) || len(out.Rejections) != MaxRejections {
		t.Errorf("%d matches, %+v, %d rejections", len(out.Matches), out.Counts, len(out.Rejections))
	}
}

func TestDataIsParsedOnlyWhenAsked(t *testing.T) {
	p := newPrograms(t, Config{})
	tests := []struct {
		name   string
		exprs  []string
		reads  bool
		parsed int
	}{
		{"no filter", []string{""}, false, 0},
		{"attributes only", []string{`type == "order.paid"`, `ext.region == "eu"`}, false, 0},
		{"named, not reached", []string{`type == "order.paid" || data.total > 1`}, true, 0},
		{"behind a name of its own", []string{`[1].all(data, .data.total > 1.0)`}, true, 1},
		{"several readers", []string{`data.total > 1`, `data.total > 2`, `has(data.x)`}, true, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var subs []Subscription
			for i, expr := range tt.exprs {
				subs = append(subs, Subscription{ID: "s", EndpointID: fmt.Sprint("e", i), Types: []string{"*"}, Filter: expr})
			}
			set := compileSet(t, p, subs...)
			// Match, taken apart to look at the variables before they are forgotten.
			var sc scratch
			sc.begin(set, order(), nil)
			for i := range set.subs {
				set.consider(int32(i), &sc)
			}
			if sc.vars.parsed != tt.parsed || set.ReadsData() != tt.reads {
				t.Errorf("parsed %d times, ReadsData %t", sc.vars.parsed, set.ReadsData())
			}
		})
	}
}

func TestResultKeepsNothingOfTheEvent(t *testing.T) {
	set := compileSet(t, newPrograms(t, Config{}),
		Subscription{ID: "s", EndpointID: "e", Types: []string{"*"}, Filter: `data.total > 1`})
	var out Result
	set.Match(order(), NewBudget(1000), &out)
	if v := out.scratch.vars; v.ev != nil || v.data != nil || out.scratch.budget != nil {
		t.Errorf("kept %+v", v)
	}
}

func TestCompileErrorsAreSeen(t *testing.T) {
	subs := []Subscription{
		{ID: "s1", EndpointID: "e1", Types: []string{"order.*", "bad pattern"}},
		{ID: "s2", EndpointID: "e2", Types: []string{"*"}, Filter: `nope == 1`},
		{ID: "s3", EndpointID: "e3"},
	}
	set, errs := Compile(subs, newPrograms(t, Config{}))
	var where []string
	for _, err := range errs {
		where = append(where, err.SubscriptionID+" "+err.Field)
		if errors.Unwrap(err) == nil || !strings.Contains(err.Error(), err.SubscriptionID) {
			t.Errorf("error %v", err)
		}
	}
	if diff := gocmp.Diff([]string{"s1 types", "s2 filter", "s3 types"}, where); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
	var out Result
	set.Match(order(), nil, &out)
	if len(out.Matches) != 1 || out.Counts != (Counts{FilterError: 1}) || !strings.Contains(out.Rejections[0].Detail, "undeclared") {
		t.Errorf("%+v", out)
	}
}

func TestPanicIsAFilterError(t *testing.T) {
	p := newPrograms(t, Config{})
	p.onEval = func(string) { panic("broken") }
	reason, detail := judge(t, p, `type == "order.paid"`, order())
	if reason != ReasonFilterError || detail != "panic: broken" {
		t.Errorf("%q %q", reason, detail)
	}
}

func TestExplain(t *testing.T) {
	set, _ := Compile([]Subscription{
		{ID: "s1", EndpointID: "e1", Types: []string{"*", "order.*"}, Filter: `data.total > 100`},
		{ID: "s2", EndpointID: "e1", Types: []string{"order.sent"}},
		{ID: "s3", EndpointID: "e1", Types: []string{"*"}, Filter: `data.total > 1000`},
		{ID: "s4", EndpointID: "e2", Types: []string{"order.paid", "*"}, Filter: `data.nope > 1`},
		{ID: "s5", EndpointID: "e2", Types: []string{"*"}, Disabled: true},
		{ID: "s6", EndpointID: "e2", Types: []string{"order.sent"}, Disabled: true},
		{ID: "s7", EndpointID: "e2", Types: []string{"*"}, Filter: `data.total > 1000`, Disabled: true},
	}, newPrograms(t, Config{}))
	want := []Verdict{
		{"e1", "s1", OutcomeMatched, "order.*", ""},
		{"e1", "s2", OutcomeTypeNotMatched, "", ""},
		{"e1", "s3", OutcomeFiltered, "*", ""},
		{"e2", "s4", OutcomeFilterError, "order.paid", "no such key: nope"},
		{"e2", "s5", OutcomeDisabled, "*", ""},
		{"e2", "s6", OutcomeTypeNotMatched, "", ""},
		{"e2", "s7", OutcomeFiltered, "*", ""},
	}
	if diff := gocmp.Diff(want, set.Explain(order())); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
}

// TestSetIsShared is for the race detector: one set, many goroutines.
func TestSetIsShared(t *testing.T) {
	p := newPrograms(t, Config{})
	subs := []Subscription{
		{ID: "s1", EndpointID: "e1", Types: []string{"order.*"}, Filter: `data.lines.exists(l, l.sku.matches("a|b"))`},
		{ID: "s2", EndpointID: "e2", Types: []string{"*"}, Filter: `subject in ["order/7"] && data == data`},
	}
	set := compileSet(t, p, subs...)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var out Result
			for range 50 {
				set.Match(order(), NewBudget(1000), &out)
				if len(out.Matches) != 2 {
					t.Errorf("%+v", out)
					return
				}
				if _, errs := Compile(subs, p); len(errs) > 0 {
					t.Error(errs)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzMatch(f *testing.F) {
	f.Add("order.paid", "order.*", `{"total": 1}`, "region", "2026-01-01T00:00:00Z")
	f.Add("..", "a..b", `[[[`, "", "x")
	f.Add("order.", "order.*", "\xff", "x", "")
	p := newPrograms(f, Config{})
	f.Fuzz(func(t *testing.T, typ, pattern, data, ext, at string) {
		valid := CheckPattern(pattern) == nil
		set, errs := Compile([]Subscription{
			{ID: "s1", EndpointID: "e1", Types: []string{pattern}},
			{ID: "s2", EndpointID: "e2", Types: []string{"*"}, Filter: `data.total > 0 || time > timestamp("2026-01-01T00:00:00Z")`},
		}, p)
		if valid != (len(errs) == 0) {
			t.Fatalf("pattern %q: valid %t, errors %v", pattern, valid, errs)
		}
		var out Result
		set.Match(&Input{Type: typ, Data: []byte(data), Time: at, Extensions: map[string]string{ext: ext}}, nil, &out)
		got := slices.ContainsFunc(out.Matches, func(m Match) bool { return m.EndpointID == "e1" })
		if want := valid && matchesType(pattern, typ); got != want {
			t.Fatalf("pattern %q on %q: %t, want %t", pattern, typ, got, want)
		}
	})
}
