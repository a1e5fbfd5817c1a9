package match

import (
	"strings"
	"testing"
)

func TestFilters(t *testing.T) {
	p := newPrograms(t, Config{})
	tests := []struct {
		expr   string
		reason Reason
		detail string
	}{
		{`true`, "", ""},
		{`type == "order.paid" && source == "/shop" && subject.startsWith("order/")`, "", ""},
		{`id == "e1" && tenant == "acme" && partitionkey == "7" && datacontenttype.endsWith("json")`, "", ""},
		{`time > timestamp("2026-03-04T00:00:00Z") && time.getHours() == 5`, "", ""},
		{`time.getHours("Europe/Berlin") == 6`, "", ""},
		{`ext.region == "eu" && has(ext.region) && !has(ext.zone)`, "", ""},
		{`ext.zone == "a"`, ReasonFilterError, "no such key"},
		{`data.total > 100`, "", ""},
		{`data.total > 100.5 && data.total < 121u`, "", ""},
		{`data.lines[0].n == 2 && data.lines[1].n == 1.0`, "", ""},
		{`data.total > 121`, ReasonFiltered, ""},
		{`has(data.total) && !has(data.missing)`, "", ""},
		{`has(data.missing)`, ReasonFiltered, ""},
		{`data.missing == 1`, ReasonFilterError, "no such key: missing"},
		{`data.missing == 1 || data.paid == true`, "", ""},
		{`data.total == "120.5"`, ReasonFiltered, ""},
		{`data.total.startsWith("1")`, ReasonFilterError, "no such overload"},
		{`data.lines.exists(l, l.sku == "b")`, "", ""},
		{`data.lines.all(l, l.n > 1)`, ReasonFiltered, ""},
		{`data.lines.exists_one(l, l.n > 1) && data.lines.filter(l, l.n > 0).size() == 2`, "", ""},
		{`data.lines == [{"sku": "a", "n": 2}, {"sku": "b", "n": 1}]`, "", ""},
		{`data.lines != [{"sku": "a", "n": 2}]`, "", ""},
		{`{"sku": "a", "n": 2} in data.lines`, "", ""},
		{`data.lines[0].sku in ["a", "c"] && !("z" in ["a"]) && "total" in data`, "", ""},
		{`subject.matches("^order/[0-9]+$")`, "", ""},
		{`subject.matches("^x")`, ReasonFiltered, ""},
		{`matches(data.lines[0].sku, "a|b")`, "", ""},
		{`data.total.matches("1")`, ReasonFilterError, "no such overload"},
		{`subject.upperAscii() == "ORDER/7" && subject.split("/")[1].trim() == "7" && subject.substring(0, 5) == "order"`, "", ""},
		{`string(data.lines[0].sku) == "a" && int("7") == 7 && double(partitionkey) == 7.0`, "", ""},
		{`data.total / 0.0 > 1.0`, "", ""},
		{`1 / 0 == 1 || data.total < 0`, ReasonFilterError, "division by zero"},
	}
	for _, tt := range tests {
		t.Run(tt.expr, func(t *testing.T) {
			reason, detail := judge(t, p, tt.expr, order())
			if reason != tt.reason || !strings.Contains(detail, tt.detail) || (tt.detail == "") != (detail == "") {
				t.Errorf("got %q %q, want %q %q", reason, detail, tt.reason, tt.detail)
			}
		})
	}
}

func TestFilterOnOtherEvents(t *testing.T) {
	p := newPrograms(t, Config{})
	tests := []struct {
		name, expr, data, time string
		reason                 Reason
		detail                 string
	}{
		{"not JSON", `data.x == 1`, `<x/>`, "", ReasonFilterError, "data_not_json"},
		{"no data", `data.x == 1`, ``, "", ReasonFilterError, "data_not_json"},
		{"two values", `data == 1`, `1 2`, "", ReasonFilterError, "data_not_json"},
		{"too large a number", `data > 1`, `1e999`, "", ReasonFilterError, "data_not_json"},
		{"not JSON, not needed", `data.x == 1 || type == "order.paid"`, `<x/>`, "", "", ""},
		{"null", `data == null`, `null`, "", "", ""},
		{"list", `data[1] == 2`, `[1,2]`, "", "", ""},
		{"has on a list", `has(data.x)`, `[1,2]`, "", ReasonFilterError, "in list"},
		{"text", `data == "x"`, `"x"`, "", "", ""},
		{"no time", `time > timestamp("2026-01-01T00:00:00Z")`, `{}`, "", ReasonFilterError, "time_not_set"},
		{"bad time", `time > timestamp("2026-01-01T00:00:00Z")`, `{}`, "noon", ReasonFilterError, "time_not_set"},
		{"zone and fraction", `time == timestamp("2026-01-01T00:00:00.5Z")`, `{}`, "2026-01-01T01:00:00.5+01:00", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reason, detail := judge(t, p, tt.expr, &Input{Type: "order.paid", Data: []byte(tt.data), Time: tt.time})
			if reason != tt.reason || !strings.Contains(detail, tt.detail) {
				t.Errorf("got %q %q, want %q %q", reason, detail, tt.reason, tt.detail)
			}
		})
	}
}

