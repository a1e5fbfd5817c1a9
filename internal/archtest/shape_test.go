package archtest

import (
	"fmt"
	"go/ast"
	"go/doc"
	"path"
	"slices"
	"sort"
	"strings"
)

const (
	maxFileLines     = 500
	maxFunctionLines = 80
)

// packageDocs wants a doc in each package's code (in its tests, if it has
// nothing else), and more than a sentence of it where the package is a stage.
func packageDocs(m *module) (breaches []string) {
	packages := map[string][]*file{}
	for _, f := range m.files {
		packages[f.dir()] = append(packages[f.dir()], f)
	}
	dirs := make([]string, 0, len(packages))
	for dir := range packages {
		dirs = append(dirs, dir)
	}
	sort.Strings(dirs)
	for _, dir := range dirs {
		files := packages[dir]
		if code := slices.DeleteFunc(slices.Clone(files), (*file).test); len(code) > 0 {
			files = code
		}
		var docs []string
		for _, f := range files {
			docs = append(docs, f.syntax.Doc.Text())
		}
		text := strings.Join(docs, "")
		switch {
		case strings.TrimSpace(text) == "":
			breaches = append(breaches, dir+": the package has no doc")
		case slices.Contains(roles(), dir) && oneSentence(text):
			breaches = append(breaches, dir+": the doc of a stage says in, out and promise, not one sentence")
		}
	}
	return breaches
}

func oneSentence(text string) bool {
	return new(doc.Package).Synopsis(text) == strings.Join(strings.Fields(text), " ")
}

func shortFiles(m *module) (breaches []string) {
	for _, f := range m.files {
		if f.prod() && f.lines > maxFileLines {
			breaches = append(breaches, fmt.Sprintf("%s: %d lines, more than %d", f.path, f.lines, maxFileLines))
		}
	}
	return breaches
}

func shortFunctions(m *module) (breaches []string) {
	eachFunction(m, func(f *file, fn *ast.FuncDecl) {
		lines := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line + 1
		if f.prod() && lines > maxFunctionLines {
			breaches = append(breaches, fmt.Sprintf("%s: %s has %d lines, more than %d", f.at(fn), fn.Name.Name, lines, maxFunctionLines))
		}
	})
	return breaches
}

func noInit(m *module) (breaches []string) {
	eachFunction(m, func(f *file, fn *ast.FuncDecl) {
		if fn.Recv == nil && fn.Name.Name == "init" && !ast.IsGenerated(f.syntax) {
			breaches = append(breaches, f.at(fn)+": init runs in everyone who imports this: call it from a constructor")
		}
	})
	return breaches
}

func eachFunction(m *module, visit func(*file, *ast.FuncDecl)) {
	for _, f := range m.files {
		for _, declaration := range f.syntax.Decls {
			if fn, ok := declaration.(*ast.FuncDecl); ok {
				visit(f, fn)
			}
		}
	}
}

// noCatchAlls refuses packages, by folder or by name, that are neither a verb
// nor a noun of ours.
func noCatchAlls(m *module) (breaches []string) {
	refused := []string{"util", "utils", "common", "models", "types", "helper", "helpers", "misc"}
	seen := map[string]bool{}
	for _, f := range m.files {
		name := strings.TrimSuffix(f.syntax.Name.Name, "_test")
		if seen[f.dir()] || !slices.Contains(refused, name) && !slices.Contains(refused, path.Base(f.dir())) {
			continue
		}
		seen[f.dir()] = true
		breaches = append(breaches, fmt.Sprintf("%s: a package named %s takes in everything", f.dir(), name))
	}
	return breaches
}
