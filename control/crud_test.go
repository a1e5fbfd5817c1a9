package control

import (
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/postrider/postrider/internal/signature"
)

// volatile are members of an answer that differ from run to run.
func volatile() cmp.Option {
	return cmpopts.IgnoreMapEntries(func(k string, _ any) bool {
		return slices.Contains([]string{"id", "created_at", "updated_at", "etag"}, k)
	})
}

func TestTenants(t *testing.T) {
	r := newRig(t)
	settings := map[string]any{
		"name": "Acme", "metadata": map[string]any{"plan": "gold"},
		"quota": map[string]any{"events_per_second": 10.5, "bytes_per_second": 2048.0},
	}
	made := r.must(http.StatusCreated, http.MethodPut, "/v1/tenants/acme", settings)
	if diff := cmp.Diff(map[string]any{"name": "Acme", "metadata": settings["metadata"], "quota": settings["quota"]}, made.body, volatile()); diff != "" {
		t.Errorf("created tenant (-want +got):\n%s", diff)
	}
	if made.text("id") != "acme" || made.header.Get("ETag") != made.text("etag") || made.text("etag") == "" {
		t.Errorf("id %q, ETag %q, etag %q", made.text("id"), made.header.Get("ETag"), made.text("etag"))
	}
	same := r.must(http.StatusOK, http.MethodPut, "/v1/tenants/acme", settings)
	if same.text("etag") != made.text("etag") {
		t.Errorf("the same PUT made version %s of %s", same.text("etag"), made.text("etag"))
	}
	other := r.must(http.StatusOK, http.MethodPut, "/v1/tenants/acme", map[string]any{"name": "Acme 2"}, with("If-Match", made.text("etag")))
	if diff := cmp.Diff(map[string]any{"name": "Acme 2"}, other.body, volatile()); diff != "" {
		t.Errorf("replaced tenant (-want +got):\n%s", diff)
	}
	r.must(http.StatusPreconditionFailed, http.MethodPut, "/v1/tenants/acme", settings, with("If-Match", made.text("etag")))
	r.must(http.StatusPreconditionFailed, http.MethodPut, "/v1/tenants/acme", settings, with("If-None-Match", "*"))
	r.must(http.StatusPreconditionFailed, http.MethodPut, "/v1/tenants/new", settings, with("If-Match", "*"))
	read := r.must(http.StatusOK, http.MethodGet, "/v1/tenants/acme", nil)
	if diff := cmp.Diff(other.body, read.body); diff != "" {
		t.Errorf("read tenant (-want +got):\n%s", diff)
	}
	r.must(http.StatusCreated, http.MethodPut, "/v1/tenants/beta", map[string]any{}, with("If-None-Match", "*"))
	list := r.must(http.StatusOK, http.MethodGet, "/v1/tenants", nil)
	if got := ids(list); !cmp.Equal(got, []string{"acme", "beta"}) {
		t.Errorf("tenants %v", got)
	}
}

func ids(list reply) (out []string) {
	data, _ := list.body["data"].([]any)
	for _, e := range data {
		m, _ := e.(map[string]any)
		id, _ := m["id"].(string)
		out = append(out, id)
	}
	return out
}

