package match

import (
	"testing"
)

// newPrograms returns a cache with the limits, failing the test if that is impossible.
func newPrograms(tb testing.TB, cfg Config) *Programs {
	tb.Helper()
	p, err := NewPrograms(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// compileSet compiles subscriptions that must be without errors.
func compileSet(tb testing.TB, p *Programs, subs ...Subscription) *Set {
	tb.Helper()
	set, errs := Compile(subs, p)
	if len(errs) > 0 {
		tb.Fatal(errs)
	}
	return set
}

// order is an event that most tests use.
func order() *Input {
	return &Input{
		Type: "order.paid", Source: "/shop", Subject: "order/7", ID: "e1",
		Time: "2026-03-04T05:06:07Z", DataContentType: "application/json",
		Tenant: "acme", PartitionKey: "7",
		Extensions: map[string]string{"region": "eu"},
		Data:       []byte(`{"total": 120.5, "lines": [{"sku": "a", "n": 2}, {"sku": "b", "n": 1}], "paid": true}`),
	}
}

// judge evaluates one filter on one event.
func judge(tb testing.TB, p *Programs, expr string, ev *Input) (Reason, string) {
	tb.Helper()
	set := compileSet(tb, p, Subscription{ID: "s", EndpointID: "e", Types: []string{"*"}, Filter: expr})
	var out Result
	set.Match(ev, nil, &out)
	if len(out.Rejections) == 0 {
		return "", ""
	}
	return out.Rejections[0].Reason, out.Rejections[0].Detail
}
