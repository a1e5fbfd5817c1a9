package ingest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// many returns n members, each after a comma.
func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"a%x":"b"`, i)
	}
	return b.String()
}

func TestMembersOfOneEvent(t *testing.T) {
	g := start(t, Config{}, Deps{})
	binary := func(n int) headers {
		h := headers{"Content-Type", "text/plain", "ce-specversion", "1.0", "ce-id", "1", "ce-source", "/s", "ce-type", "a"}
		for i := range n {
			h = append(h, fmt.Sprintf("ce-a%x", i), "b")
		}
		return h
	}
	structured := headers{"Content-Type", "application/cloudevents+json"}
	plain := headers{"Content-Type", "application/json"}
	event := `{"specversion":"1.0","id":"1","source":"/s","type":"a","subject":"s","time":"2026-01-02T03:04:05Z",` +
		`"datacontenttype":"application/json","dataschema":"/d","data":1,"tenant":"acme","partitionkey":"p",` +
		`"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":"a=b"`
	for name, tt := range map[string]struct {
		body    string
		h       headers
		status  int
		pointer string
	}{
		"structured, all":  {event + many(schemas.MaxExtensions) + "}", structured, 202, ""},
		"structured, more": {event + many(schemas.MaxExtensions+1) + "}", structured, 422, ""},
		"structured, many": {event + many(100_000) + "}", structured, 422, ""},
		"batch, many":      {"[" + event + many(100_000) + "}]", headers{"Content-Type", "application/cloudevents-batch+json"}, 207, "/0"},
		"plain, all":       {`{"type":"a","extensions":{` + many(schemas.MaxExtensions)[1:] + "}}", plain, 202, ""},
		"plain, more":      {`{"type":"a","extensions":{` + many(schemas.MaxExtensions + 1)[1:] + "}}", plain, 422, "/extensions"},
		"plain, many":      {`{"type":"a","extensions":{` + many(100_000)[1:] + "}}", plain, 422, "/extensions"},
		"plain, unknown":   {`{"type":"a"` + many(100_000) + `,"specversion":"1.0"}`, plain, 422, "/a0"},
		"binary, all":      {"data", binary(schemas.MaxExtensions), 202, ""},
		"binary, more":     {"data", binary(schemas.MaxExtensions + 1), 422, ""},
		"binary, many":     {"data", binary(4000), 422, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := g.post(t, tt.body, tt.h)
			p := got.Problem
			if got.status == http.StatusMultiStatus {
				p = *got.Results[0].Problem
			}
			if got.status != tt.status || tt.status != 202 && (p.Code != CodeInvalidEvent || len(p.Errors) != 1 || p.Errors[0].Pointer != tt.pointer) {
				t.Errorf("status %d: %.300s", got.status, got.raw)
			}
		})
	}
}

// What is beyond the bound costs nothing: neither a map nor names.
func TestManyMembersAreNotKept(t *testing.T) {
	docs := map[string][]byte{
		"structured": []byte(`{"specversion":"1.0"` + many(100_000) + "}"),
		"plain":      []byte(`{"type":"a","extensions":{` + many(100_000)[1:] + "}}"),
		"unknown":    []byte(`{"type":"a"` + many(100_000) + "}"),
	}
	for name, doc := range docs {
		n := testing.AllocsPerRun(1, func() {
			var it item
			if it.read(doc, name == "structured"); it.problem == nil {
				t.Error(name, "was taken")
			}
		})
		if n > 1000 {
			t.Errorf("%s: %.0f allocations", name, n)
		}
	}
}

// A member that is given twice is named, but not in its full length.
func TestLongNamesAreNotAnswered(t *testing.T) {
	g := start(t, Config{}, Deps{})
	long := strings.Repeat("x", 100_000)
	for media, body := range map[string]string{
		"application/cloudevents+json": `{"` + long + `":1,"` + long + `":1}`,
		"application/json":             `{"type":"a","extensions":{"` + long + `":1,"` + long + `":1}}`,
	} {
		if got := g.post(t, body, headers{"Content-Type", media}); got.status != 422 || len(got.raw) > 2000 {
			t.Errorf("%s: status %d, %d bytes", media, got.status, len(got.raw))
		}
	}
}

// One deadline holds for the look-ups of all tenants of a request.
func TestLookupsHaveOneDeadline(t *testing.T) {
	g := start(t, Config{AckTimeout: 50 * time.Millisecond}, Deps{})
	g.post(t, `{"type":"a"}`, headers{"Content-Type", "application/json", "Authorization", "Bearer " + g.platform}) // the key is known
	over := make(chan struct{})
	defer close(over)
	g.view.mu.Lock()
	g.view.hang = func(ctx context.Context, ref registry.Ref) {
		if ref.Entity != registry.TenantEntity {
			return
		}
		select {
		case <-ctx.Done():
		case <-over:
		}
	}
	g.view.mu.Unlock()
	var body strings.Builder
	for i := range 20 {
		fmt.Fprintf(&body, `{"type":"a","tenant":"t%d"}`+"\n", i)
	}
	got := g.post(t, body.String(), headers{"Content-Type", "application/x-ndjson", "Authorization", "Bearer " + g.platform})
	if got.status != 503 || got.Code != CodeRegistryUnavailable || len(got.Results) != 20 || got.header.Get("Retry-After") == "" {
		t.Errorf("status %d, code %s, %d results", got.status, got.Code, len(got.Results))
	}
	g.view.mu.Lock()
	defer g.view.mu.Unlock()
	asked := 0
	for ref, n := range g.view.asked {
		if strings.HasPrefix(ref.Tenant, "t") {
			asked += n
		}
	}
	if asked > 1 {
		t.Errorf("%d tenants were asked for, the first took all the time", asked)
	}
}
