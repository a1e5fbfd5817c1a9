package archtest

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"sort"
	"strings"
)

// rule finds breaches of one law; each names file, line where there is one, and
// what is wrong.
type rule struct {
	name  string
	check func(*module) []string
}

func rules() []rule {
	return []rule{
		{"roles never import each other", rolesApart},
		{"only cmd imports roles", onlyCmdImportsRoles},
		{"schemas imports nothing of ours", schemasAlone},
		{"internal imports only schemas and internal", internalBelow},
		{"fiber stays at the edge", only("github.com/gofiber/fiber", "ingest", "control", "internal/httpd", "cmd")},
		{"huma's Fiber adapter stays at the edge", only("github.com/danielgtaylor/huma/v2/adapters/humafiber", "ingest", "control", "internal/httpd", "cmd")},
		{"kfake stays in internal/broker", only("github.com/twmb/franz-go/pkg/kfake", "internal/broker")},
		{"outbound HTTP goes through internal/egress", guardedClients},
		{"every package has a doc", packageDocs},
		{"files are short", shortFiles},
		{"functions are short", shortFunctions},
		{"no init", noInit},
		{"packages say what they do", noCatchAlls},
	}
}

// roles are the four stages; each is one folder.
func roles() []string { return []string{"ingest", "fanout", "deliver", "control"} }

func isRole(importPath string) (string, bool) {
	top, _, _ := strings.Cut(importPath, "/")
	return top, slices.Contains(roles(), top)
}

// sorted returns the import paths of a file in order, so that reports are stable.
func (f *file) sorted() []string {
	paths := make([]string, 0, len(f.imports))
	for importPath := range f.imports {
		paths = append(paths, importPath)
	}
	sort.Strings(paths)
	return paths
}

// eachOwnImport calls visit for the imports of the module's own packages.
func eachOwnImport(m *module, visit func(f *file, imported string)) {
	for _, f := range m.files {
		for _, importPath := range f.sorted() {
			if imported, ours := m.ours(importPath); ours {
				visit(f, imported)
			}
		}
	}
}

func rolesApart(m *module) (breaches []string) {
	eachOwnImport(m, func(f *file, imported string) {
		role, ok := isRole(imported)
		if _, inRole := isRole(f.path); ok && inRole && f.top() != role {
			breaches = append(breaches, fmt.Sprintf("%s: %s imports %s: roles meet in schemas and internal", f.path, f.top(), imported))
		}
	})
	return breaches
}

// onlyCmdImportsRoles leaves the roles themselves to rolesApart. Tests are no
// exception: e2e and bench drive the binary from outside.
func onlyCmdImportsRoles(m *module) (breaches []string) {
	eachOwnImport(m, func(f *file, imported string) {
		_, ok := isRole(imported)
		if _, inRole := isRole(f.path); ok && !inRole && !f.under("cmd") {
			breaches = append(breaches, fmt.Sprintf("%s: imports the role %s", f.path, imported))
		}
	})
	return breaches
}

func schemasAlone(m *module) (breaches []string) {
	eachOwnImport(m, func(f *file, imported string) {
		if f.under("schemas") && !f.test() && !within(imported, "schemas") {
			breaches = append(breaches, fmt.Sprintf("%s: schemas imports %s", f.path, imported))
		}
	})
	return breaches
}

func internalBelow(m *module) (breaches []string) {
	eachOwnImport(m, func(f *file, imported string) {
		if f.under("internal") && !within(imported, "internal") && !within(imported, "schemas") {
			breaches = append(breaches, fmt.Sprintf("%s: internal imports %s", f.path, imported))
		}
	})
	return breaches
}

// only lets the files of some folders import a library, all its packages and
// major versions, and nobody else.
func only(library string, folders ...string) func(*module) []string {
	return func(m *module) (breaches []string) {
		for _, f := range m.files {
			if slices.ContainsFunc(folders, f.under) {
				continue
			}
			for _, importPath := range f.sorted() {
				if within(importPath, library) {
					breaches = append(breaches, fmt.Sprintf("%s: imports %s, which is for %s", f.path, importPath, strings.Join(folders, ", ")))
				}
			}
		}
		return breaches
	}
}

func within(importPath, parent string) bool {
	return importPath == parent || strings.HasPrefix(importPath, parent+"/")
}

// clientNames are the names that make an HTTP request without the check of
// addresses, by import path.
func clientNames() map[string][]string {
	return map[string][]string{
		"net/http": {
			"Client", "DefaultClient", "Transport", "DefaultTransport",
			"Get", "Head", "Post", "PostForm",
		},
		"github.com/valyala/fasthttp": {
			"Client", "HostClient", "PipelineClient", "LBClient",
			"Get", "GetTimeout", "GetDeadline", "Post", "Do", "DoTimeout", "DoDeadline", "DoRedirects", "Dial",
		},
		"github.com/gofiber/fiber/v2": {"AcquireClient", "AcquireAgent", "Client"},
	}
}

// guardedClients lets nobody but internal/egress make HTTP requests. Exempt are
// the CLI, which talks to a gateway that its user names, and what is no part
// of a running gateway: tests, e2e and bench.
func guardedClients(m *module) (breaches []string) {
	for _, f := range m.files {
		if f.test() || slices.ContainsFunc([]string{"internal/egress", "cmd", "e2e", "bench"}, f.under) {
			continue
		}
		for library, names := range clientNames() {
			local, imported := f.imports[library]
			switch {
			case !imported:
				continue
			case local == ".":
				breaches = append(breaches, fmt.Sprintf("%s: imports %s with a dot, which hides its clients", f.path, library))
				continue
			case local == "":
				local = packageName(library)
			}
			ast.Inspect(f.syntax, func(n ast.Node) bool {
				selector, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if from, ok := selector.X.(*ast.Ident); ok && from.Name == local && slices.Contains(names, selector.Sel.Name) {
					breaches = append(breaches, fmt.Sprintf("%s: %s.%s: requests leave through internal/egress", f.at(n), local, selector.Sel.Name))
				}
				return true
			})
		}
	}
	return breaches
}

// packageName is the last element of an import path that is no major version.
func packageName(importPath string) string {
	name := path.Base(importPath)
	if strings.HasPrefix(name, "v") && strings.Trim(name[1:], "0123456789") == "" {
		name = path.Base(path.Dir(importPath))
	}
	return name
}
