package control

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

type badRow struct {
	name, method, path, body string
	status                   int
	code, pointers           string
}

// badInput are the requests to a tenant with an endpoint and a subscription.
func badInput(at, id, sub string) []badRow {
	endpoints, subs, path := at+"/endpoints", at+"/subscriptions", at+"/endpoints/"+id
	url := func(u string) string { return fmt.Sprintf(`{"url":%q}`, u) }
	also := func(member string) string { return `{"url":"https://example.com/",` + member + `}` }
	return []badRow{
		{"no body", "POST", endpoints, "", 400, "body_required", ""},
		{"malformed", "POST", endpoints, `{"url":`, 400, "malformed_json", ""},
		{"two documents", "POST", endpoints, `{} {}`, 400, "malformed_json", ""},
		{"not an object", "POST", endpoints, `[]`, 422, "validation_failed", ""},
		{"unknown field", "POST", endpoints, also(`"colour":"red"`), 422, "validation_failed", "/colour"},
		{"unknown field with a slash", "POST", endpoints, also(`"a/b~c.d":1`), 422, "validation_failed", "/a~1b~0c.d"},
		{"unknown field inside", "POST", endpoints, also(`"retry":{"steps":1}`), 422, "validation_failed", "/retry/steps"},
		{"unknown field in a list", "POST", endpoints, also(`"subscriptions":[{},{"kind":1}]`), 422, "validation_failed", "/subscriptions/1/kind"},
		{"state is no setting", "POST", endpoints, also(`"state":"paused"`), 422, "validation_failed", "/state"},
		{"url missing", "POST", endpoints, `{}`, 422, "validation_failed", "/url"},
		{"url of another type", "POST", endpoints, `{"url":1}`, 422, "validation_failed", "/url"},
		{"url empty", "POST", endpoints, url(""), 422, "invalid_url", "/url"},
		{"url scheme", "POST", endpoints, url("ftp://example.com/"), 422, "invalid_url", "/url"},
		{"url without host", "POST", endpoints, url("https:///a"), 422, "invalid_url", "/url"},
		{"url fragment", "POST", endpoints, url("https://example.com/#a"), 422, "invalid_url", "/url"},
		{"url port", "POST", endpoints, url("https://example.com:22/"), 422, "invalid_url", "/url"},
		{"url too long", "POST", endpoints, url("https://example.com/" + strings.Repeat("a", 2048)), 422, "validation_failed", "/url"},
		{"url credentials", "POST", endpoints, url("https://user:pass@example.com/"), 422, "url_credentials", "/url"},
		{"loopback", "POST", endpoints, url("http://127.0.0.1/"), 422, "blocked_address", "/url"},
		{"private", "POST", endpoints, url("http://10.0.0.1/"), 422, "blocked_address", "/url"},
		{"metadata", "POST", endpoints, url("http://169.254.169.254/latest"), 422, "blocked_address", "/url"},
		{"mapped", "POST", endpoints, url("http://[::ffff:10.0.0.1]/"), 422, "blocked_address", "/url"},
		{"name of a private address", "POST", endpoints, url("https://inside.example.com/"), 422, "blocked_address", "/url"},
		{"patched to a private address", "PATCH", path, url("https://inside.example.com/"), 422, "blocked_address", "/url"},
		{"description too long", "POST", endpoints, also(`"description":"` + strings.Repeat("a", 1025) + `"`), 422, "validation_failed", "/description"},
		{"metadata not text", "POST", endpoints, also(`"metadata":{"a.b":1}`), 422, "validation_failed", "/metadata/a.b"},
		{"metadata too long", "POST", endpoints, also(`"metadata":{"a":"` + strings.Repeat("a", 1025) + `"}`), 422, "validation_failed", "/metadata/a"},
		{"metadata name too long", "POST", endpoints, also(`"metadata":{"` + strings.Repeat("a", 65) + `":""}`), 422, "validation_failed", "/metadata/" + strings.Repeat("a", 65)},
		{"timeout no duration", "POST", endpoints, also(`"timeout":"soon"`), 422, "validation_failed", "/timeout"},
		{"timeout a number", "POST", endpoints, also(`"timeout":15`), 422, "validation_failed", "/timeout"},
		{"timeout too short", "POST", endpoints, also(`"timeout":"999ms"`), 422, "validation_failed", "/timeout"},
		{"timeout too long", "POST", endpoints, also(`"timeout":"61s"`), 422, "validation_failed", "/timeout"},
		{"max_in_flight 0", "POST", endpoints, also(`"max_in_flight":0`), 422, "validation_failed", "/max_in_flight"},
		{"max_in_flight 33", "POST", endpoints, also(`"max_in_flight":33`), 422, "validation_failed", "/max_in_flight"},
		{"max_in_flight 1.5", "POST", endpoints, also(`"max_in_flight":1.5`), 422, "validation_failed", "/max_in_flight"},
		{"retry step no duration", "POST", endpoints, also(`"retry":{"schedule":["5s","x"]}`), 422, "invalid_retry", "/retry/schedule/1"},
		{"retry step empty", "POST", endpoints, also(`"retry":{"schedule":[""]}`), 422, "invalid_retry", "/retry/schedule/0"},
		{"retry step too short", "POST", endpoints, also(`"retry":{"schedule":["500ms"]}`), 422, "invalid_retry", "/retry/schedule/0"},
		{"retry step too long", "POST", endpoints, also(`"retry":{"schedule":["28h1s"]}`), 422, "invalid_retry", "/retry/schedule/0"},
		{"no retries", "POST", endpoints, also(`"retry":{"schedule":[]}`), 422, "validation_failed", "/retry/schedule"},
		{"21 retries", "POST", endpoints, also(`"retry":{"schedule":[` + strings.Repeat(`"1s",`, 20) + `"1s"]}`), 422, "validation_failed", "/retry/schedule"},
		{"retries outlast max_age", "POST", endpoints, also(`"retry":{"schedule":["1h","1h"],"max_age":"2h30m"}`), 422, "invalid_retry", "/retry/schedule"},
		{"retries outlast the default max_age", "POST", endpoints, also(`"retry":{"schedule":["28h","28h","28h","28h"]}`), 422, "invalid_retry", "/retry/schedule"},
		{"max_age below the default schedule", "POST", endpoints, also(`"retry":{"max_age":"1h"}`), 422, "invalid_retry", "/retry/max_age"},
		{"max_age above the gateway's", "POST", endpoints, also(`"retry":{"max_age":"120h0m1s"}`), 422, "invalid_retry", "/retry/max_age"},
		{"trace_context no boolean", "POST", endpoints, also(`"trace_context":"yes"`), 422, "validation_failed", "/trace_context"},
		{"secret without prefix", "POST", endpoints, also(`"secret":"abc"`), 422, "invalid_secret", "/secret"},
		{"secret too short", "POST", endpoints, also(`"secret":"whsec_YWJj"`), 422, "invalid_secret", "/secret"},
		{"filter", "POST", endpoints, also(`"subscriptions":[{"filter":"data.total >"}]`), 422, "invalid_filter", "/subscriptions/0/filter"},
		{"filter of another type", "POST", endpoints, also(`"subscriptions":[{"filter":"1 + 1"}]`), 422, "invalid_filter", "/subscriptions/0/filter"},
		{"filter with an unknown name", "POST", endpoints, also(`"subscriptions":[{"filter":"colour == 'red'"}]`), 422, "invalid_filter", "/subscriptions/0/filter"},
		{"type pattern", "POST", endpoints, also(`"subscriptions":[{"types":["*.paid"]}]`), 422, "invalid_type_pattern", "/subscriptions/0/types/0"},
		{"no types", "POST", endpoints, also(`"subscriptions":[{"types":[]}]`), 422, "invalid_type_pattern", "/subscriptions/0/types"},
		{"two faults", "POST", endpoints, `{"url":"ftp://a","timeout":"1h"}`, 422, "validation_failed", "/url /timeout"},
		{
			"faults of both kinds", "POST", endpoints, `{"url":"ftp://a","colour":1,"timeout":15,"retry":{"schedule":[1,"x"]},"subscriptions":[{"filter":"(","kind":1}]}`,
			422, "validation_failed", "/colour /retry/schedule/0 /retry/schedule/1 /subscriptions/0/filter /subscriptions/0/kind /timeout /url",
		},
		{"subscription faults of both kinds", "POST", subs, `{"types":["a b"],"filter":"("}`, 422, "validation_failed", "/endpoint_id /filter /types/0"},
		{"tenant faults of both kinds", "PUT", "/v1/tenants/acme", `{"colour":1,"metadata":{"":"a"}}`, 422, "validation_failed", "/colour /metadata/"},
		{"patch unknown field", "PATCH", path, `{"colour":1}`, 422, "validation_failed", "/colour"},
		{"patch in another case", "PATCH", path, `{"URL":"https://example.com/"}`, 422, "validation_failed", "/URL"},
		{"patch in another case inside", "PATCH", path, `{"retry":{"Max_Age":"1h"}}`, 422, "validation_failed", "/retry/Max_Age"},
		{"patch of a secret", "PATCH", path, `{"secret":"x"}`, 422, "validation_failed", "/secret"},
		{"overlap", "POST", path + "/rotate-secret", `{"overlap":"200h"}`, 422, "validation_failed", "/overlap"},
		{"rotate to no secret", "POST", path + "/rotate-secret", `{"secret":"x"}`, 422, "invalid_secret", "/secret"},
		{"subscription without endpoint", "POST", subs, `{}`, 422, "validation_failed", "/endpoint_id"},
		{"subscription of no endpoint", "POST", subs, `{"endpoint_id":"ep_1"}`, 422, "validation_failed", "/endpoint_id"},
		{"subscription filter", "POST", subs, `{"endpoint_id":"` + id + `","filter":"("}`, 422, "invalid_filter", "/filter"},
		{"subscription types", "PATCH", subs + "/" + sub, `{"types":["a b"]}`, 422, "invalid_type_pattern", "/types/0"},
		{"subscription endpoint is fixed", "PATCH", subs + "/" + sub, `{"endpoint_id":"` + id + `"}`, 422, "validation_failed", "/endpoint_id"},
		{"dry run without type", "POST", subs + "/match", `{"data":{}}`, 422, "validation_failed", "/type"},
		{"dry run unknown field", "POST", subs + "/match", `{"type":"a","kind":"b"}`, 422, "validation_failed", "/kind"},
		{"dry run time", "POST", subs + "/match", `{"type":"a","time":"noon"}`, 422, "validation_failed", "/time"},
		{"role", "POST", at + "/keys", `{"role":"root"}`, 422, "validation_failed", "/role"},
		{"role missing", "POST", at + "/keys", `{}`, 422, "validation_failed", "/role"},
		{"tenant's id", "PUT", "/v1/tenants/a%20b", `{}`, 422, "validation_failed", ""},
		{"a tenant's id like a key's", "PUT", "/v1/tenants/key_01h455vb4pex5vsknk084sn02q", `{}`, 422, "validation_failed", ""},
		{"the platform's id", "PUT", "/v1/tenants/_", `{}`, 422, "validation_failed", ""},
		{"tenant unknown field", "PUT", "/v1/tenants/acme", `{"deleting":true}`, 422, "validation_failed", "/deleting"},
		{"tenant metadata", "PUT", "/v1/tenants/acme", `{"metadata":{"":"a"}}`, 422, "validation_failed", "/metadata/"},
		{"quota negative", "PUT", "/v1/tenants/acme", `{"quota":{"events_per_second":-1}}`, 422, "validation_failed", "/quota/events_per_second"},
		{"limit 0", "GET", endpoints + "?limit=0", "", 422, "validation_failed", ""},
		{"limit 251", "GET", endpoints + "?limit=251", "", 422, "validation_failed", ""},
		{"limit text", "GET", endpoints + "?limit=many", "", 422, "validation_failed", ""},
		{"cursor", "GET", endpoints + "?cursor=!", "", 422, "invalid_cursor", ""},
		{"unknown parameter", "GET", endpoints + "?page=2", "", 422, "validation_failed", ""},
		{"outcome", "GET", at + "/attempts/stream?outcome=lost", "", 422, "validation_failed", ""},
		{"cancel for no endpoint", "POST", at + "/deliveries/" + schemas.DeliveryID("e", id, "") + "/cancel", `{"endpoint_id":"ep_1"}`, 422, "validation_failed", "/endpoint_id"},
		{"cancel of no delivery", "POST", at + "/deliveries/x/cancel", `{"endpoint_id":"` + id + `"}`, 404, "not_found", ""},
		{"no such tenant", "GET", "/v1/tenants/nobody", "", 404, "not_found", ""},
		{"no possible tenant", "GET", "/v1/tenants/a%20b", "", 404, "not_found", ""},
		{"endpoint of no tenant", "POST", "/v1/tenants/nobody/endpoints", `{"url":"https://example.com/"}`, 404, "not_found", ""},
		{"endpoint of the platform", "POST", "/v1/tenants/_/endpoints", `{"url":"https://example.com/"}`, 404, "not_found", ""},
		{"no such endpoint", "GET", endpoints + "/ep_1", "", 404, "not_found", ""},
		{"no such subscription", "GET", subs + "/sub_1", "", 404, "not_found", ""},
		{"no such key", "DELETE", at + "/keys/key_1", "", 404, "not_found", ""},
		{"no such verb", "POST", path + "/explode", "", 404, "not_found", ""},
		{"method", "PUT", path, `{}`, 405, "method_not_allowed", ""},
	}
}

