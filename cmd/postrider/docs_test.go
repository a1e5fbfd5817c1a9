package main

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/postrider/postrider/control"
)

// TestDocsNameWhatExists: the tests that the README puts beside its promises, and
// what the pages link to, are there.
func TestDocsNameWhatExists(t *testing.T) {
	root := filepath.Join("..", "..")
	exists := func(page, path string) {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s names what is not there: %v", page, err)
		}
	}
	named := regexp.MustCompile(`[a-z_0-9]+_test\.go`)
	link := regexp.MustCompile(`\]\(([^)#]+)(?:#[^)]*)?\)`)
	for page, text := range pages(t) {
		if filepath.Base(page) == "README.md" {
			tests := named.FindAllString(text, -1)
			if len(tests) == 0 {
				t.Error("the README names no test")
			}
			for _, name := range tests {
				exists(page, filepath.Join(root, "e2e", name))
			}
		}
		for _, to := range link.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(to[1], "://") {
				exists(page, filepath.Join(filepath.Dir(page), to[1]))
			}
		}
	}
}

// pages returns the texts for users, by path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("..", "..", "docs", "*.md"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no pages in docs: %v", err)
	}
	texts := map[string]string{}
	for _, path := range append(paths, filepath.Join("..", "..", "README.md"), filepath.Join("..", "..", "CONTRIBUTING.md")) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(text)
	}
	return texts
}

// TestDocsLinkToHeadings: what a link names within a page is a heading there.
func TestDocsLinkToHeadings(t *testing.T) {
	heading := regexp.MustCompile(`(?m)^#+ (.+)$`)
	dropped := regexp.MustCompile(`[^\w\- ]`)
	has := func(page, anchor string) bool {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Error(err)
		}
		for _, found := range heading.FindAllStringSubmatch(string(text), -1) {
			if strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(found[1]), ""), " ", "-") == anchor {
				return true
			}
		}
		return false
	}
	link := regexp.MustCompile(`\]\(([^):#]*)#([^)]+)\)`)
	for page, text := range pages(t) {
		for _, to := range link.FindAllStringSubmatch(text, -1) {
			target := page
			if to[1] != "" {
				target = filepath.Join(filepath.Dir(page), to[1])
			}
			if !has(target, to[2]) {
				t.Errorf("%s links to %s#%s, which is no heading", page, target, to[2])
			}
		}
	}
}

// allFlags returns the flags of a command and of those below it.
func allFlags(node *kong.Node) (names []string) {
	for _, f := range node.Flags {
		names = append(names, f.Name)
	}
	for _, child := range node.Children {
		names = append(names, allFlags(child)...)
	}
	return names
}

// TestDocsNameFlags: a flag or a setting that the pages name is one.
func TestDocsNameFlags(t *testing.T) {
	parser, err := newParser(streams{strings.NewReader(""), io.Discard, io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{
		"json": true, "data-binary": true, "wait": true, // of curl and docker
		"reset-offsets": true, "to-offset": true, "to-earliest": true, "to-latest": true, // of Kafka's tools
	}
	for _, name := range allFlags(parser.Model.Node) {
		known[name] = true
	}
	for path, text := range pages(t) {
		patterns := []string{"(?:^|[^-\\w])--([a-z][a-z0-9-]+)"}
		if filepath.Base(path) == "configuration.md" {
			patterns = append(patterns, "(?m)^\\| `([a-z0-9-]+)` \\|")
		}
		for _, pattern := range patterns {
			for _, found := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
				if !known[found[1]] {
					t.Errorf("%s names the flag --%s, which no command has", path, found[1])
				}
			}
		}
	}
}

// jsonNames adds the names of all members of a JSON object of this type.
func jsonNames(of reflect.Type, into map[string]bool) {
	switch of.Kind() { //nolint:exhaustive // the others have no members
	case reflect.Pointer, reflect.Slice, reflect.Map:
		jsonNames(of.Elem(), into)
	case reflect.Struct:
		for field := range of.Fields() {
			if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
				into[name] = true
			}
			jsonNames(field.Type, into)
		}
	}
}

// TestDocsNameSettings: each setting of an endpoint is explained.
func TestDocsNameSettings(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "delivery.md"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	jsonNames(reflect.TypeFor[control.EndpointSettings](), names)
	if !names["rate_limit"] || !names["client_key"] {
		t.Fatalf("found the settings %v only", names)
	}
	for name := range names {
		if !regexp.MustCompile("`[^`\n]*\\b" + name + "\\b[^`\n]*`").Match(text) {
			t.Errorf("delivery.md does not name the setting %s", name)
		}
	}
}

// TestDocsNameMetrics: the metrics that the pages name are made somewhere.
func TestDocsNameMetrics(t *testing.T) {
	made := map[string]bool{}
	for _, folder := range []string{"ingest", "fanout", "deliver", "deliver/wheel", "control", "internal/telemetry", "cmd/postrider"} {
		sources, err := filepath.Glob(filepath.Join("..", "..", folder, "*.go"))
		if err != nil || len(sources) == 0 {
			t.Fatalf("no sources in %s: %v", folder, err)
		}
		for _, source := range sources {
			text, err := os.ReadFile(source)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range regexp.MustCompile(`"(postrider\.[a-z_.]+)"`).FindAllStringSubmatch(string(text), -1) {
				made[strings.ReplaceAll(found[1], ".", "_")] = true
			}
		}
	}
	for path, text := range pages(t) {
		for _, name := range regexp.MustCompile(`\bpostrider_[a-z_]+`).FindAllString(text, -1) {
			bare := strings.TrimSuffix(name, "_total")
			if !made[name] && !made[bare] && !made[strings.TrimSuffix(bare, "_seconds")] && !made[strings.TrimSuffix(bare, "_bytes")] {
				t.Errorf("%s names the metric %s, which nobody makes", path, name)
			}
		}
	}
}
