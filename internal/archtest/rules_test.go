package archtest

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const testModule = "example.test/gateway"

func importing(pkg string, paths ...string) string {
	var source strings.Builder
	fmt.Fprintf(&source, "// Package %s is one. It is two.\npackage %s\n", pkg, pkg)
	for _, importPath := range paths {
		fmt.Fprintf(&source, "import %q\n", importPath)
	}
	return source.String()
}

// ruleCase breaks one rule in a small module; files next to it that keep the
// rule must not show.
type ruleCase struct {
	rule  string
	files map[string]string
	want  []string // files, with the line where the rule knows it
}

func importCases() []ruleCase {
	const own = testModule + "/"
	return []ruleCase{
		{"roles never import each other", map[string]string{
			"fanout/a.go":      importing("fanout", own+"deliver"),
			"fanout/a_test.go": importing("fanout", own+"ingest/source"),
			"fanout/wide/b.go": importing("wide", own+"fanout", own+"schemas", own+"internal/match"),
			"cmd/gateway/c.go": importing("main", own+"deliver"),
		}, []string{"fanout/a.go", "fanout/a_test.go"}},
		{"only cmd imports roles", map[string]string{
			"e2e/a_test.go":    importing("e2e", own+"ingest"),
			"internal/x/b.go":  importing("x", own+"control"),
			"cmd/gateway/c.go": importing("main", own+"control", own+"ingest/source"),
			"control/d.go":     importing("control", own+"control/query"),
			"portal/e.go":      importing("portal", own+"controlling", "else.test/ingest"),
		}, []string{"e2e/a_test.go", "internal/x/b.go"}},
		{"schemas imports nothing of ours", map[string]string{
			"schemas/a.go":          importing("schemas", own+"internal/match"),
			"schemas/b_test.go":     importing("schemas", own+"internal/match"),
			"schemas/openapi/c.go":  importing("openapi", own+"schemas", "fmt"),
			"schemas/openapi/d.go":  importing("openapi", own+"portal"),
			"internal/schemas/e.go": importing("schemas", own+"internal/match"),
		}, []string{"schemas/a.go", "schemas/openapi/d.go"}},
		{"internal imports only schemas and internal", map[string]string{
			"internal/x/a.go":      importing("x", own+"portal"),
			"internal/x/a_test.go": importing("x", own+"e2e"),
			"internal/x/b.go":      importing("x", own+"schemas", own+"internal/y", "fmt"),
		}, []string{"internal/x/a.go", "internal/x/a_test.go"}},
		{"fiber stays at the edge", map[string]string{
			"internal/x/a.go":  importing("x", "github.com/gofiber/fiber/v2"),
			"deliver/b.go":     importing("deliver", "github.com/gofiber/fiber/v3/middleware/adaptor"),
			"ingest/c.go":      importing("ingest", "github.com/gofiber/fiber/v2"),
			"control/d.go":     importing("control", "github.com/gofiber/fiber/v2"),
			"cmd/gateway/e.go": importing("main", "github.com/gofiber/fiber/v2"),
		}, []string{"deliver/b.go", "internal/x/a.go"}},
		{"huma's Fiber adapter stays at the edge", map[string]string{
			"fanout/a.go":  importing("fanout", "github.com/danielgtaylor/huma/v2/adapters/humafiber"),
			"control/b.go": importing("control", "github.com/danielgtaylor/huma/v2/adapters/humafiber"),
		}, []string{"fanout/a.go"}},
		{"kfake stays in internal/broker", map[string]string{
			"fanout/a_test.go":     importing("fanout", "github.com/twmb/franz-go/pkg/kfake"),
			"internal/broker/b.go": importing("broker", "github.com/twmb/franz-go/pkg/kfake"),
			"internal/brokers/c.go": importing("brokers",
				"github.com/twmb/franz-go/pkg/kfake"),
		}, []string{"fanout/a_test.go", "internal/brokers/c.go"}},
	}
}

func clientCases() []ruleCase {
	httpUse := func(local, body string) string {
		return "package x\nimport " + local + " \"net/http\"\n" + body
	}
	return []ruleCase{
		{"outbound HTTP goes through internal/egress", map[string]string{
			"control/a.go":         httpUse("", "var c http.Client"),
			"control/b.go":         httpUse("web", "var c = web.DefaultClient"),
			"control/c.go":         httpUse(".", "var c Client"),
			"control/d.go":         httpUse("", "func f() {\n_, _ = http.Get(\"\")\n}"),
			"control/e.go":         httpUse("", "var h http.Handler"),
			"control/f.go":         "package x\nimport \"github.com/valyala/fasthttp\"\nvar c fasthttp.HostClient",
			"control/g.go":         "package x\nimport \"github.com/gofiber/fiber/v2\"\nvar c = fiber.AcquireAgent()",
			"control/h.go":         "package x\nvar http struct{ Client int }\nvar c = http.Client",
			"control/a_test.go":    httpUse("", "var c http.Client"),
			"internal/egress/a.go": httpUse("", "var c http.Transport"),
			"cmd/gateway/a.go":     httpUse("", "var c http.Client"),
			"bench/load/a.go":      httpUse("", "var c http.Client"),
		}, []string{"control/a.go:3", "control/b.go:3", "control/c.go", "control/d.go:4", "control/f.go:3", "control/g.go:3"}},
	}
}