// TestBadInput has one row for each way a request can be wrong: status, code and
// pointers of the answer.
func TestBadInput(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	id, path := r.endpoint(at)
	sub := ids(r.must(200, http.MethodGet, at+"/subscriptions?endpoint="+id, nil))[0]
	for _, tt := range badInput(at, id, sub) {
		t.Run(tt.name, func(t *testing.T) {
			var body any
			if tt.body != "" {
				body = tt.body
			}
			got := r.call(tt.method, tt.path, body)
			type problem struct {
				Status         int
				Code, Pointers string
			}
			if diff := cmp.Diff(problem{tt.status, tt.code, tt.pointers}, problem{got.status, got.text("code"), pointers(got)}); diff != "" {
				t.Errorf("(-want +got):\n%s%s", diff, got.raw)
			}
			if ct := got.header.Get("Content-Type"); ct != "application/problem+json" {
				t.Errorf("content type %q", ct)
			}
			if got.text("request_id") == "" || got.text("type") == "" || got.body["status"] != float64(tt.status) {
				t.Errorf("incomplete problem: %s", got.raw)
			}
		})
	}
	if after := r.must(200, http.MethodGet, path, nil); after.text("state") != "enabled" {
		t.Errorf("a refused request changed the endpoint: %s", after.raw)
	}
}

