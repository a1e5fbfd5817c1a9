package control

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "write the golden files")

func contains(doc []byte, text string) bool { return bytes.Contains(doc, []byte(text)) }

func (r *rig) document() []byte {
	r.t.Helper()
	q, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url+"/openapi.json", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := r.http.Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	doc, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || ct != "application/openapi+json" {
		r.t.Errorf("status %d, content type %q", resp.StatusCode, ct)
	}
	return doc
}

// TestOpenAPI compares the document with testdata/openapi.json (-update writes
// it) and checks that it is whole: references resolve, schemas are JSON Schema
// 2020-12, operations are named, parameters of paths declared.
func TestOpenAPI(t *testing.T) {
	doc := newRig(t).document()
	golden := filepath.Join("testdata", "openapi.json")
	if *update {
		if err := os.MkdirAll("testdata", 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, append(doc, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSpace(string(want)), strings.TrimSpace(string(doc))); diff != "" {
		t.Errorf("document (-want +got), go test -update if it is meant:\n%s", diff)
	}
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	if err := compiler.AddResource("openapi.json", root); err != nil {
		t.Fatal(err)
	}
	api := root.(map[string]any)
	if api["openapi"] != "3.1.0" {
		t.Errorf("openapi %v", api["openapi"])
	}
	schemas := api["components"].(map[string]any)["schemas"].(map[string]any)
	for name := range schemas {
		if _, err := compiler.Compile("openapi.json#/components/schemas/" + name); err != nil {
			t.Errorf("schema %s: %v", name, err)
		}
	}
	refs(root, func(ref string) {
		if name, ok := strings.CutPrefix(ref, schemaPrefix); !ok || schemas[name] == nil {
			t.Errorf("reference %s leads nowhere", ref)
		}
	})
	seen := map[string]bool{}
	for path, item := range api["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			checkOperation(t, method+" "+path, op.(map[string]any), seen)
		}
	}
	if len(seen) != 31 {
		t.Errorf("%d operations", len(seen))
	}
}

func checkOperation(t *testing.T, name string, op map[string]any, seen map[string]bool) {
	t.Helper()
	id, _ := op["operationId"].(string)
	if id == "" || seen[id] || op["summary"] == "" {
		t.Errorf("%s: operationId %q, summary %q", name, id, op["summary"])
	}
	seen[id] = true
	responses := op["responses"].(map[string]any)
	problem, _ := json.Marshal(responses["default"])
	if len(responses) != 2 || !contains(problem, "application/problem+json") {
		t.Errorf("%s: responses %v", name, responses)
	}
	declared, _ := json.Marshal(op["parameters"])
	for part := range strings.SplitSeq(name, "/") {
		if param, ok := strings.CutPrefix(part, "{"); ok && !contains(declared, `"name":"`+strings.TrimSuffix(param, "}")+`"`) {
			t.Errorf("%s: %s is not declared", name, part)
		}
	}
}

// refs calls fn with every $ref in the document.
func refs(v any, fn func(string)) {
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			fn(ref)
		}
		for _, member := range v {
			refs(member, fn)
		}
	case []any:
		for _, element := range v {
			refs(element, fn)
		}
	}
}

// TestAnswersFitDocument checks real answers against the schemas that are
// published for them.
func TestAnswersFitDocument(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	_, path := r.endpoint(at)
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(r.document()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	if err := compiler.AddResource("openapi.json", root); err != nil {
		t.Fatal(err)
	}
	r.must(200, http.MethodPost, path+"/rotate-secret", nil)
	for p, schema := range map[string]string{
		at: "Tenant", "/v1/tenants": "PageTenant", path: "Endpoint", at + "/endpoints": "PageEndpoint",
		at + "/subscriptions": "PageSubscription", at + "/keys": "PageKey", path + "/secret": "SigningSecret", "/v1/seal-key": "SealKey",
		"/v1/tenants/nobody": "Problem",
	} {
		compiled, err := compiler.Compile("openapi.json#/components/schemas/" + schema)
		if err != nil {
			t.Fatal(err)
		}
		got := r.call(http.MethodGet, p, nil)
		if err := compiled.Validate(any(got.body)); err != nil {
			t.Errorf("GET %s: %v\n%s", p, err, got.raw)
		}
	}
}
