package match

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"cel.dev/cel-go/cel"
)

// TestCostlyFilters proves that what is too costly is stopped by the limit and by
// nothing else: with a higher limit the same filter says yes to the same event.
func TestCostlyFilters(t *testing.T) {
	const limit = 20_000
	numbers := strings.Repeat("1,", 3000) + "1"
	text := strings.Repeat("a", 100_000)
	data := fmt.Appendf(nil, `{"l":[%s],"m":{"l":[[%s]]},"s":%q,"d":"%s1"}`, numbers, numbers, text, strings.Repeat("0", 5000))
	low, high := newPrograms(t, Config{CostLimit: limit}), newPrograms(t, Config{CostLimit: 1 << 40, Timeout: time.Hour})
	tests := []struct{ name, expr string }{
		{"loop", `data.l.all(x, x + 1.0 > x && x + 2.0 > x)`},
		{"nested loops", `data.l.all(x, data.l.filter(y, y > 5).size() == 0 || x > 100)`},
		{"string growth", `(data.s + data.s + data.s + data.s + data.s).size() > 0`},
		{"comparison of texts in a loop", `data.l.all(x, data.s < data.s + "a")`},
		{"regexp on a large text", `data.s.matches("(a|aa|aaa|b)+$")`},
		{"small regexp", `data.s.matches("^a+$")`},
		{"large document", `data.m == data.m && [data, data, data, data] == [data, data, data, data]`},
		{"large document in a loop", `data.l.all(x, data.m == data.m)`},
		{"unequal documents", `[data, data, data, data, data, data, data] != [data, data, data, data, data, data, 1]`},
		{"search for a document", `!([1] in [data.l, data.l, data.m.l, data.m.l, data.l, data.l, data.m.l])`},
		{"search in a loop", `data.l.all(x, x in data.l)`},
		{"search without a hit", `!data.l.exists(x, 2 in data.l)`},
		{"conversion in a loop", `data.l.all(x, double(data.d) == 1.0)`},
		{"time zone in a loop", `data.l.all(x, time.getHours("Europe/Berlin") == 6)`},
		{"split", `data.s.split("").size() > 1`},
		{"contains", `!data.s.contains("` + strings.Repeat("ab", 200) + `")`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ev := order()
			ev.Data = data
			reason, detail := judge(t, low, tt.expr, ev)
			if reason != ReasonFilterError || !strings.HasPrefix(detail, "cost_limit") {
				t.Errorf("limit %d: %q %q, want the cost limit", limit, reason, detail)
			}
			if tt.name == "nested loops" || tt.name == "search in a loop" {
				ev.Data = []byte(`{"l":[1,1,1]}`) // the control would be long
			}
			if reason, detail := judge(t, high, tt.expr, ev); reason != "" {
				t.Errorf("high limit: %q %q, want a match", reason, detail)
			}
		})
	}
}

// TestGuardLooksBeforeTheCall plans filters with the guard and without CEL's limit:
// what is too large is refused, not made and counted afterwards.
func TestGuardLooksBeforeTheCall(t *testing.T) {
	p := newPrograms(t, Config{})
	ev := order()
	ev.Data = []byte(`{"s":"` + strings.Repeat("a", 1000) + `","l":[1,2,3,4,5,6,7,8,9,10,11,12]}`)
	for _, expr := range []string{
		`data.s.matches("^a+$")`, `data == data`, `data.l != data.l`, `data.l == data.l`, `12.0 in data.l`, `[1] in [data.l]`,
	} {
		tree, err := p.check(expr)
		if err != nil {
			t.Fatal(err)
		}
		for limit, want := range map[uint64]bool{10: true, 1 << 40: false} {
			prog, err := p.env.Program(tree.ast, cel.EvalOptions(cel.OptOptimize), cel.CustomDecoratorV2(newGuard(limit).decorate))
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = prog.Eval(&variables{ev: ev})
			if refused := err != nil && strings.Contains(err.Error(), "too large"); refused != want {
				t.Errorf("%s with limit %d: %v, want refused %t", expr, limit, err, want)
			}
		}
	}
}