func TestCheckFilter(t *testing.T) {
	nested := `ext.all(a, ext.all(b, ext.all(c, ext.all(d, a + b + c != d))))`
	p := newPrograms(t, Config{})
	tests := []struct{ name, expr, want string }{
		{"empty", ``, ""},
		{"plain", `data.total > 100`, ""},
		{"loop over data", `data.a.exists(x, data.b.exists(y, x == y))`, ""},
		{"longest", `type == "` + strings.Repeat("x", MaxFilter-10) + `"`, ""},
		{"blank", "  ", "blank"},
		{"too long", strings.Repeat("x", MaxFilter+1), "at most 2048"},
		{"syntax", `data.total >`, "Syntax error"},
		{"unknown name", `total > 100`, "undeclared reference to 'total'"},
		{"unknown function", `data.x.frobnicate()`, "undeclared reference to 'frobnicate'"},
		{"not bool", `type`, "must be bool"},
		{"dyn", `data.paid`, "must be bool"},
		{"wrong types", `type == 1`, "no matching overload"},
		{"map", `data.a.map(x, x)[0] == 1`, "undeclared reference"},
		{"join", `data.a.join(data.b) == ""`, "join() is not offered"},
		{"replace", `subject.replace("", type) == ""`, "replace() is not offered"},
		{"format", `"%s".format([data]) == ""`, "format() is not offered"},
		{"quote", `strings.quote(type) == ""`, "strings.quote() is not offered"},
		{"indexOf", `data.a.indexOf(data.b) == 1`, "indexOf() is not offered"},
		{"regexp from data", `type.matches(data.re)`, "must be a literal"},
		{"bad regexp", `type.matches("(")`, "invalid matches argument"},
		{"large regexp", `type.matches("(a{30}){30}b{200}")`, "regex program size"},
		{"zone from data", `time.getHours(data.tz) == 1`, "must be a literal"},
		{"message", `google.protobuf.Int64Value{value: 1} == 1`, "is not offered"},
		{"costly by its text", nested, "too costly"},
		{"deep", strings.Repeat("(", 1000) + "true" + strings.Repeat(")", 1000), "filter does not compile"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := p.CheckFilter(tt.expr)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("CheckFilter = %v, want %q", err, tt.want)
			}
		})
	}
	if err := CheckFilter(nested); err == nil {
		t.Error("package CheckFilter accepts a costly filter")
	}
	if err := CheckFilter(`data.total > 100`); err != nil {
		t.Errorf("package CheckFilter = %v", err)
	}
}

func FuzzCheckFilter(f *testing.F) {
	for _, s := range []string{
		`data.total > 100`, `data.a.exists(x, x in data.b)`, `type.matches("a+")`, `ext["x"] == "y"`,
		`[1,2].all(x, x > 0) ? has(data.x) : time.getHours("UTC") == 1`, `"\x00" + b"x"`,
	} {
		f.Add(s, `{"total": 1, "a": [1], "b": [[]]}`)
	}
	p := newPrograms(f, Config{})
	f.Fuzz(func(t *testing.T, expr, data string) {
		if expr == "" || p.CheckFilter(expr) != nil {
			return
		}
		// What is accepted compiles, ends within its limits and gives a known answer.
		set := compileSet(t, p, Subscription{ID: "s", EndpointID: "e", Types: []string{"*"}, Filter: expr})
		b := NewBudget(1_000_000)
		var out Result
		set.Match(&Input{Type: "t", Data: []byte(data)}, b, &out)
		if len(out.Matches)+len(out.Rejections) != 1 {
			t.Fatalf("%q: %+v", expr, out)
		}
		if b.Left() == 1_000_000 {
			t.Fatalf("%q was free", expr)
		}
	})
}
