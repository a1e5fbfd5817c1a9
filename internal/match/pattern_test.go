package match

import (
	"strings"
	"testing"
)

func TestCheckPattern(t *testing.T) {
	tests := []struct{ pattern, want string }{
		{"*", ""},
		{"order", ""},
		{"order.paid", ""},
		{"order.*", ""},
		{"com.example:Order_paid/v1-a.*", ""},
		{strings.Repeat("x", MaxPattern), ""},
		{"", "empty"},
		{strings.Repeat("x", MaxPattern+1), "at most 255"},
		{"**", "only allowed alone"},
		{"order*", "only allowed alone"},
		{"*.paid", "only allowed alone"},
		{"order.*.paid", "only allowed alone"},
		{"order.*.*", "only allowed alone"},
		{".*", "empty segment"},
		{".order", "empty segment"},
		{"order.", "empty segment"},
		{"order..paid", "empty segment"},
		{"order..*", "empty segment"},
		{"order paid", "not allowed"},
		{"order.päid", "not allowed"},
		{"order\x00", "not allowed"},
	}
	for _, tt := range tests {
		err := CheckPattern(tt.pattern)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("CheckPattern(%q) = %v, want %q", tt.pattern, err, tt.want)
		}
	}
}

func TestPatterns(t *testing.T) {
	p := newPrograms(t, Config{})
	tests := []struct {
		pattern  string
		yes, not []string
	}{
		{"*", []string{"order", "order.paid", ".", ""}, nil},
		{"order", []string{"order"}, []string{"order.paid", "orders", "Order", ""}},
		{"order.*", []string{"order.paid", "order.paid.eu", "order.", "order..x"}, []string{"order", "orders.x", "x.order.y", ""}},
		{"order.paid.*", []string{"order.paid.eu"}, []string{"order.paid", "order.x.eu", "order.paidx.eu"}},
	}
	for _, tt := range tests {
		set := compileSet(t, p, Subscription{ID: "s", EndpointID: "e", Types: []string{tt.pattern}})
		var out Result
		for want, types := range map[int][]string{1: tt.yes, 0: tt.not} {
			for _, typ := range types {
				set.Match(&Input{Type: typ}, nil, &out)
				if len(out.Matches) != want {
					t.Errorf("%q on %q: %d matches, want %d", tt.pattern, typ, len(out.Matches), want)
				}
				if got := matchesType(tt.pattern, typ); got != (want == 1) {
					t.Errorf("matchesType(%q, %q) = %t", tt.pattern, typ, got)
				}
			}
		}
	}
}
