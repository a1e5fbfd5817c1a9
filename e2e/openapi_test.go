package e2e

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// (B) The OpenAPI document can be had without a key; its schemas are valid, its
// references lead somewhere, and its operations answer.
func TestOpenAPIDocument(t *testing.T) {
	g := newGateway(t)
	g.start("control", "control-1")
	g.ready("control-1")
	got, err := g.call("control-1", "GET", "/openapi.json", http.Header{"Authorization": nil}, nil)
	if err != nil || got.status != http.StatusOK || got.header.Get("Content-Type") != "application/openapi+json" {
		t.Fatalf("%d %s, %v", got.status, got.header.Get("Content-Type"), err)
	}
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(got.body))
	if err != nil {
		t.Fatal(err)
	}
	doc := root.(map[string]any)
	if doc["openapi"] != "3.1.0" {
		t.Errorf("openapi %v", doc["openapi"])
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	if err := compiler.AddResource("openapi.json", root); err != nil {
		t.Fatal(err)
	}
	schemas := doc["components"].(map[string]any)["schemas"].(map[string]any)
	for name := range schemas {
		if _, err := compiler.Compile("openapi.json#/components/schemas/" + name); err != nil {
			t.Errorf("schema %s: %v", name, err)
		}
	}
	for _, part := range strings.Split(string(got.body), `"$ref":"`)[1:] {
		ref, _, _ := strings.Cut(part, `"`)
		if name, ok := strings.CutPrefix(ref, "#/components/schemas/"); !ok || schemas[name] == nil {
			t.Errorf("reference %s leads nowhere", ref)
		}
	}
	operations := 0
	for path, item := range doc["paths"].(map[string]any) {
		path = strings.NewReplacer("{", "", "}", "").Replace(path)
		for method, operation := range item.(map[string]any) {
			operations++
			_, public := operation.(map[string]any)["security"] // only what needs no key says so
			got, err := g.call("control-1", strings.ToUpper(method), path, http.Header{"Authorization": {"Bearer nope"}}, nil)
			ticketed := path == "/v1/events/event" // asks for a token of its own
			if err != nil || (public && !ticketed) == (got.status == http.StatusUnauthorized) || public != (ticketed || path == "/.well-known/webhook-keys.json") {
				t.Errorf("%s %s with a wrong key: %d, %v", method, path, got.status, err)
			}
		}
	}
	if operations == 0 {
		t.Error("the document has no operations")
	}
}
