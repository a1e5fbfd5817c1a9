package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocsNameWhatExists: the tests that the README puts beside its promises, and
// what the pages link to, are there.
func TestDocsNameWhatExists(t *testing.T) {
	root := filepath.Join("..", "..")
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages in docs: %v", err)
	}
	exists := func(page, path string) {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s names what is not there: %v", page, err)
		}
	}
	named := regexp.MustCompile(`[a-z_0-9]+_test\.go`)
	link := regexp.MustCompile(`\]\(([^)#]+)(?:#[^)]*)?\)`)
	for _, page := range append(pages, filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md")) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(page) == "README.md" {
			tests := named.FindAllString(string(text), -1)
			if len(tests) == 0 {
				t.Error("the README names no test")
			}
			for _, name := range tests {
				exists(page, filepath.Join(root, "e2e", name))
			}
		}
		for _, to := range link.FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(to[1], "://") {
				exists(page, filepath.Join(filepath.Dir(page), to[1]))
			}
		}
	}
}