// TestEndpointFields has one row for each field of an endpoint that can be set:
// how it is set, what is answered, and what null makes of it. A field without a row
// fails; those with secrets have theirs in TestSecretsAreKeptAndHidden.
func TestEndpointFields(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	tests := []struct {
		field     string
		beside    map[string]any // that it needs
		set       any
		want      any // as answered; nil: as set
		change    any
		afterNull any
	}{
		{field: "url", set: "https://hooks.example.com:8443/a?b=c", change: "http://example.com/"},
		{field: "description", set: "orders", change: "more"},
		{field: "metadata", set: map[string]any{"team": "a"}, change: map[string]any{"team": "b"}},
		{field: "timeout", set: "20s", change: "1m", want: "20s"},
		{field: "max_in_flight", set: 7.0, change: 32.0},
		{field: "retry", set: map[string]any{"schedule": []any{"5s", "10m0s"}, "max_age": "1h0m0s"}, change: map[string]any{"schedule": []any{"1s"}, "max_age": "3s"}},
		{field: "signing", set: map[string]any{"scheme": "slack"}, change: map[string]any{"scheme": "github"}},
		{field: "trace_context", set: true, change: false},
		{field: "rate_limit", set: map[string]any{"per_second": 2.5, "burst": 9.0}, change: map[string]any{"per_second": 3.0, "burst": 1.0}},
		{
			field: "breaker", set: map[string]any{"off": true, "failures": 3.0, "failure_percent": 40.0, "min_attempts": 7.0, "window": "30s", "probe_after": "2s", "max_probe_after": "1m0s"},
			change: map[string]any{"off": true, "failures": 4.0, "failure_percent": 41.0, "min_attempts": 8.0, "window": "31s", "probe_after": "3s", "max_probe_after": "2m0s"},
		},
		{field: "ordered", set: true, change: true},
		{field: "on_exhausted", beside: map[string]any{"ordered": true}, set: "block", change: "skip"},
		{field: "shards", set: 4.0, change: 2.0},
		{field: "method", set: "PUT", change: "POST"},
		{field: "format", set: "raw", change: "cloudevents_binary"},
		{field: "compression", set: "gzip", change: "gzip"},
		{field: "headers", set: map[string]any{"X-A": map[string]any{"value": "1"}}, change: map[string]any{"X-A": map[string]any{"value": "2"}}},
	}
	fields := []string{"auth", "tls"}
	for _, tt := range tests {
		fields = append(fields, tt.field)
	}
	slices.Sort(fields)
	if diff := cmp.Diff(members(reflect.TypeFor[EndpointSettings]()), fields); diff != "" {
		t.Errorf("settings and rows (-settings +rows):\n%s", diff)
	}
	for _, tt := range tests {
		t.Run(tt.field, func(t *testing.T) {
			body := map[string]any{"url": "https://example.com/"}
			maps.Copy(body, tt.beside)
			body[tt.field] = tt.set
			made := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", body)
			want := tt.want
			if want == nil {
				want = tt.set
			}
			if diff := cmp.Diff(want, made.body[tt.field]); diff != "" {
				t.Errorf("created (-want +got):\n%s", diff)
			}
			path := at + "/endpoints/" + made.text("id")
			changed := r.must(http.StatusOK, http.MethodPatch, path, map[string]any{tt.field: tt.change})
			if changed.text("etag") == made.text("etag") {
				t.Error("the patch kept the etag")
			}
			read := r.must(http.StatusOK, http.MethodGet, path, nil)
			if diff := cmp.Diff(changed.body, read.body); diff != "" {
				t.Errorf("patched, then read (-want +got):\n%s", diff)
			}
			equal := cmp.Equal(tt.change, read.body[tt.field])
			if tt.field == "timeout" {
				equal = read.body[tt.field] == "1m0s"
			}
			if tt.field == "trace_context" {
				equal = read.body[tt.field] == nil
			}
			if !equal {
				t.Errorf("patched to %v: %v", tt.change, read.body[tt.field])
			}
			reset := r.call(http.MethodPatch, path, map[string]any{tt.field: nil})
			if tt.field == "url" {
				if reset.status != http.StatusUnprocessableEntity || pointers(reset) != "/url" {
					t.Errorf("url null: %d %s", reset.status, reset.raw)
				}
				return
			}
			if reset.status != http.StatusOK || reset.body[tt.field] != nil {
				t.Errorf("null: %d, %s is %v", reset.status, tt.field, reset.body[tt.field])
			}
		})
	}
}