// TestManyFaults: a body full of unknown fields costs neither time nor a long
// answer.
func TestManyFaults(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	var body strings.Builder
	body.WriteString(`{"url":"https://example.com/"`)
	for i := range 50_000 {
		fmt.Fprintf(&body, `,"unknown%d":1`, i)
	}
	body.WriteString("}")
	got := r.call(http.MethodPost, at+"/endpoints", body.String())
	if n := len(strings.Fields(pointers(got))); got.status != 422 || n != maxFaults {
		t.Errorf("status %d, %d faults", got.status, n)
	}
	_, path := r.endpoint(at)
	body.Reset()
	body.WriteString(`{"headers":{"Host":{"value":"a"}`)
	for i := range 20_000 {
		fmt.Fprintf(&body, `,"Webhook-%d":{"value":"a"}`, i)
	}
	body.WriteString("}}")
	got = r.call(http.MethodPatch, path, body.String())
	if n := len(strings.Fields(pointers(got))); got.status != 422 || n != maxFaults {
		t.Errorf("headers: status %d, %d faults", got.status, n)
	}
}

func TestBodies(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte(`{"url":"https://example.com/"}`)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	fill := func(n int) string {
		doc := `{"url":"https://example.com/"}`
		return doc + strings.Repeat(" ", n-len(doc))
	}
	tests := []struct {
		name    string
		body    string
		options []option
		status  int
		code    string
	}{
		{"gzip", packed.String(), []option{with("Content-Encoding", "gzip")}, 415, "unsupported_content_encoding"},
		{"identity is an encoding, too", fill(100), []option{with("Content-Encoding", "identity")}, 415, "unsupported_content_encoding"},
		{"media type", fill(100), []option{with("Content-Type", "text/plain")}, 415, "unsupported_media_type"},
		{"largest", fill(MaxBody), nil, 201, ""},
		{"too large", fill(MaxBody + 1), nil, 413, "body_too_large"},
		{"too large in chunks", fill(MaxBody + 1), []option{func(q *http.Request) { q.ContentLength = -1 }}, 413, "body_too_large"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := r.call(http.MethodPost, at+"/endpoints", tt.body, tt.options...)
			if got.status != tt.status || got.text("code") != tt.code {
				t.Errorf("status %d, code %q, want %d, %q: %s", got.status, got.text("code"), tt.status, tt.code, got.raw)
			}
		})
	}
}

