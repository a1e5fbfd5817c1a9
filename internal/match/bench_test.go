package match

import (
	"fmt"
	"testing"
)

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		for _, filter := range []string{"", `subject.startsWith("order/")`, `data.total > 100`} {
			p := newPrograms(b, Config{})
			var subs []Subscription
			for i := range n { // of each hundred, one wants the event
				subs = append(subs, Subscription{
					ID: fmt.Sprint("s", i), EndpointID: fmt.Sprint("e", i),
					Types:  []string{[]string{"order.*", fmt.Sprint("other", i, ".*")}[min(i%100, 1)]},
					Filter: filter,
				})
			}
			set := compileSet(b, p, subs...)
			b.Run(fmt.Sprintf("subs=%d/filter=%q", n, filter), func(b *testing.B) {
				b.ReportAllocs()
				ev, budget := order(), NewBudget(1<<62)
				var out Result
				for b.Loop() {
					set.Match(ev, budget, &out)
				}
			})
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	p := newPrograms(b, Config{})
	b.Run("new", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := p.compile(fmt.Sprintf("data.total > %d && type == 'x'", i)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cached", func(b *testing.B) {
		for b.Loop() {
			if _, err := p.load("data.total > 1"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