// TestCostIsCounted shows that a stopped evaluation pays what it used, which is about
// the limit: it did not go on afterwards.
func TestCostIsCounted(t *testing.T) {
	const limit, budget = 5_000, 1_000_000
	ev := &Input{Data: []byte(`[` + strings.Repeat("1,", 5000) + `1]`)}
	set := compileSet(t, newPrograms(t, Config{CostLimit: limit}), Subscription{
		ID: "s", EndpointID: "e", Types: []string{"*"}, Filter: `data.all(x, data.all(y, x == y))`,
	})
	b := NewBudget(budget)
	var out Result
	set.Match(ev, b, &out)
	parse := uint64(len(ev.Data) / parseBytesPerCost)
	if spent := budget - b.Left(); spent < limit+parse || spent > limit+parse+1000 {
		t.Errorf("spent %d, want about %d", spent, limit+parse)
	}
}

// TestTimeout shows that the interrupt check works when the cost limit doesn't help.
func TestTimeout(t *testing.T) {
	expr := `data.all(x, x == 1)`
	ev := &Input{Data: []byte(`[` + strings.Repeat("1,", 100) + `1]`)}
	reason, detail := judge(t, newPrograms(t, Config{Timeout: 1}), expr, ev)
	if reason != ReasonFilterError || !strings.HasPrefix(detail, "timeout") {
		t.Errorf("timeout of 1 ns: %q %q", reason, detail)
	}
	if reason, detail := judge(t, newPrograms(t, Config{Timeout: time.Hour}), expr, ev); reason != "" {
		t.Errorf("timeout of 1 h: %q %q", reason, detail)
	}
}

func TestBudget(t *testing.T) {
	p := newPrograms(t, Config{})
	set := compileSet(t, p,
		Subscription{ID: "s1", EndpointID: "e1", Types: []string{"*"}, Filter: `type == "order.paid"`},
		Subscription{ID: "s2", EndpointID: "e2", Types: []string{"*"}, Filter: `type != "x"`},
		Subscription{ID: "s3", EndpointID: "e3", Types: []string{"*"}},
	)
	b := NewBudget(1) // the first evaluation uses it up
	var out Result
	set.Match(order(), b, &out)
	if len(out.Matches) != 2 || out.Matches[0].EndpointID != "e1" || out.Matches[1].EndpointID != "e3" {
		t.Errorf("matches %v, want e1 and e3, which has no filter", out.Matches)
	}
	if out.Counts != (Counts{FilterBudget: 1}) || out.Rejections[0].Reason != ReasonFilterBudget || !b.Exhausted() {
		t.Errorf("rejections %v %v", out.Counts, out.Rejections)
	}
	set.Match(order(), NewBudget(1000), &out)
	if len(out.Matches) != 3 {
		t.Errorf("a new budget: matches %v, want 3", out.Matches)
	}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []Config{{MaxBytes: -1}, {Timeout: -1}} {
		if _, err := NewPrograms(cfg); err == nil {
			t.Errorf("NewPrograms(%+v) has no error", cfg)
		}
	}
	p := newPrograms(t, Config{CostLimit: 3})
	if err := p.CheckFilter(`type == source && source == id && id == tenant`); err == nil {
		t.Error("CheckFilter knows nothing of the cost limit")
	}
}

func TestProgramsAreShared(t *testing.T) {
	compiled := map[string]int{}
	p := newPrograms(t, Config{MaxBytes: 2 * ProgramBytes(`type == "a"`)})
	p.onCompile = func(expr string) { compiled[expr]++ }
	sub := func(expr string) Subscription {
		return Subscription{ID: expr, EndpointID: expr, Types: []string{"*"}, Filter: expr}
	}
	for range 3 {
		compileSet(t, p, sub(`type == "a"`), sub(`type == "b"`))
	}
	if compiled[`type == "a"`] != 1 || compiled[`type == "b"`] != 1 {
		t.Errorf("compiled %v, want each once", compiled)
	}
	for i := range 100 {
		compileSet(t, p, sub(fmt.Sprintf(`id == "%d"`, i)))
	}
	p.cache.CleanUp()
	if n := p.cache.EstimatedSize(); n > 2 {
		t.Errorf("cache holds %d programs, want at most 2", n)
	}
	if _, errs := Compile([]Subscription{sub(`nope`), sub(`nope`)}, p); len(errs) != 2 || compiled["nope"] != 1 {
		t.Errorf("errors %v after compiling %d times, want 2 after 1", errs, compiled["nope"])
	}
}
