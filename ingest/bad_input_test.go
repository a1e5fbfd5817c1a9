package ingest

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/httpd"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// structured returns a structured event with members of its own, or without
// those that are set to "".
func structured(members ...string) string {
	all := []string{`"specversion":"1.0"`, `"id":"1"`, `"source":"/s"`, `"type":"order.paid"`}
	out := make([]string, 0, len(all)+len(members))
	for _, a := range all {
		name, _, _ := strings.Cut(a, ":")
		keep := true
		for _, m := range members {
			keep = keep && !strings.HasPrefix(m, name+":")
		}
		if keep {
			out = append(out, a)
		}
	}
	for _, m := range members {
		if !strings.HasSuffix(m, ":") {
			out = append(out, m)
		}
	}
	return "{" + strings.Join(out, ",") + "}"
}

// asEvent is an event whose data is an event of another tenant: on Kafka that
// would take its place.
const asEvent = `"type":"order.paid","datacontenttype":"Application/CloudEvents+JSON; charset=utf-8","data":` +
	`{"specversion":"1.0","id":"1","source":"/s","type":"order.paid","tenant":"victim","data":{}}`

// A key writes events of its own tenant, whatever they carry.
func TestNobodyElsesTenant(t *testing.T) {
	for media, body := range map[string]string{
		"application/json":                         `{` + asEvent + `}`,
		"application/cloudevents+json":             structured(asEvent),
		"application/cloudevents-batch+json":       `[` + structured(asEvent) + `]`,
		"application/x-ndjson":                     `{` + asEvent + "}\n",
		"application/x-ndjson; charset=utf-8":      structured(asEvent) + "\n",
		"application/json; profile=of-no-interest": `{` + asEvent + `}`,
	} {
		t.Run(media, func(t *testing.T) {
			g := start(t, Config{}, Deps{})
			if got := g.post(t, body, headers{"Content-Type", media}); !strings.Contains(got.raw, "datacontenttype") {
				t.Errorf("answer %d %s", got.status, got.raw)
			}
			for _, r := range g.kafka.produced() {
				e, err := schemas.DecodeEvent(r.Value, r.Headers)
				t.Errorf("written, and read as %+v, %v", e, err)
			}
		})
	}
}

