package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/signature"
)

// signed is an endpoint that signs in one way, and who can verify it.
type signed struct {
	*sink
	name     string
	settings settings
	rotate   settings // nil: the secret stays
	scheme   string   // of verify-outbound
	// good verify each request, bad verify none.
	good, bad []string
	config    map[string]any
	lenient   bool
}

// signedEndpoints has one row for each scheme, kind of secret and rotation.
func signedEndpoints() []*signed {
	const shpss, slack, old = "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", "d14e340fd487b99a70004e919cf1543b", "it's an older sécret"
	one, two := signature.NewSecret(), signature.NewSecret()
	first, second := signature.NewSecretOf(signature.KindEd25519), signature.NewSecretOf(signature.KindEd25519)
	custom := map[string]any{
		"scheme": "custom", "header": "X-Own-Signature", "algorithm": "sha512", "encoding": "base64url", "prefix": "own ",
		"template": "{timestamp}\n{id}\n{body}",
	}
	old1 := map[string]any{"scheme": "custom", "header": "X-Own-Signature", "algorithm": "sha1", "encoding": "hex", "prefix": "sha1=", "template": "{body}"}
	return []*signed{
		{name: "v1", settings: settings{"secret": one}, scheme: "standardwebhooks", good: []string{one}, bad: []string{two}},
		{name: "v1, rotated", settings: settings{"secret": one}, rotate: settings{"secret": two}, scheme: "standardwebhooks", good: []string{one, two}},
		{name: "svix", settings: settings{"secret": one}, scheme: "svix", good: []string{one}, bad: []string{two}},
		{name: "v1a", settings: settings{"secret_kind": "ed25519"}, scheme: "standard-webhooks-ed25519", bad: []string{publicOf(first)}},
		{name: "v1a, given and rotated", settings: settings{"secret": first}, rotate: settings{"secret": second}, scheme: "standard-webhooks-ed25519", good: []string{publicOf(first), publicOf(second)}},
		{name: "v1 beside v1a", settings: settings{"secret": one}, rotate: settings{"secret_kind": "ed25519"}, scheme: "standardwebhooks", good: []string{one}, bad: []string{two}},
		{name: "stripe", settings: settings{"secret": one, "signing": settings{"scheme": "stripe"}}, scheme: "stripe", good: []string{one}, bad: []string{two}},
		{name: "stripe, rotated", settings: settings{"secret": old, "signing": settings{"scheme": "stripe"}}, rotate: settings{"secret": two}, scheme: "stripe", good: []string{old, two}},
		{name: "github", settings: settings{"secret": shpss, "signing": settings{"scheme": "github"}}, scheme: "github", good: []string{shpss}, bad: []string{two}},
		{name: "github, rotated", settings: settings{"secret": old, "signing": settings{"scheme": "github"}}, rotate: settings{"secret": shpss}, scheme: "github", good: []string{shpss}, bad: []string{old}},
		{name: "shopify", settings: settings{"secret": shpss, "signing": settings{"scheme": "shopify"}}, scheme: "shopify", good: []string{shpss}, bad: []string{two}, lenient: true},
		{name: "slack", settings: settings{"secret": slack, "signing": settings{"scheme": "slack"}}, scheme: "slack", good: []string{slack}, bad: []string{two}},
		{name: "custom", settings: settings{"secret": slack, "signing": custom}, scheme: "custom", config: custom, good: []string{slack}, bad: []string{two}},
		{name: "custom with sha1", settings: settings{"secret": slack, "signing": old1}, scheme: "custom", config: old1, good: []string{slack}, bad: []string{two}},
	}
}

func publicOf(private string) string {
	key, err := signature.Parse(private)
	if err != nil {
		return ""
	}
	return key.Public()
}

// (5) Each way to sign is verified by the library that the receivers of such
// requests use: what came as it came, and not with one byte changed, nor with
// another secret.
func TestReceiversVerify(t *testing.T) {
	g := newGateway(t).startAll()
	g.tenant()
	endpoints := signedEndpoints()
	for _, e := range endpoints {
		e.sink = newSink(t, nil)
		e.keep = true
		id := g.endpoint(e.URL, e.settings)
		if e.rotate != nil {
			g.insist("POST", "/v1/tenants/acme/endpoints/"+id+"/rotate-secret", e.rotate, nil)
		}
		if e.scheme == "standard-webhooks-ed25519" {
			published := g.publicKeys(id)
			if len(e.good) == 2 && !cmp.Equal([]string{e.good[1], e.good[0]}, published) {
				t.Errorf("%s: keys %v are published, want %v", e.name, published, e.good)
			}
			e.good = published
		}
	}
	g.sendSigned()
	eventually(t, 2*time.Minute, "every event arrived", func() bool {
		for _, e := range endpoints {
			if e.accepted() < 3 {
				return false
			}
		}
		return true
	})
	var requests []captured
	var want []string
	for _, e := range endpoints {
		r, w := e.cases(t)
		requests, want = append(requests, r...), append(want, w...)
	}
	got := verdicts(t, requests)
	for i := range want {
		if verdict, _, _ := strings.Cut(want[i], " "); verdict != got[i].verdict() {
			t.Errorf("%s: the library says %s (%s)", want[i], got[i].verdict(), got[i].Reason)
		}
	}
	t.Logf("%d requests checked for %d endpoints", len(want), len(endpoints))
}