// The body is read for nobody who may not send one, and not where it is announced
// too large: the answer comes although the body does not.
func TestBodiesAreReadLast(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	for name, tt := range map[string]struct {
		option option
		length int64
		status int
	}{
		"no key":              {func(q *http.Request) { q.Header.Del("Authorization") }, -1, 401},
		"unknown key":         {as(schemas.NewID(schemas.PrefixKey) + ".secret"), -1, 401},
		"encoded":             {with("Content-Encoding", "gzip"), -1, 415},
		"announced too large": {func(*http.Request) {}, MaxBody + 1, 413},
	} {
		t.Run(name, func(t *testing.T) {
			body, rest := io.Pipe()
			defer func() { _ = rest.Close() }()
			go func() { _, _ = rest.Write(make([]byte, 8<<10)) }() // ends with the pipe
			got := r.call(http.MethodPost, at+"/endpoints", nil, func(q *http.Request) {
				q.Body, q.ContentLength = body, tt.length
			}, tt.option)
			if got.status != tt.status {
				t.Errorf("status %d, want %d: %s", got.status, tt.status, got.raw)
			}
		})
	}
}

// TestAccess has one row for each kind of key and resource.
func TestAccess(t *testing.T) {
	r := newRig(t)
	acme, beta := r.tenant("acme"), r.tenant("beta")
	_, path := r.endpoint(acme)
	token := func(tenant string, role registry.Role) string {
		return r.must(http.StatusCreated, http.MethodPost, tenant+"/keys", map[string]any{"role": role}).text("token")
	}
	keys := map[string]string{
		"admin key":      adminKey,
		"platform admin": token("/v1/tenants/_", registry.RoleAdmin),
		"platform sends": token("/v1/tenants/_", registry.RoleProducer),
		"acme admin":     token(acme, registry.RoleAdmin),
		"acme sends":     token(acme, registry.RoleProducer),
		"beta admin":     token(beta, registry.RoleAdmin),
		"beta sends":     token(beta, registry.RoleProducer),
		"unknown":        schemas.NewID(schemas.PrefixKey) + ".secret",
		"no token":       "",
	}
	resources := []struct {
		method, path string
		body         any
		want         map[string]int
	}{
		{"GET", path, nil, map[string]int{"admin key": 200, "platform admin": 200, "platform sends": 404, "acme admin": 200, "acme sends": 403, "beta admin": 404, "beta sends": 404}},
		{"GET", path + "/secret", nil, map[string]int{"admin key": 200, "platform admin": 200, "platform sends": 404, "acme admin": 200, "acme sends": 403, "beta admin": 404, "beta sends": 404}},
		{"GET", acme, nil, map[string]int{"admin key": 200, "platform admin": 200, "platform sends": 404, "acme admin": 200, "acme sends": 403, "beta admin": 404, "beta sends": 404}},
		{"PUT", acme, map[string]any{}, map[string]int{"admin key": 200, "platform admin": 200, "platform sends": 404, "acme admin": 403, "acme sends": 403, "beta admin": 404, "beta sends": 404}},
		{"GET", "/v1/tenants", nil, map[string]int{"admin key": 200, "platform admin": 200, "platform sends": 403, "acme admin": 403, "acme sends": 403, "beta admin": 403, "beta sends": 403}},
		{"GET", "/v1/tenants/_/keys", nil, map[string]int{"admin key": 200, "platform admin": 200, "platform sends": 403, "acme admin": 404, "acme sends": 404, "beta admin": 404, "beta sends": 404}},
		{"POST", path + "/pause", nil, map[string]int{"admin key": 200, "platform admin": 200, "platform sends": 404, "acme admin": 200, "acme sends": 403, "beta admin": 404, "beta sends": 404}},
		{"GET", acme + "/attempts/stream?endpoint=" + strings.Repeat("x", 65), nil, map[string]int{"admin key": 422, "platform admin": 422, "platform sends": 404, "acme admin": 422, "acme sends": 403, "beta admin": 404, "beta sends": 404}},
	}
	for _, res := range resources {
		res.want["unknown"], res.want["no token"] = 401, 401
		for who, key := range keys {
			if got := r.call(res.method, res.path, res.body, as(key)); got.status != res.want[who] {
				t.Errorf("%s %s as %s: status %d, want %d: %s", res.method, res.path, who, got.status, res.want[who], got.raw)
			}
		}
	}
	// What is another tenant's can't be told from what does not exist.
	hidden := r.call("GET", acme, nil, as(keys["beta admin"]))
	absent := r.call("GET", "/v1/tenants/nobody", nil, as(keys["beta admin"]))
	delete(hidden.body, "request_id")
	delete(absent.body, "request_id")
	if diff := cmp.Diff(absent.body, hidden.body); diff != "" {
		t.Errorf("another tenant shows (-absent +hidden):\n%s", diff)
	}
	for header, code := range map[string]string{
		"": "missing_key", "Basic abc": "missing_key", "Bearer": "missing_key", "Bearer nope": "invalid_key",
	} {
		got := r.call("GET", acme, nil, with("Authorization", header))
		if got.status != 401 || got.text("code") != code || got.header.Get("WWW-Authenticate") == "" {
			t.Errorf("Authorization %q: status %d, header %q, want code %s: %s", header, got.status, got.header.Get("WWW-Authenticate"), code, got.raw)
		}
	}
}

// TestEscapedPath: an id in the path means the same percent-encoded, and is shown
// as it was meant.
func TestEscapedPath(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	id, _ := r.endpoint(at)
	if got := r.must(200, http.MethodGet, "/v1/tenants/%61cme/endpoints/%65p"+id[2:], nil); got.text("id") != id {
		t.Errorf("%s", got.raw)
	}
	got := r.must(422, http.MethodPut, "/v1/tenants/bad%20%3Cid%3E", `{}`)
	if !contains(got.raw, "bad <id>") {
		t.Errorf("the id is not shown as it was meant: %s", got.raw)
	}
	other := r.must(http.StatusCreated, http.MethodPost, at+"/keys", map[string]any{"role": "admin"}).text("token")
	r.must(404, http.MethodGet, "/v1/tenants/%5F/keys", nil, as(other))
	r.must(404, http.MethodGet, at+"/endpoints/"+id+"%2Fhealth", nil)
}