// TestBadInput has a row per way to be wrong, with the exact answer.
func TestBadInput(t *testing.T) {
	const (
		plain = "application/json"
		cloud = "application/cloudevents+json"
		batch = "application/cloudevents-batch+json"
	)
	binary := func(more ...string) headers {
		return append(headers{
			"Content-Type", plain, "ce-specversion", "1.0", "ce-id", "1", "ce-source", "/s", "ce-type", "order.paid",
		}, more...)
	}
	long := strings.Repeat("x", 3000)
	manyExtensions := make([]string, 0, 65)
	for i := range 65 {
		manyExtensions = append(manyExtensions, `"x`+itoa(i)+`":"1"`)
	}
	g := start(t, Config{MaxBodyBytes: 2 << 20, MaxBatchEvents: 3}, Deps{})
	reader := g.view.addKey(t, "acme", registry.Role("reader"))
	orphan := g.view.addKey(t, "gone", registry.RoleProducer)
	leaving := g.view.addKey(t, "leaving", registry.RoleProducer)

	tests := []struct {
		name, body string
		headers    headers
		status     int
		code       string
		pointer    string // "-": the problem points nowhere
		detail     string // a part of the detail
	}{
		{"no key", `{"type":"a"}`, headers{"Authorization", ""}, 401, CodeMissingKey, "-", "Authorization: Bearer"},
		{"other scheme", `{"type":"a"}`, headers{"Authorization", "Basic YTpi"}, 401, CodeMissingKey, "-", ""},
		{"bad key", `{"type":"a"}`, headers{"Authorization", "Bearer nope"}, 401, CodeInvalidKey, "-", ""},
		{"role", `{"type":"a"}`, headers{"Authorization", "Bearer " + reader}, 403, CodeForbidden, "-", ""},
		{"hops not a number", `{"type":"a"}`, headers{"Postrider-Hops", "many"}, 400, CodeMalformedHops, "-", ""},
		{"hops negative", `{"type":"a"}`, headers{"Postrider-Hops", "-1"}, 400, CodeMalformedHops, "-", ""},
		{"loop", `{"type":"a"}`, headers{"Postrider-Hops", "6"}, 508, CodeLoop, "-", "6 gateways"},

		{"no content type", `{"type":"a"}`, headers{"Content-Type", ""}, 415, CodeUnsupportedType, "-", "application/x-ndjson"},
		{"unknown content type", `type=a`, headers{"Content-Type", "application/x-www-form-urlencoded"}, 415, CodeUnsupportedType, "-", "application/json"},
		{"other cloudevents format", `x`, headers{"Content-Type", "application/cloudevents+avro"}, 415, CodeUnsupportedType, "-", ""},
		{"an event as data, plain", `{` + asEvent + `}`, headers{"Content-Type", plain}, 422, CodeInvalidEvent, "/datacontenttype", "media type of events"},
		{"an event as data, structured", structured(asEvent), headers{"Content-Type", cloud}, 422, CodeInvalidEvent, "/datacontenttype", "media type of events"},
		{"other charset", `{"type":"a"}`, headers{"Content-Type", plain + "; charset=latin1"}, 415, CodeUnsupportedType, "-", "utf-8"},
		{"unknown encoding", `{"type":"a"}`, headers{"Content-Encoding", "br"}, 415, CodeUnsupportedEncoding, "-", "gzip or zstd"},
		{"two encodings", `{"type":"a"}`, headers{"Content-Encoding", "gzip, zstd"}, 415, CodeUnsupportedEncoding, "-", ""},
		{"not gzip", `{"type":"a"}`, headers{"Content-Encoding", "gzip"}, 400, CodeMalformedEncoding, "-", "gzip"},
		{"not zstd", `{"type":"a"}`, headers{"Content-Encoding", "zstd"}, 400, CodeMalformedEncoding, "-", "zstd"},
		{"body too large", `{"data":"` + strings.Repeat("x", 2<<20) + `"}`, nil, 413, httpd.CodeTooLarge, "-", "2097152"},

		{"malformed JSON", `{"type": order}`, nil, 400, CodeMalformedJSON, "", "at byte 10"},
		{"ends too early", `{"type":"a"`, nil, 400, CodeMalformedJSON, "", "at byte 11"},
		{"empty body", ``, nil, 400, CodeMalformedJSON, "", ""},
		{"two documents", `{"type":"a"}{"type":"b"}`, nil, 400, CodeMalformedJSON, "", "at byte 13"},
		{"not an object", `[1]`, nil, 422, CodeInvalidEvent, "", "JSON object"},
		{"null", `null`, nil, 422, CodeInvalidEvent, "", "JSON object"},

		{"no type", `{"data":{}}`, nil, 422, CodeInvalidEvent, "/type", "is required"},
		{"type null", `{"type":null}`, nil, 422, CodeInvalidEvent, "/type", "is required"},
		{"type a number", `{"type":7}`, nil, 422, CodeInvalidEvent, "/type", "want a string"},
		{"type with a blank", `{"type":"order paid"}`, nil, 422, CodeInvalidEvent, "/type", "not allowed"},
		{"type with a star", `{"type":"order.*"}`, nil, 422, CodeInvalidEvent, "/type", "not allowed"},
		{"type too long", `{"type":"` + long + `"}`, nil, 422, CodeInvalidEvent, "/type", "at most 255"},
		{"id too long", `{"type":"a","id":"` + long + `"}`, nil, 422, CodeInvalidEvent, "/id", "at most 1024"},
		{"id with a control character", `{"type":"a","id":"\u0001"}`, nil, 422, CodeInvalidEvent, "/id", "control character"},
		{"id not UTF-8", "{\"type\":\"a\",\"id\":\"\xff\"}", nil, 422, CodeInvalidEvent, "/id", "UTF-8"},
		{"source too long", `{"type":"a","source":"` + long + `"}`, nil, 422, CodeInvalidEvent, "/source", "at most 2048"},
		{"subject too long", `{"type":"a","subject":"` + long + `"}`, nil, 422, CodeInvalidEvent, "/subject", "at most 2048"},
		{"dataschema too long", `{"type":"a","dataschema":"` + long + `"}`, nil, 422, CodeInvalidEvent, "/dataschema", "at most 2048"},
		{"partitionkey too long", `{"type":"a","partitionkey":"` + long + `"}`, nil, 422, CodeInvalidEvent, "/partitionkey", "at most 1024"},
		{"datacontenttype too long", `{"type":"a","datacontenttype":"` + long + `"}`, nil, 422, CodeInvalidEvent, "/datacontenttype", "at most 255"},
		{"time", `{"type":"a","time":"yesterday"}`, nil, 422, CodeInvalidEvent, "/time", "RFC 3339"},
		{"unknown member", `{"type":"a","tpye":"b"}`, nil, 422, CodeInvalidEvent, "/tpye", "unknown member"},
		{"unknown member to escape", `{"type":"a","a/b~c":"b"}`, nil, 422, CodeInvalidEvent, "/a~1b~0c", "unknown member"},
		{"member twice", `{"type":"a","type":"b"}`, nil, 422, CodeInvalidEvent, "/type", "twice"},
		{"extensions a list", `{"type":"a","extensions":[]}`, nil, 422, CodeInvalidEvent, "/extensions", "want an object"},
		{"extension an object", `{"type":"a","extensions":{"x":{}}}`, nil, 422, CodeInvalidEvent, "/extensions", `"x" must be`},
		{"extension a fraction", `{"type":"a","extensions":{"x":1.5}}`, nil, 422, CodeInvalidEvent, "/extensions", `"x" must be`},
		{"extension null", `{"type":"a","extensions":{"x":null}}`, nil, 422, CodeInvalidEvent, "/extensions", `"x" must be`},
		{"extension's name", `{"type":"a","extensions":{"X-y":"1"}}`, nil, 422, CodeInvalidEvent, "/extensions", "a-z and 0-9"},
		{"extension named as an attribute", `{"type":"a","extensions":{"source":"b"}}`, nil, 422, CodeInvalidEvent, "/extensions", "no extension"},
		{"extension twice", `{"type":"a","extensions":{"x":"1","x":"2"}}`, nil, 422, CodeInvalidEvent, "/extensions", "twice"},
		{"extension with a control character", `{"type":"a","extensions":{"x":"\n"}}`, nil, 422, CodeInvalidEvent, "/extensions/x", "control"},
		{"too many extensions", `{"type":"a","extensions":{` + strings.Join(manyExtensions, ",") + `}}`, nil, 422, CodeInvalidEvent, "/extensions", "at most 64"},
		{"attributes too large", `{"type":"a","extensions":{"x":"` + strings.Repeat("x", 32<<10) + `"}}`, nil, 422, CodeInvalidEvent, "", "at most 32768"},
		{"event too large", `{"type":"a","data":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 413, CodeEventTooLarge, "", "at most"},

		{"tenant of others", `{"type":"a","tenant":"other"}`, nil, 403, CodeTenantMismatch, "/tenant", "another tenant"},
		{"platform key without tenant", `{"type":"a"}`, headers{"Authorization", "Bearer " + g.platform}, 422, CodeInvalidEvent, "/tenant", "is required"},
		{"malformed tenant", `{"type":"a","tenant":"-"}`, headers{"Authorization", "Bearer " + g.platform}, 422, CodeInvalidEvent, "/tenant", "letters"},
		{"unknown tenant", `{"type":"a","tenant":"nobody"}`, headers{"Authorization", "Bearer " + g.platform}, 422, CodeUnknownTenant, "/tenant", "no such tenant"},
		{"unknown tenant, admin key", `{"type":"a","tenant":"nobody"}`, headers{"Authorization", "Bearer " + adminKey}, 422, CodeUnknownTenant, "/tenant", ""},
		{"tenant leaving", `{"type":"a","tenant":"leaving"}`, headers{"Authorization", "Bearer " + adminKey}, 403, CodeTenantDeleted, "/tenant", ""},
		{"own tenant leaving", `{"type":"a"}`, headers{"Authorization", "Bearer " + leaving}, 403, CodeTenantDeleted, "/tenant", ""},
		{"own tenant gone", `{"type":"a"}`, headers{"Authorization", "Bearer " + orphan}, 403, CodeTenantDeleted, "-", ""},

		{"structured: malformed", `{`, headers{"Content-Type", cloud}, 400, CodeMalformedJSON, "", "at byte 1"},
		{"structured: no specversion", structured(`"specversion":`), headers{"Content-Type", cloud}, 422, CodeInvalidEvent, "/specversion", "is required"},
		{"structured: other specversion", structured(`"specversion":"0.3"`), headers{"Content-Type", cloud}, 422, CodeInvalidEvent, "/specversion", "0.3"},
		{"structured: no id", structured(`"id":`), headers{"Content-Type", cloud}, 422, CodeInvalidEvent, "/id", "is required"},
		{"structured: empty id", structured(`"id":""`), headers{"Content-Type", cloud}, 422, CodeInvalidEvent, "/id", "is required"},
		{"structured: no source", structured(`"source":`), headers{"Content-Type", cloud}, 422, CodeInvalidEvent, "/source", "is required"},
		{"structured: no type", structured(`"type":`), headers{"Content-Type", cloud}, 422, CodeInvalidEvent, "/type", "is required"},
		{"structured: attribute an object", structured(`"x":{}`), headers{"Content-Type", cloud}, 422, CodeInvalidEvent, "/x", "want a string"},
		{"structured: attribute's name", structured(`"X-y":"1"`), headers{"Content-Type", cloud}, 422, CodeInvalidEvent, "", "a-z and 0-9"},
		{"structured: member twice", structured(`"subject":"a"`, `"subject":"b"`), headers{"Content-Type", cloud}, 422, CodeInvalidEvent, "/subject", "twice"},
		{"structured: data twice", structured(`"data":1`, `"data_base64":"AA=="`), headers{"Content-Type", cloud}, 422, CodeInvalidEvent, "/data", "exclude"},
		{"structured: base64", structured(`"data_base64":"%"`), headers{"Content-Type", cloud}, 422, CodeInvalidEvent, "/data_base64", "base64"},
		{"structured: not an object", `"a"`, headers{"Content-Type", cloud}, 422, CodeInvalidEvent, "", "JSON object"},
		{"structured as plain JSON", structured(`"time":"x"`), headers{"Content-Type", plain}, 422, CodeInvalidEvent, "/time", "RFC 3339"},

		{"binary: no specversion", `{}`, binary("ce-specversion", ""), 422, CodeInvalidEvent, "/specversion", "is required"},
		{"binary: other specversion", `{}`, binary("ce-specversion", "0.3"), 422, CodeInvalidEvent, "/specversion", "0.3"},
		{"binary: no id", `{}`, binary("ce-id", ""), 422, CodeInvalidEvent, "/id", "is required"},
		{"binary: no type", `{}`, binary("ce-type", ""), 422, CodeInvalidEvent, "/type", "is required"},
		{"binary: no source", `{}`, binary("ce-source", ""), 422, CodeInvalidEvent, "/source", "is required"},
		{"binary: attribute's name", `{}`, binary("ce-my_ext", "1"), 422, CodeInvalidEvent, "", "a-z and 0-9"},
		{"binary: datacontenttype", `{}`, binary("ce-datacontenttype", "text/plain"), 422, CodeInvalidEvent, "/datacontenttype", "Content-Type"},
		{"binary: data", `{}`, binary("ce-data", "1"), 422, CodeInvalidEvent, "/data", ""},
		{"binary: not UTF-8", `{}`, binary("ce-subject", "%ff"), 422, CodeInvalidEvent, "/subject", "UTF-8"},
		{"binary: tenant of others", `{}`, binary("ce-tenant", "other"), 403, CodeTenantMismatch, "/tenant", ""},
		{"binary: event too large", strings.Repeat("x", 1<<20), binary(), 413, CodeEventTooLarge, "", "at most"},

		{"batch: malformed", `[{]`, headers{"Content-Type", batch}, 400, CodeMalformedJSON, "", "at byte 3"},
		{"batch: not an array", structured(), headers{"Content-Type", batch}, 422, CodeInvalidEvent, "", "JSON array"},
		{"batch: too many", "[" + strings.Repeat("{},", 3) + "{}]", headers{"Content-Type", batch}, 413, CodeBatchTooLarge, "-", "at most 3"},
		{"lines: none", "\n \r\n", headers{"Content-Type", "application/x-ndjson"}, 400, CodeEmptyBody, "-", ""},
		{"lines: too many", strings.Repeat("{}\n", 4), headers{"Content-Type", "application/jsonl"}, 413, CodeBatchTooLarge, "-", "at most 3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := append(headers{"Content-Type", plain}, tt.headers...)
			got := g.post(t, tt.body, h)
			if got.status != tt.status || got.Code != tt.code || got.Status != tt.status {
				t.Fatalf("status %d: %s, want %d %s", got.status, got.raw, tt.status, tt.code)
			}
			switch {
			case tt.pointer == "-":
				if len(got.Errors) > 0 {
					t.Errorf("errors %+v, want none", got.Errors)
				}
			case len(got.Errors) != 1 || got.Errors[0].Pointer != tt.pointer:
				t.Errorf("errors %+v, want one at %q", got.Errors, tt.pointer)
			case !strings.Contains(got.Errors[0].Detail, tt.detail):
				t.Errorf("detail %q, want %q in it", got.Errors[0].Detail, tt.detail)
			}
			if !strings.Contains(got.Detail, tt.detail) {
				t.Errorf("detail %q, want %q in it", got.Detail, tt.detail)
			}
			if got.RequestID == "" || got.header.Get("Content-Type") != httpd.ContentTypeProblem {
				t.Errorf("request id %q, content type %q", got.RequestID, got.header.Get("Content-Type"))
			}
		})
	}
	if n := len(g.kafka.produced()); n > 0 {
		t.Errorf("%d records were produced", n)
	}
	if events, bytes := g.server.budget.used(); events != 0 || bytes != 0 {
		t.Errorf("%d events, %d bytes are still counted as in flight", events, bytes)
	}
}

func TestOtherMethods(t *testing.T) {
	g := start(t, Config{}, Deps{})
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodPatch} {
		got := g.do(t, method, nil, nil)
		if got.status != http.StatusMethodNotAllowed || got.Code != httpd.CodeMethodNotAllowed || got.header.Get("Allow") != "POST" {
			t.Errorf("%s: status %d, Allow %q: %s", method, got.status, got.header.Get("Allow"), got.raw)
		}
	}
}

func TestBinaryAttributeTwice(t *testing.T) {
	g := start(t, Config{}, Deps{})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{
		"Authorization": {"Bearer " + g.producer}, "Content-Type": {"application/json"}, "Ce-Specversion": {"1.0"},
		"Ce-Id": {"1", "2"}, "Ce-Source": {"/s"}, "Ce-Type": {"a"},
	}
	res, err := g.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("status %d, want 422", res.StatusCode)
	}
}

func TestAllowedHops(t *testing.T) {
	g := start(t, Config{}, Deps{})
	got := g.post(t, `{"type":"a"}`, headers{"Content-Type", "application/json", "Postrider-Hops", "5"})
	if got.status != http.StatusAccepted {
		t.Fatalf("status %d: %s", got.status, got.raw)
	}
	if diff := cmp.Diff(schemas.MaxHops, event(t, g.kafka.produced()[0]).Hops); diff != "" {
		t.Errorf("hops (-want +got):\n%s", diff)
	}
}
