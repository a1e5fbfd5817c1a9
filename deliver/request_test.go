package deliver

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/signature"
	"github.com/postrider/postrider/schemas"
)

// JSON data is wrapped, anything else is sent as it came.
func TestNewBody(t *testing.T) {
	for _, test := range []struct {
		name, contentType, data string
		wantType, wantBody      string
	}{
		{"json", "application/json", `{"n": 1}`, "application/json", `{"type":"order.paid","timestamp":"2026-11-22T10:00:00Z","data":{"n": 1}}`},
		{"json by default", "", `[1]`, "application/json", `{"type":"order.paid","timestamp":"2026-11-22T10:00:00Z","data":[1]}`},
		{"json with charset", "application/json; charset=utf-8", `"a"`, "application/json", `{"type":"order.paid","timestamp":"2026-11-22T10:00:00Z","data":"a"}`},
		{"json suffix", "application/vnd.x+json", `1`, "application/json", `{"type":"order.paid","timestamp":"2026-11-22T10:00:00Z","data":1}`},
		{"no data", "application/json", ``, "application/json", `{"type":"order.paid","timestamp":"2026-11-22T10:00:00Z","data":null}`},
		{"invalid json", "application/json", `{"n":`, "application/json", `{"n":`},
		{"xml", "application/xml", `<a/>`, "application/xml", `<a/>`},
		{"form", "application/x-www-form-urlencoded", `a=1`, "application/x-www-form-urlencoded", `a=1`},
		{"binary", "application/octet-stream", "\x00\xff", "application/octet-stream", "\x00\xff"},
		{"binary without a type", "", "\x00\xff", "application/octet-stream", "\x00\xff"},
		{"empty text", "text/plain", "", "text/plain", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := &schemas.Event{Type: "order.paid", Time: "2026-11-22T10:00:00Z", DataContentType: test.contentType, Data: []byte(test.data)}
			body, contentType := newBody(e)
			if contentType != test.wantType || string(body) != test.wantBody {
				t.Errorf("%s %q, want %s %q", contentType, body, test.wantType, test.wantBody)
			}
		})
	}
	e := &schemas.Event{Type: "ä\"\n", Data: []byte("1")}
	if body, _ := newBody(e); string(body) != `{"type":"ä\"\n","timestamp":"","data":1}` {
		t.Errorf("body %s", body)
	}
}

// plainSealer takes what is sealed as it is.
type plainSealer struct{}

func (plainSealer) Open(sealed, tenant, entity, field string) ([]byte, error) {
	if tenant != "acme" || entity != "ep_1" || field != "secret" {
		return nil, errors.New("wrong associated data")
	}
	return []byte(sealed), nil
}

// headerOf returns the header as a receiver reads it.
func headerOf(req *egress.Request) http.Header {
	h := http.Header{}
	for _, f := range req.Fields {
		h.Add(f.Name, f.Value)
	}
	return h
}

