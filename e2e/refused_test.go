package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

const (
	maxBody    = 1 << 20 // of ingest in this test, and of control always
	eventsPath = "/v1/events"
	plainType  = "application/json"
)

// refusal is a request and how it must be refused.
type refusal struct {
	name, path, body string
	header           []string
	status           int
	code             string
	pointer          string // "-": the answer points nowhere
	text             string // a part of the detail
	unsized          bool   // sent in chunks, without Content-Length
}

func packed(t *testing.T, coding, body string) string {
	t.Helper()
	out, err := pack(coding, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// refusedEvents are the ways to send an event wrongly.
func refusedEvents(t *testing.T) []refusal {
	const good = `{"type":"order.paid","tenant":"acme"}`
	large := `{"type":"order.paid","tenant":"acme","data":"` + strings.Repeat("x", maxBody) + `"}`
	bomb := packed(t, "gzip", `{"type":"order.paid","tenant":"acme","data":"`+strings.Repeat("x", 64<<20)+`"}`)
	coded := func(coding string) []string { return []string{"Content-Encoding", coding} }
	binary := []string{"Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "/s", "Ce-Tenant", "acme"}
	event := []string{"Content-Type", "application/cloudevents+json"}
	return []refusal{
		{name: "malformed JSON", body: `{"type": order}`, status: 400, code: "malformed_json", text: "at byte 10"},
		{name: "an empty body", status: 400, code: "malformed_json"},
		{name: "no type", body: `{"tenant":"acme"}`, status: 422, code: "invalid_event", pointer: "/type", text: "is required"},
		{name: "an attribute of another type", body: `{"type":7,"tenant":"acme"}`, status: 422, code: "invalid_event", pointer: "/type", text: "want a string"},
		{name: "a wrong time", body: `{"type":"a","tenant":"acme","time":"noon"}`, status: 422, code: "invalid_event", pointer: "/time", text: "RFC 3339"},
		{name: "an unknown member", body: `{"type":"a","tenant":"acme","tpye":"b"}`, status: 422, code: "invalid_event", pointer: "/tpye", text: "unknown member"},
		{name: "no specversion", header: event, body: good, status: 422, code: "invalid_event", pointer: "/specversion", text: "is required"},
		{name: "binary without a type", header: binary, body: `{}`, status: 422, code: "invalid_event", pointer: "/type", text: "is required"},
		{name: "another media type", header: []string{"Content-Type", "text/plain"}, body: good, status: 415, code: "unsupported_media_type", pointer: "-"},
		{name: "too large", body: large, status: 413, code: "body_too_large", pointer: "-"},
		{name: "too large in chunks", body: large, unsized: true, status: 413, code: "body_too_large", pointer: "-"},
		{name: "too large in gzip", body: bomb, header: coded("gzip"), status: 413, code: "body_too_large", pointer: "-", text: "decompressed"},
		{name: "too large in zstd", body: packed(t, "zstd", large), header: coded("zstd"), status: 413, code: "body_too_large", pointer: "-"},
		{name: "too large in gzip and chunks", body: bomb, header: coded("gzip"), unsized: true, status: 413, code: "body_too_large", pointer: "-"},
		{name: "not gzip", body: good, header: coded("gzip"), status: 400, code: "malformed_encoding", pointer: "-", text: "gzip"},
		{name: "gzip cut short", body: bomb[:100], header: coded("gzip"), status: 400, code: "malformed_encoding", pointer: "-"},
		{name: "an unknown coding", body: good, header: coded("br"), status: 415, code: "unsupported_content_encoding", pointer: "-", text: "gzip or zstd"},
		{name: "no tenant", body: `{"type":"a"}`, status: 422, code: "invalid_event", pointer: "/tenant", text: "is required"},
		{name: "an unknown tenant", body: `{"type":"a","tenant":"nobody"}`, status: 422, code: "unknown_tenant", pointer: "/tenant"},
		{name: "no key", header: []string{"Authorization", ""}, body: good, status: 401, code: "missing_key", pointer: "-"},
		{name: "a wrong key", header: []string{"Authorization", "Bearer nope"}, body: good, status: 401, code: "invalid_key", pointer: "-"},
		{name: "a loop", header: []string{"Postrider-Hops", "6"}, body: good, status: 508, code: "loop_detected", pointer: "-"},
	}
}

// refusedSettings are the ways to manage endpoints wrongly.
func refusedSettings(t *testing.T) []refusal {
	const path, good = "/v1/tenants/acme/endpoints", `{"url":"https://example.com/"}`
	filter := func(expr string) string {
		return `{"url":"https://example.com/","subscriptions":[{"filter":"` + expr + `"}]}`
	}
	to := func(url string) string { return `{"url":"` + url + `"}` }
	costly := "ext.all(a, ext.all(b, ext.all(c, ext.all(d, a + b + c != d))))"
	rows := []refusal{
		{name: "malformed JSON", body: `{"url":`, status: 400, code: "malformed_json"},
		{name: "an unknown field", body: `{"url":"https://example.com/","colour":"red"}`, status: 422, code: "validation_failed", pointer: "/colour"},
		{name: "an unknown field inside", body: `{"url":"https://example.com/","retry":{"steps":1}}`, status: 422, code: "validation_failed", pointer: "/retry/steps"},
		{name: "gzip", body: packed(t, "gzip", good), header: []string{"Content-Encoding", "gzip"}, status: 415, code: "unsupported_content_encoding", pointer: "-"},
		{name: "too large", body: good + strings.Repeat(" ", maxBody), status: 413, code: "body_too_large", pointer: "-"},
		{name: "too large in chunks", body: good + strings.Repeat(" ", maxBody), unsized: true, status: 413, code: "body_too_large", pointer: "-"},
		{name: "a wrong key", body: good, header: []string{"Authorization", "Bearer nope"}, status: 401, code: "invalid_key", pointer: "-"},
		{name: "an unknown tenant", path: "/v1/tenants/nobody/endpoints", body: good, status: 404, code: "not_found", pointer: "-"},
		{name: "a filter that does not compile", body: filter("data.total >"), status: 422, code: "invalid_filter", pointer: "/subscriptions/0/filter", text: "does not compile"},
		{name: "a filter that is no condition", body: filter("1 + 1"), status: 422, code: "invalid_filter", pointer: "/subscriptions/0/filter", text: "must be bool"},
		{name: "a costly filter", body: filter(costly), status: 422, code: "invalid_filter", pointer: "/subscriptions/0/filter", text: "too costly"},
		{name: "credentials", body: to("https://user:pass@example.com/"), status: 422, code: "url_credentials", pointer: "/url"},
		{name: "a private address", body: to("http://10.0.0.1/"), status: 422, code: "blocked_address", pointer: "/url"},
		{name: "a private address in IPv6", body: to("http://[::ffff:10.0.0.1]/"), status: 422, code: "blocked_address", pointer: "/url"},
		{name: "a metadata address", body: to("http://169.254.169.254/latest/"), status: 422, code: "blocked_address", pointer: "/url"},
		{name: "a low port", body: to("https://example.com:22/"), status: 422, code: "invalid_url", pointer: "/url"},
	}
	for i := range rows {
		if rows[i].path == "" {
			rows[i].path = path
		}
	}
	return rows
}

// (B) Each way to ask for something wrong has its own answer, none leaves a trace
// in the log, and the processes go on.
func TestRefusedRequests(t *testing.T) {
	g := newGateway(t)
	g.start("ingest", "ingest-1", "POSTRIDER_MAX_BODY=1MiB")
	g.startAll()
	g.tenant()
	s := newSink(t, nil)
	endpoint := g.endpoint(s.URL, nil)
	for _, row := range refusedEvents(t) {
		row.path = eventsPath
		t.Run("event/"+row.name, func(t *testing.T) { g.refuses(t, "ingest-1", row) })
	}
	for _, row := range refusedSettings(t) {
		t.Run("endpoint/"+row.name, func(t *testing.T) { g.refuses(t, "control-1", row) })
	}
	good := g.event("order.paid", 1)
	eventually(t, time.Minute, "a good event arrives", func() bool { return len(s.missing([]string{good})) == 0 })
	records := 0
	g.scan(g.broker().Topics().Events, func(*kgo.Record) { records++ })
	if records != 1 {
		t.Errorf("%d records in events, want the good one", records)
	}
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	g.api("GET", "/v1/tenants/acme/endpoints", nil, &list)
	if len(list.Data) != 1 || list.Data[0].ID != endpoint {
		t.Errorf("endpoints %+v, want the good one", list.Data)
	}
}

// refuses sends what must be refused and checks the answer.
func (g *gateway) refuses(t *testing.T, instance string, row refusal) {
	t.Helper()
	header := http.Header{"Content-Type": {plainType}}
	for i := 0; i < len(row.header); i += 2 {
		header.Set(row.header[i], row.header[i+1])
	}
	var body io.Reader = strings.NewReader(row.body)
	if row.unsized {
		body = struct{ io.Reader }{body}
	}
	got, err := g.call(instance, "POST", row.path, header, body)
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Status    int    `json:"status"`
		Code      string `json:"code"`
		Detail    string `json:"detail"`
		RequestID string `json:"request_id"`
		Errors    []struct {
			Pointer string `json:"pointer"`
			Detail  string `json:"detail"`
		} `json:"errors"`
	}
	if err := json.Unmarshal(got.body, &p); err != nil {
		t.Fatalf("%d %.300s: %v", got.status, got.body, err)
	}
	if got.status != row.status || p.Status != row.status || p.Code != row.code {
		t.Errorf("%d %.300s, want %d %s", got.status, got.body, row.status, row.code)
	}
	switch {
	case row.pointer == "-":
		if len(p.Errors) > 0 {
			t.Errorf("errors %+v, want none", p.Errors)
		}
	case len(p.Errors) != 1 || p.Errors[0].Pointer != row.pointer:
		t.Errorf("errors %+v, want one at %q", p.Errors, row.pointer)
	}
	if !bytes.Contains(got.body, []byte(row.text)) {
		t.Errorf("%.300s, want %q in it", got.body, row.text)
	}
	if p.RequestID == "" || got.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("request id %q, content type %q", p.RequestID, got.header.Get("Content-Type"))
	}
}

// (B) A filter whose cost shows only with the data is stopped: the event goes to
// everybody else, and a decision says why not to this one.
func TestCostlyFilter(t *testing.T) {
	g := newGateway(t).startAll()
	g.tenant()
	s, never := newSink(t, nil), newSink(t, nil)
	g.endpoint(s.URL, nil)
	filter := "data.a.all(a, data.a.all(b, data.a.all(c, data.a.all(d, a + b + c != d))))"
	costly := g.endpoint(never.URL, settings{"subscriptions": []any{map[string]any{"filter": filter}}})
	numbers := make([]int, 300)
	for i := range numbers {
		numbers[i] = 1
	}
	events := []string{g.event("order.paid", map[string]any{"a": numbers}), g.event("order.paid", map[string]any{"a": []int{}})}
	eventually(t, time.Minute, "the others get the event", func() bool { return len(s.missing(events)) == 0 })
	eventually(t, time.Minute, "a cheap event passes the filter", func() bool { return len(never.missing(events[1:])) == 0 })
	found := false
	g.scan(g.broker().Topics().Decisions, func(r *kgo.Record) {
		d, err := schemas.DecodeDecision(r.Value)
		if err != nil {
			t.Errorf("decision: %v", err)
		}
		found = found || d.Event == events[0] && d.Reasons[schemas.ReasonFilterError].Count == 1
	})
	if !found {
		t.Error("no decision filter_error")
	}
	if tr := g.settledTruth(3); tr.pairs[events[0]+"/"+costly] != 0 {
		t.Error("the costly filter matched")
	}
}