func shapeCases() []ruleCase {
	longBody := strings.Repeat("\tprintln()\n", maxFunctionLines-2)
	return []ruleCase{
		{"every package has a doc", map[string]string{
			"internal/x/a.go":      "package x",
			"internal/x/a_test.go": "// Package x has its doc in the wrong place.\npackage x",
			"internal/y/a.go":      "package y",
			"internal/y/doc.go":    "// Package y is a tool.\npackage y",
			"e2e/a_test.go":        "// Package e2e has tests only.\npackage e2e",
			"bench/a_test.go":      "package bench",
			"deliver/a.go":         "// Package deliver\n// delivers.\npackage deliver",
			"deliver/wheel/a.go":   "// Package wheel turns.\npackage wheel",
			"fanout/a.go":          "// Package fanout fans out.\n//\n// In: events.\npackage fanout",
		}, []string{"bench", "deliver", "internal/x"}},
		{"files are short", map[string]string{
			"control/a.go":      "package x" + strings.Repeat("\n", maxFileLines+1),
			"control/b.go":      "package x" + strings.Repeat("\n", maxFileLines),
			"control/a_test.go": "package x" + strings.Repeat("\n", maxFileLines+1),
			"control/c.go":      "// Code generated by x. DO NOT EDIT.\npackage x" + strings.Repeat("\n", maxFileLines),
		}, []string{"control/a.go"}},
		{"functions are short", map[string]string{
			"control/a.go":      "package x\nfunc f() {\n" + longBody + "\tprintln()\n}",
			"control/b.go":      "package x\nfunc f() {\n" + longBody + "}",
			"control/a_test.go": "package x\nfunc f() {\n" + longBody + "\tprintln()\n}",
		}, []string{"control/a.go:2"}},
		{"no init", map[string]string{
			"control/a.go":      "package x\nfunc init() {}",
			"control/a_test.go": "package x\n\nfunc init() {}",
			"control/b.go":      "package x\ntype t int\nfunc (t) init() {}\nfunc initial() {}",
		}, []string{"control/a.go:2", "control/a_test.go:3"}},
		{"packages say what they do", map[string]string{
			"internal/util/a.go":   "package other",
			"internal/util/b.go":   "package other",
			"internal/x/a.go":      "package helpers",
			"internal/y/a_test.go": "package models_test",
			"internal/z/a.go":      "package utility",
			"internal/types.go":    "package internal",
		}, []string{"internal/util", "internal/x", "internal/y"}},
	}
}

// TestRules runs the case of every rule; a rule without one fails.
func TestRules(t *testing.T) {
	cases := slices.Concat(importCases(), clientCases(), shapeCases())
	var known, tested []string
	for _, rule := range rules() {
		known = append(known, rule.name)
	}
	for _, tc := range cases {
		tested = append(tested, tc.rule)
		t.Run(tc.rule, func(t *testing.T) {
			got := check(t, tc.rule, tc.files)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("breaches (-want +got):\n%s", diff)
			}
		})
	}
	if diff := cmp.Diff(known, tested); diff != "" {
		t.Errorf("rules and their cases (-rules +cases):\n%s", diff)
	}
}

// check returns the places that the rule complains about, sorted.
func check(t *testing.T, name string, sources map[string]string) []string {
	t.Helper()
	m := &module{name: testModule}
	for path, source := range sources {
		f, err := parse(path, []byte(source))
		if err != nil {
			t.Fatal(err)
		}
		m.files = append(m.files, f)
	}
	for _, rule := range rules() {
		if rule.name != name {
			continue
		}
		var places []string
		for _, breach := range rule.check(m) {
			place, _, _ := strings.Cut(breach, ": ")
			places = append(places, place)
		}
		sort.Strings(places)
		return places
	}
	t.Fatalf("no rule %q", name)
	return nil
}

func TestSkippedFolders(t *testing.T) {
	for dir, want := range map[string]bool{
		".git": true, "deliver/testdata": true, "portal/node_modules": true, "_old": true,
		"deliver": false, "cmd": false, "internal/telemetry": false,
	} {
		if got := skipped(dir); got != want {
			t.Errorf("skipped(%q) = %v, want %v", dir, got, want)
		}
	}
}