// Each field of an endpoint has its effect on attempts; zero is the default.
func TestTargetFields(t *testing.T) {
	now := time.Now()
	secrets := []string{signature.NewSecret(), signature.NewSecret(), signature.NewSecret()}
	base := func() *registry.Endpoint {
		return &registry.Endpoint{ID: "ep_1", Tenant: "acme", URL: "https://a.example/x?y=1", Secrets: []registry.Secret{{Sealed: secrets[0]}}}
	}
	made := func(change func(*registry.Endpoint)) *target {
		t.Helper()
		e := base()
		change(e)
		got, err := newTarget(e, 7, 0, plainSealer{}, DefaultMaxAge)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	d := &schemas.Delivery{EventID: "evt_1", Attempt: 2, Event: schemas.Event{Hops: 2, Data: []byte("1")}}
	request := func(x *target) map[string]string {
		req := newRequest(x, d, "00-1-2-01", now)
		out := map[string]string{"url": req.URL.String(), "method": req.Method, "timeout": req.Timeout.String(), "body": string(req.Body)}
		for k, v := range headerOf(req) {
			out[k] = strings.Join(v, ",")
		}
		return out
	}
	plain := made(func(*registry.Endpoint) {})
	got := request(plain)
	delete(got, "Webhook-Signature")
	want := map[string]string{
		"url": "https://a.example/x?y=1", "method": "POST", "timeout": "15s", "body": `{"type":"","timestamp":"","data":1}`,
		"Content-Type": "application/json", "Postrider-Attempt": "2", "Postrider-Hops": "3", "Webhook-Id": "evt_1",
		"Webhook-Timestamp": signature.Timestamp(now),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(DefaultSchedule(), plain.schedule); diff != "" || plain.maxAge != DefaultMaxAge || plain.maxInFlight != MaxInFlight {
		t.Errorf("defaults %+v %s", plain, diff)
	}
	if x := made(func(e *registry.Endpoint) { e.Timeout = registry.Duration(3 * time.Second) }); request(x)["timeout"] != "3s" {
		t.Error("timeout has no effect")
	}
	if x := made(func(e *registry.Endpoint) { e.TraceContext = true }); request(x)["Traceparent"] != "00-1-2-01" {
		t.Error("trace_context has no effect")
	}
	if x := made(func(e *registry.Endpoint) { e.MaxInFlight = 3 }); x.maxInFlight != 3 {
		t.Error("max_in_flight has no effect")
	}
	if x := made(func(e *registry.Endpoint) { e.Retry.MaxAge = registry.Duration(time.Hour) }); x.maxAge != time.Hour {
		t.Error("retry.max_age has no effect")
	}
	if x := made(func(e *registry.Endpoint) { e.Retry.MaxAge = registry.Duration(100 * DefaultMaxAge) }); x.maxAge != DefaultMaxAge {
		t.Error("the worker's max_age does not bound the endpoint's")
	}
	if x := made(func(e *registry.Endpoint) { e.Retry.Schedule = []registry.Duration{1, 2} }); len(x.schedule) != 2 || x.schedule[1] != 2 {
		t.Error("retry.schedule has no effect")
	}
	rotated := made(func(e *registry.Endpoint) {
		e.Secrets = []registry.Secret{
			{Sealed: secrets[0]}, {Sealed: secrets[1], ExpiresAt: now.Add(time.Hour)}, {Sealed: secrets[2], ExpiresAt: now.Add(-time.Hour)},
		}
	})
	if n := len(strings.Fields(request(rotated)["Webhook-Signature"])); n != 2 {
		t.Errorf("%d signatures while a secret is rotated, want 2", n)
	}
	for i, secret := range secrets {
		key, err := signature.Parse(secret)
		if err != nil {
			t.Fatal(err)
		}
		req := newRequest(rotated, d, "", now)
		if err := signature.Verify([]signature.Key{key}, headerOf(req), req.Body, now, time.Minute); (err == nil) != (i < 2) {
			t.Errorf("secret %d: %v", i, err)
		}
	}
	for name, change := range map[string]func(*registry.Endpoint){
		"url": func(e *registry.Endpoint) { e.URL = "https://a b\x00" }, "seal": func(e *registry.Endpoint) { e.Tenant = "other" },
		"secret": func(e *registry.Endpoint) { e.Secrets[0].Sealed = "whsec_x" },
	} {
		e := base()
		change(e)
		if _, err := newTarget(e, 7, 0, plainSealer{}, DefaultMaxAge); err == nil || strings.Contains(err.Error(), "whsec_x") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// Each field of Config is checked.
func TestConfigIsChecked(t *testing.T) {
	ok := Config{Instance: "w", Slots: 8}.withDefaults()
	if err := ok.validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"instance": func(c *Config) { c.Instance = "" }, "slots": func(c *Config) { c.Slots = 3 }, "many slots": func(c *Config) { c.Slots = 1 << 18 },
		"max age": func(c *Config) { c.MaxAge = time.Second }, "drain": func(c *Config) { c.Drain = time.Hour },
		"max lanes": func(c *Config) { c.MaxLanes = -1 }, "max waiting": func(c *Config) { c.MaxWaiting = -1 },
	} {
		c := ok
		if change(&c); c.validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