// members are the JSON names of a struct's fields, those of embedded ones among them,
// sorted.
func members(of reflect.Type) (names []string) {
	for f := range of.Fields() {
		if f.Anonymous {
			names = append(names, members(f.Type)...)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// pointers are the pointers of a problem's errors, joined by spaces.
func pointers(a reply) string {
	var out []string
	errs, _ := a.body["errors"].([]any)
	for _, e := range errs {
		m, _ := e.(map[string]any)
		p, _ := m["pointer"].(string)
		out = append(out, p)
	}
	return strings.Join(out, " ")
}

func TestEndpointLife(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	made := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", map[string]any{
		"url": "https://example.com/", "metadata": map[string]any{"a": "1", "b": "2"},
		"retry":         map[string]any{"schedule": []any{"1s"}, "max_age": "1h"},
		"subscriptions": []any{map[string]any{"types": []any{"order.*"}, "filter": "data.total > 100"}, map[string]any{}},
	})
	id := made.text("id")
	path := at + "/endpoints/" + id
	if got := made.header.Get("Location"); got != path {
		t.Errorf("Location %q, want %q", got, path)
	}
	if strings.Contains(string(made.raw), "whsec_") {
		t.Error("the answer shows the secret")
	}
	subs := r.must(http.StatusOK, http.MethodGet, at+"/subscriptions?endpoint="+id, nil)
	want := []any{
		map[string]any{"tenant": "acme", "endpoint_id": id, "types": []any{"order.*"}, "filter": "data.total > 100"},
		map[string]any{"tenant": "acme", "endpoint_id": id, "types": []any{"*"}},
	}
	if diff := cmp.Diff(want, subs.body["data"], volatile()); diff != "" {
		t.Errorf("subscriptions (-want +got):\n%s", diff)
	}
	patched := r.must(http.StatusOK, http.MethodPatch, path, map[string]any{
		"metadata": map[string]any{"a": nil, "c": "3"}, "retry": map[string]any{"max_age": "2h"},
	}, with("Content-Type", "application/merge-patch+json"))
	wantPatched := map[string]any{
		"metadata": map[string]any{"b": "2", "c": "3"}, "retry": map[string]any{"schedule": []any{"1s"}, "max_age": "2h0m0s"},
	}
	if diff := cmp.Diff(wantPatched, map[string]any{"metadata": patched.body["metadata"], "retry": patched.body["retry"]}); diff != "" {
		t.Errorf("merge patch (-want +got):\n%s", diff)
	}
	r.must(http.StatusPreconditionFailed, http.MethodDelete, path, nil, with("If-Match", made.text("etag")))
	r.must(http.StatusNoContent, http.MethodDelete, path, nil, with("If-Match", patched.text("etag")))
	r.must(http.StatusNotFound, http.MethodGet, path, nil)
	r.must(http.StatusNotFound, http.MethodDelete, path, nil)
	if left := r.must(http.StatusOK, http.MethodGet, at+"/subscriptions", nil); len(ids(left)) != 0 {
		t.Errorf("subscriptions of the deleted endpoint: %s", left.raw)
	}
	none := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", `{"url":"https://example.com/","subscriptions":[]}`)
	if left := r.must(http.StatusOK, http.MethodGet, at+"/subscriptions?endpoint="+none.text("id"), nil); len(ids(left)) != 0 {
		t.Errorf("an empty list made subscriptions: %s", left.raw)
	}
}

func TestSubscriptions(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	id, _ := r.endpoint(at)
	made := r.must(http.StatusCreated, http.MethodPost, at+"/subscriptions", map[string]any{
		"endpoint_id": id, "types": []any{"order.*", "invoice.paid"}, "filter": "data.total > 100",
	})
	path := at + "/subscriptions/" + made.text("id")
	if got := made.header.Get("Location"); got != path {
		t.Errorf("Location %q, want %q", got, path)
	}
	read := r.must(http.StatusOK, http.MethodGet, path, nil)
	if diff := cmp.Diff(made.body, read.body); diff != "" {
		t.Errorf("read (-created +read):\n%s", diff)
	}
	patched := r.must(http.StatusOK, http.MethodPatch, path, map[string]any{"filter": nil, "types": []any{"order.paid"}}, with("If-Match", made.text("etag")))
	want := map[string]any{"tenant": "acme", "endpoint_id": id, "types": []any{"order.paid"}}
	if diff := cmp.Diff(want, patched.body, volatile()); diff != "" {
		t.Errorf("patched (-want +got):\n%s", diff)
	}
	all := r.must(http.StatusOK, http.MethodPatch, path, map[string]any{"types": nil})
	if diff := cmp.Diff([]any{"*"}, all.body["types"]); diff != "" {
		t.Errorf("types null (-want +got):\n%s", diff)
	}
	r.must(http.StatusPreconditionFailed, http.MethodPatch, path, map[string]any{"filter": "true"}, with("If-Match", made.text("etag")))
	r.must(http.StatusNoContent, http.MethodDelete, path, nil)
	r.must(http.StatusNotFound, http.MethodPatch, path, map[string]any{"filter": "true"})
}

func TestDryRun(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	outcomes := map[string]string{}
	for name, sub := range map[string]map[string]any{
		"matched": {"types": []any{"order.*"}, "filter": "data.total > 100"}, "filtered": {"filter": "data.total < 100"},
		"type_not_matched": {"types": []any{"invoice.*"}}, "filter_error": {"filter": "data.nothing.here == 1"},
	} {
		made := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", map[string]any{"url": "https://example.com/", "subscriptions": []any{sub}})
		outcomes[made.text("id")] = name
	}
	id, path := r.endpoint(at)
	outcomes[id] = "disabled"
	r.must(http.StatusOK, http.MethodPost, path+"/disable", nil)
	// What a disabled endpoint never asked for is not its state's fault.
	other := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", `{"url":"https://example.com/","subscriptions":[{"types":["invoice.*"]}]}`).text("id")
	outcomes[other] = "type_not_matched"
	r.must(http.StatusOK, http.MethodPost, at+"/endpoints/"+other+"/disable", nil)
	got := r.must(http.StatusOK, http.MethodPost, at+"/subscriptions/match", `{"type":"order.paid","data":{"total":101}}`)
	var answer verdicts
	if err := json.Unmarshal(got.raw, &answer); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, v := range answer.Verdicts {
		found[v.EndpointID] = v.Outcome
		if want := map[bool]string{true: "disabled", false: "enabled"}[v.EndpointID == id || v.EndpointID == other]; v.EndpointState != want {
			t.Errorf("state of %s (%s): %q, want %q", v.EndpointID, v.Outcome, v.EndpointState, want)
		}
	}
	if diff := cmp.Diff(outcomes, found); diff != "" || answer.Matched != 1 {
		t.Errorf("matched %d, outcomes (-want +got):\n%s", answer.Matched, diff)
	}
	// An event is taken with every member that the intake takes, too.
	r.must(http.StatusOK, http.MethodPost, at+"/subscriptions/match", `{"type":"order.paid","id":"1","source":"/s","subject":"a","time":"2026-11-28T06:00:00Z",
		"tenant":"acme","partitionkey":"p","datacontenttype":"application/json","dataschema":"https://example.com/s","extensions":{"x":"1"},"data":{"total":101}}`)
	refused := r.call(http.MethodPost, at+"/subscriptions/match", `{"type":"order.paid","tenant":"other"}`)
	if refused.status != http.StatusUnprocessableEntity || pointers(refused) != "/tenant" {
		t.Errorf("an event of another tenant: %d %s", refused.status, refused.raw)
	}
}

func TestVerbs(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	id, path := r.endpoint(at)
	steps := []struct {
		verb   string
		status int
		state  string // afterwards
		writes bool
	}{
		{"resume", 200, "enabled", false},
		{"enable", 200, "enabled", false},
		{"pause", 200, "paused", true},
		{"pause", 200, "paused", false},
		{"enable", 409, "paused", false},
		{"resume", 200, "enabled", true},
		{"disable", 200, "disabled", true},
		{"disable", 200, "disabled", false},
		{"pause", 409, "disabled", false},
		{"resume", 409, "disabled", false},
		{"test", 409, "disabled", false},
		{"enable", 200, "enabled", true},
		{"pause", 200, "paused", true},
		{"disable", 200, "disabled", true},
	}
	for i, step := range steps {
		before := r.must(200, http.MethodGet, path, nil)
		got := r.call(http.MethodPost, path+"/"+step.verb, nil)
		after := r.must(200, http.MethodGet, path, nil)
		if got.status != step.status || after.text("state") != step.state || after.text("effective_state") != step.state {
			t.Errorf("step %d, %s: status %d, want %d; state %s: %s", i, step.verb, got.status, step.status, after.text("state"), got.raw)
		}
		if step.status == 409 && got.text("code") != "invalid_state" {
			t.Errorf("step %d, %s: code %q", i, step.verb, got.text("code"))
		}
		if wrote := before.text("etag") != after.text("etag"); wrote != step.writes {
			t.Errorf("step %d, %s: written %t, want %t", i, step.verb, wrote, step.writes)
		}
	}
	stale := r.call(http.MethodPost, path+"/enable", nil, with("If-Match", `"999"`))
	if stale.status != http.StatusPreconditionFailed {
		t.Errorf("If-Match on a verb of %s: %d", id, stale.status)
	}
}

func TestRotateSecret(t *testing.T) {
	r := newRig(t)
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r.now.Store(&begin)
	at := r.tenant("acme")
	own := signature.NewSecret()
	made := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", map[string]any{"url": "https://example.com/", "secret": own})
	path := at + "/endpoints/" + made.text("id")
	if got := r.must(200, http.MethodGet, path+"/secret", nil).text("secret"); got != own {
		t.Errorf("the given secret was not kept")
	}
	first := r.must(200, http.MethodPost, path+"/rotate-secret", nil)
	if _, err := signature.Parse(first.text("secret")); err != nil || first.text("secret") == own {
		t.Errorf("rotated to %v", err)
	}
	next := signature.NewSecret()
	second := r.must(200, http.MethodPost, path+"/rotate-secret", map[string]any{"secret": next, "overlap": "1h"})
	repeat := r.must(200, http.MethodPost, path+"/rotate-secret", map[string]any{"secret": next, "overlap": "1h"})
	if second.header.Get("ETag") != repeat.header.Get("ETag") || second.text("secret") != next {
		t.Error("the repeat with the same secret wrote again")
	}
	hour := begin.Add(time.Hour).Format(time.RFC3339)
	want := []any{nil, hour, hour}
	if diff := cmp.Diff(want, expiries(r.must(200, http.MethodGet, path, nil))); diff != "" {
		t.Errorf("expiries (-want +got):\n%s", diff)
	}
	full := r.call(http.MethodPost, path+"/rotate-secret", nil)
	if full.status != http.StatusConflict || full.text("code") != "too_many_secrets" {
		t.Errorf("a fourth secret: %d %s", full.status, full.raw)
	}
	later := begin.Add(time.Hour)
	r.now.Store(&later)
	r.must(200, http.MethodPost, path+"/rotate-secret", nil)
	day := later.Add(24 * time.Hour).Format(time.RFC3339)
	if diff := cmp.Diff([]any{nil, day}, expiries(r.must(200, http.MethodGet, path, nil))); diff != "" {
		t.Errorf("after the old ones ended (-want +got):\n%s", diff)
	}
	r.must(200, http.MethodPost, path+"/rotate-secret", map[string]any{"overlap": "0s"})
	if diff := cmp.Diff([]any{nil}, expiries(r.must(200, http.MethodGet, path, nil))); diff != "" {
		t.Errorf("without overlap (-want +got):\n%s", diff)
	}
}

func expiries(endpoint reply) (out []any) {
	secrets, _ := endpoint.body["secrets"].([]any)
	for _, s := range secrets {
		m, _ := s.(map[string]any)
		out = append(out, m["expires_at"])
	}
	return out
}
