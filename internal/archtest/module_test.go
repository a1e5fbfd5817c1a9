package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// file is one parsed Go file.
type file struct {
	path    string // from the module's root, with slashes
	fset    *token.FileSet
	syntax  *ast.File
	lines   int
	imports map[string]string // path → local name ("" if not renamed)
}

// module is all Go files of a module.
type module struct {
	name  string // as in go.mod
	files []*file
}

func (f *file) dir() string { return path.Dir(f.path) }
func (f *file) test() bool  { return strings.HasSuffix(f.path, "_test.go") }
func (f *file) top() string { first, _, _ := strings.Cut(f.path, "/"); return first }
func (f *file) prod() bool  { return !f.test() && !ast.IsGenerated(f.syntax) }
func (f *file) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.path, f.fset.Position(n.Pos()).Line)
}

// under reports whether the file is in the folder or below it.
func (f *file) under(folder string) bool { return strings.HasPrefix(f.path, folder+"/") }

// ours returns an import path without the module's name, and whether it is one
// of the module's packages.
func (m *module) ours(importPath string) (string, bool) {
	return strings.CutPrefix(importPath, m.name+"/")
}

func parse(name string, source []byte) (*file, error) {
	fset := token.NewFileSet()
	syntax, err := parser.ParseFile(fset, name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	f := &file{path: name, fset: fset, syntax: syntax, imports: map[string]string{}}
	f.lines = strings.Count(string(source), "\n")
	for _, spec := range syntax.Imports {
		importPath, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("import in %s: %w", name, err)
		}
		local := ""
		if spec.Name != nil {
			local = spec.Name.Name
		}
		f.imports[importPath] = local
	}
	return f, nil
}

// load parses the module that holds the working directory.
func load() (*module, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the module: %w", err)
	}
	for !exists(filepath.Join(root, "go.mod")) {
		parent := filepath.Dir(root)
		if parent == root {
			return nil, fmt.Errorf("find the module: %w", fs.ErrNotExist)
		}
		root = parent
	}
	name, err := moduleName(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	m := &module{name: name}
	return m, fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name != "." && skipped(name) || name != "." && exists(filepath.Join(root, name, "go.mod")) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		source, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		f, err := parse(name, source)
		m.files = append(m.files, f)
		return err
	})
}

// skipped reports whether a folder is none of the module's packages.
func skipped(dir string) bool {
	base := path.Base(dir)
	switch base {
	case "testdata", "vendor", "node_modules":
		return true
	}
	return strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func moduleName(gomod string) (string, error) {
	source, err := os.ReadFile(gomod)
	if err != nil {
		return "", fmt.Errorf("read the module's name: %w", err)
	}
	for line := range strings.Lines(string(source)) {
		if name, ok := strings.CutPrefix(line, "module "); ok {
			return strings.TrimSpace(name), nil
		}
	}
	return "", fmt.Errorf("%s names no module", gomod)
}

// TestModule holds every rule over every file.
func TestModule(t *testing.T) {
	m, err := load()
	if err != nil {
		t.Fatal(err)
	}
	self := false
	for _, f := range m.files {
		self = self || f.path == "internal/archtest/module_test.go"
	}
	if !self {
		t.Fatalf("the walk missed this very file among %d", len(m.files))
	}
	for _, rule := range rules() {
		t.Run(rule.name, func(t *testing.T) {
			for _, breach := range rule.check(m) {
				t.Error(breach)
			}
		})
	}
}