// cases are the requests that came with what must be said of each.
func (e *signed) cases(t *testing.T) (requests []captured, want []string) {
	t.Helper()
	for _, a := range e.arrivals() {
		body, err := base64.StdEncoding.DecodeString(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		if a.Header.Get("Webhook-Id") == "" || a.Header.Get("Webhook-Timestamp") == "" {
			t.Errorf("%s: header %v", e.name, a.Header)
		}
		add := func(verdict, why, secret string, body []byte) {
			requests = append(requests, captured{
				Scheme: e.scheme, Method: "POST", Headers: a.Header, Body: base64.StdEncoding.EncodeToString(body), Secret: secret,
				Config: e.config, Lenient: e.lenient || e.scheme != "github" && !json.Valid(body),
			})
			want = append(want, fmt.Sprintf("%s %s, %s of %.40q", verdict, e.name, why, body))
		}
		for _, secret := range e.good {
			add("valid", "as it came", secret, body)
			changed := bytes.Clone(body)
			changed[len(changed)/2] ^= 1
			add("refused", "a bit changed", secret, changed)
		}
		for _, secret := range e.bad {
			add("refused", "another secret", secret, body)
		}
	}
	return requests, want
}

// sendSigned sends a JSON event, one of other characters, and a form.
func (g *gateway) sendSigned() {
	g.t.Helper()
	for i, e := range []struct{ contentType, body string }{
		{"application/json", `{"total":120,"text":"a/b <c>"}`},
		{"application/json", `{ "text" : "Grüße aus Köln — 日本語 👩‍👧",  "n": 1.50e3 }`},
		{"application/x-www-form-urlencoded", "token=a&text=b%20c+d"},
	} {
		header := http.Header{
			"Content-Type": {e.contentType}, "Ce-Specversion": {"1.0"}, "Ce-Id": {fmt.Sprint("signed-", i)}, "Ce-Source": {"/e2e"},
			"Ce-Type": {"order.paid"}, "Ce-Tenant": {"acme"},
		}
		got, err := g.call("ingest-1", "POST", "/v1/events", header, strings.NewReader(e.body))
		if err != nil || got.status != http.StatusAccepted {
			g.t.Fatalf("%d %s: %v", got.status, got.body, err)
		}
	}
}

// publicKeys fetches an endpoint's public keys without an API key, newest first,
// and checks that the answer can be cached.
func (g *gateway) publicKeys(endpoint string) (keys []string) {
	g.t.Helper()
	url := "http://" + g.proc("control-1").listen + "/.well-known/webhook-keys.json?endpoint_id=" + endpoint
	ask := func(tag string) *http.Response {
		req, err := http.NewRequestWithContext(g.t.Context(), http.MethodGet, url, nil)
		if err != nil {
			g.t.Fatal(err)
		}
		req.Header.Set("If-None-Match", tag)
		resp, err := client.Do(req)
		if err != nil {
			g.t.Fatal(err)
		}
		return resp
	}
	resp := ask("")
	defer func() { _ = resp.Body.Close() }()
	var set struct {
		Keys []struct {
			X         string `json:"x"`
			PublicKey string `json:"public_key"`
		} `json:"keys"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil || resp.StatusCode != http.StatusOK {
		g.t.Fatalf("%d: %v", resp.StatusCode, err)
	}
	for _, key := range set.Keys {
		raw, err := base64.RawURLEncoding.DecodeString(key.X)
		if err != nil || key.PublicKey != "whpk_"+base64.StdEncoding.EncodeToString(raw) {
			g.t.Errorf("key %+v: %v", key, err)
		}
		keys = append(keys, key.PublicKey)
	}
	again := ask(resp.Header.Get("ETag"))
	_ = again.Body.Close()
	if again.StatusCode != http.StatusNotModified || !strings.HasPrefix(resp.Header.Get("Cache-Control"), "public, max-age=") {
		g.t.Errorf("again: %d, Cache-Control %q", again.StatusCode, resp.Header.Get("Cache-Control"))
	}
	return keys
}

// verdict is what a library says of a request.
type verdict struct {
	OK      bool   `json:"ok"`
	Reason  string `json:"reason"`
	Unknown bool   `json:"unknown"`
}

func (v verdict) verdict() string {
	switch {
	case v.Unknown:
		return "unknown"
	case v.OK:
		return "valid"
	}
	return "refused"
}

// verdicts asks the libraries that receivers use about each request.
func verdicts(t *testing.T, requests []captured) []verdict {
	t.Helper()
	dir, err := verifier()
	need(t, err == nil, fmt.Sprintf("receivers' libraries: %v", err))
	var lines bytes.Buffer
	enc := json.NewEncoder(&lines)
	for _, r := range requests {
		if err := enc.Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "node", "verify-outbound.mjs", "--json")
	cmd.Dir, cmd.Stdin = dir, &lines
	out, err := cmd.Output()
	if _, refused := err.(*exec.ExitError); err != nil && !refused { //nolint:errorlint // straight from exec
		t.Fatal(err)
	}
	all := make([]verdict, 0, len(requests))
	for line := range bytes.Lines(out) {
		var v verdict
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, v)
	}
	if len(all) != len(requests) {
		t.Fatalf("%d verdicts on %d requests: %s", len(all), len(requests), firstFailure(out))
	}
	return all
}
