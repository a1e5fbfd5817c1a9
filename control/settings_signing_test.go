package control

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/signature"
)

// TestSigningFields has one row for each field of signing: how it is set, changed
// and taken back. A field without a row fails. (What each does to a request is in
// deliver's TestSigningFields.)
func TestSigningFields(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	rows := map[string][2]string{
		"header": {"X-Signature", "X-Hmac"}, "algorithm": {"sha1", "sha512"}, "encoding": {"base64", "base64url"},
		"prefix": {"sha1=", "v1="}, "start": {"t={timestamp},", "i={id},"}, "separator": {",", ";"},
		"template": {"{body}", "{timestamp}\n{body}"}, "timestamp_header": {"X-Time", "X-At"},
		"id_header": {"X-Id", "X-Delivery"}, "type_header": {"X-Type", "X-Event"}, "scheme": {"stripe", "standard"},
	}
	for f := range reflect.TypeFor[signingSettings]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		row, ok := rows[name]
		if !ok {
			t.Errorf("the field %s has no row", name)
			continue
		}
		set := map[string]any{"scheme": "custom", "header": "X-Signature"}
		if name == "scheme" {
			set = map[string]any{}
		}
		set[name] = row[0]
		made := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", map[string]any{"url": "https://example.com/", "signing": set})
		if diff := cmp.Diff(any(set), made.body["signing"]); diff != "" {
			t.Errorf("%s: created (-want +got):\n%s", name, diff)
		}
		path := at + "/endpoints/" + made.text("id")
		r.must(http.StatusOK, http.MethodPatch, path, map[string]any{"signing": map[string]any{name: row[1]}})
		changed := maps.Clone(set)
		changed[name] = row[1]
		if diff := cmp.Diff(any(changed), r.must(200, http.MethodGet, path, nil).body["signing"]); diff != "" {
			t.Errorf("%s: changed (-want +got):\n%s", name, diff)
		}
		reset := r.call(http.MethodPatch, path, map[string]any{"signing": map[string]any{name: nil}})
		delete(changed, name)
		switch {
		case name == "header":
			if reset.status != http.StatusUnprocessableEntity || pointers(reset) != "/signing/header" {
				t.Errorf("%s: null: %d %s", name, reset.status, reset.raw)
			}
		case name == "scheme":
			if reset.body["signing"] != nil {
				t.Errorf("%s: null: %s", name, reset.raw)
			}
		case !cmp.Equal(any(changed), reset.body["signing"]):
			t.Errorf("%s: null: %s", name, reset.raw)
		}
		if whole := r.must(200, http.MethodPatch, path, map[string]any{"signing": nil}); whole.body["signing"] != nil {
			t.Errorf("%s: signing null: %s", name, whole.raw)
		}
	}
}

// TestBadSigning has one row for each way signing and secrets can be wrong.
func TestBadSigning(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	private := signature.NewSecretOf(signature.KindEd25519)
	for _, tt := range []struct{ name, body, code, pointers string }{
		{"unknown scheme", `"signing":{"scheme":"paypal"}`, "validation_failed", "/signing/scheme"},
		{"unknown field", `"signing":{"scheme":"stripe","colour":1}`, "validation_failed", "/signing/colour"},
		{"no object", `"signing":"stripe"`, "validation_failed", "/signing"},
		{"no header", `"signing":{"scheme":"custom"}`, "invalid_signing", "/signing/header"},
		{"reserved header", `"signing":{"scheme":"custom","header":"webhook-id"}`, "invalid_signing", "/signing/header"},
		{"header in two lines", `"signing":{"scheme":"custom","header":"a\r\nb"}`, "invalid_signing", "/signing/header"},
		{"algorithm", `"signing":{"scheme":"custom","header":"a","algorithm":"md5"}`, "validation_failed", "/signing/algorithm"},
		{"encoding", `"signing":{"scheme":"custom","header":"a","encoding":"raw"}`, "validation_failed", "/signing/encoding"},
		{"template without the body", `"signing":{"scheme":"custom","header":"a","template":"{id}"}`, "invalid_signing", "/signing/template"},
		{"field of a preset", `"signing":{"scheme":"github","prefix":"sha1="}`, "invalid_signing", "/signing/prefix"},
		{"fields without a scheme", `"signing":{"header":"a"}`, "invalid_signing", "/signing/scheme"},
		{"several", `"signing":{"scheme":"custom","start":"{body}","separator":"a"}`, "invalid_signing", "/signing/separator /signing/start /signing/header"},
		{"faults of both kinds", `"signing":{"scheme":"custom","colour":1,"template":"x"}`, "validation_failed", "/signing/colour /signing/header /signing/template"},
		{"text for the standard scheme", `"secret":"it's a secret"`, "invalid_secret", "/secret"},
		{"short text", `"secret":"secret","signing":{"scheme":"github"}`, "invalid_secret", "/secret"},
		{"text that is not printable", `"secret":"secret\u0000secret","signing":{"scheme":"github"}`, "invalid_secret", "/secret"},
		{"long text", `"secret":"` + strings.Repeat("x", 129) + `","signing":{"scheme":"github"}`, "validation_failed", "/secret"},
		{"half a private key", `"secret":"whsk_AAAA"`, "invalid_secret", "/secret"},
		{"public key", `"secret":"whpk_` + strings.Repeat("A", 43) + `="`, "invalid_secret", "/secret"},
		{"private key for an HMAC", `"secret":"` + private + `","signing":{"scheme":"slack"}`, "invalid_secret", "/secret"},
		{"ed25519 for an HMAC", `"secret_kind":"ed25519","signing":{"scheme":"slack"}`, "invalid_secret", "/secret_kind"},
		{"another kind than the secret", `"secret_kind":"hmac","secret":"` + private + `"`, "invalid_secret", "/secret_kind"},
		{"unknown kind", `"secret_kind":"rsa"`, "validation_failed", "/secret_kind"},
	} {
		got := r.call(http.MethodPost, at+"/endpoints", `{"url":"https://example.com/",`+tt.body+`}`)
		type problem struct {
			Status         int
			Code, Pointers string
		}
		if diff := cmp.Diff(problem{422, tt.code, tt.pointers}, problem{got.status, got.text("code"), pointers(got)}); diff != "" {
			t.Errorf("%s (-want +got):\n%s%s", tt.name, diff, got.raw)
		}
		if contains(got.raw, private) || contains(got.raw, "it's a") {
			t.Errorf("%s shows the secret: %s", tt.name, got.raw)
		}
	}
	if left := ids(r.must(200, http.MethodGet, at+"/endpoints", nil)); len(left) != 0 {
		t.Errorf("endpoints were made: %v", left)
	}
}

// opened is an endpoint's secrets in the clear, as deliver reads them.
func (r *rig) opened(endpoint string) (out []string) {
	r.t.Helper()
	found, err := r.view.Entities(r.t.Context(), []registry.Ref{{Tenant: "acme", Entity: endpoint}})
	if err != nil || !found[0].OK {
		r.t.Fatalf("endpoint %s: %v", endpoint, err)
	}
	e, err := registry.Decode[registry.Endpoint](found[0].Value)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, secret := range e.Secrets {
		plain, err := r.deps.Sealer.Open(secret.Sealed, "acme", endpoint, registry.SecretField)
		if err != nil {
			r.t.Fatal(err)
		}
		out = append(out, string(plain))
	}
	return out
}

// kinds is what an answer shows of secrets.
func kinds(endpoint reply) string {
	var out []string
	secrets, _ := endpoint.body["secrets"].([]any)
	for _, s := range secrets {
		m, _ := s.(map[string]any)
		kind, _ := m["kind"].(string)
		if key, _ := m["public_key"].(string); strings.HasPrefix(key, "whpk_") {
			kind += "+"
		}
		out = append(out, kind)
	}
	return strings.Join(out, " ")
}

// A secret's kind is chosen, kept by rotations, and what is private of it is
// shown nowhere, not even to the one who made it.
func TestSecretKinds(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	own := signature.NewSecretOf(signature.KindEd25519)
	key, err := signature.Parse(own)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(own, "whsk_"))
	if err != nil {
		t.Fatal(err)
	}
	seed := "whsk_" + base64.StdEncoding.EncodeToString(raw[:32])
	var answers []reply
	for _, tt := range []struct {
		name  string
		body  map[string]any
		kinds string
	}{
		{"default", nil, "hmac"},
		{"hmac", map[string]any{"secret_kind": "hmac"}, "hmac"},
		{"ed25519", map[string]any{"secret_kind": "ed25519"}, "ed25519+"},
		{"given", map[string]any{"secret": own}, "ed25519+"},
		{"given seed", map[string]any{"secret": seed, "secret_kind": "ed25519"}, "ed25519+"},
		{"text", map[string]any{"secret": "it's a secret", "signing": map[string]any{"scheme": "github"}}, "hmac"},
	} {
		body := map[string]any{"url": "https://example.com/"}
		maps.Copy(body, tt.body)
		made := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", body)
		if got := kinds(made); got != tt.kinds {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.kinds)
		}
		if given, ok := tt.body["secret"]; ok && r.opened(made.text("id"))[0] != given {
			t.Errorf("%s: the given secret was not kept", tt.name)
		}
		if strings.HasPrefix(tt.name, "given") && !contains(made.raw, key.Public()) {
			t.Errorf("%s: another public key: %s", tt.name, made.raw)
		}
		answers = append(answers, made)
	}
	id := answers[2].text("id") // ed25519
	path := at + "/endpoints/" + id
	rotate := func(body map[string]any) reply {
		out := r.must(http.StatusOK, http.MethodPost, path+"/rotate-secret", body)
		read := r.must(http.StatusOK, http.MethodGet, path+"/secret", nil)
		if diff := cmp.Diff(out.body, read.body); diff != "" {
			t.Errorf("rotated, then read (-want +got):\n%s", diff)
		}
		answers = append(answers, out, read, r.must(http.StatusOK, http.MethodGet, path, nil))
		return out
	}
	if same := rotate(map[string]any{}); same.text("kind") != "ed25519" || !strings.HasPrefix(same.text("public_key"), "whpk_") || same.body["secret"] != nil {
		t.Errorf("rotated as it was: %s", same.raw)
	}
	if other := rotate(map[string]any{"secret_kind": "hmac"}); other.text("kind") != "hmac" || !strings.HasPrefix(other.text("secret"), "whsec_") || other.body["public_key"] != nil {
		t.Errorf("rotated to hmac: %s", other.raw)
	}
	if got := kinds(answers[len(answers)-1]); got != "hmac ed25519+ ed25519+" {
		t.Errorf("secrets %q", got)
	}
	given := rotate(map[string]any{"secret": own, "overlap": "0s"})
	if given.text("public_key") != key.Public() || kinds(answers[len(answers)-1]) != "ed25519+" {
		t.Errorf("rotated to a given key: %s", given.raw)
	}
	if again := rotate(map[string]any{"secret": own}); again.header.Get("ETag") != given.header.Get("ETag") {
		t.Error("the repeat with the same key wrote again")
	}
	if err := r.server.kafka.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, rec := range append(r.log(r.kafka.Topics().Audit, 0), r.log(r.kafka.Topics().Registry, 0)...) {
		answers = append(answers, reply{raw: rec.Value})
	}
	for _, a := range answers {
		if contains(a.raw, "whsk_") || contains(a.raw, own[5:40]) {
			t.Errorf("a private key shows in %s", a.raw)
		}
	}
}

// A change of the scheme is refused while a live secret does not fit it.
func TestChangeOfScheme(t *testing.T) {
	r := newRig(t)
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r.now.Store(&begin)
	at := r.tenant("acme")
	made := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", map[string]any{
		"url": "https://example.com/", "secret": "it's a secret", "signing": map[string]any{"scheme": "github"},
	})
	path := at + "/endpoints/" + made.text("id")
	patch := func(scheme any) reply {
		return r.call(http.MethodPatch, path, map[string]any{"signing": map[string]any{"scheme": scheme}})
	}
	refused := func(why string, got reply) {
		t.Helper()
		if got.status != 422 || got.text("code") != "invalid_signing" || pointers(got) != "/signing/scheme" || contains(got.raw, "it's a") {
			t.Errorf("%s: %d %s", why, got.status, got.raw)
		}
	}
	r.must(200, http.MethodPatch, path, map[string]any{"signing": map[string]any{"scheme": "slack"}})
	refused("a text for the standard scheme", patch("standard"))
	refused("a text for the default scheme", patch(nil))
	r.must(200, http.MethodPost, path+"/rotate-secret", map[string]any{"secret": signature.NewSecret(), "overlap": "1h"})
	refused("while the text still signs", patch("standard"))
	later := begin.Add(time.Hour)
	r.now.Store(&later)
	if got := patch("standard"); got.status != 200 || len(r.opened(made.text("id"))) != 1 {
		t.Errorf("after the text ended: %d %s, %d secrets are kept", got.status, got.raw, len(r.opened(made.text("id"))))
	}
	r.must(200, http.MethodPost, path+"/rotate-secret", map[string]any{"secret_kind": "ed25519", "overlap": "0s"})
	refused("ed25519 for an HMAC", patch("stripe"))
	r.must(200, http.MethodPost, path+"/rotate-secret", map[string]any{"secret_kind": "hmac", "overlap": "0s"})
	if got := patch("stripe"); got.status != 200 {
		t.Errorf("a secret of Standard Webhooks as a text: %s", got.raw)
	}
}

// keys reads the public keys of an endpoint as a receiver does: without a key.
func (r *rig) keys(query string, options ...option) (status int, header http.Header, body []byte) {
	r.t.Helper()
	q, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url+"/.well-known/webhook-keys.json"+query, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, o := range options {
		o(q)
	}
	resp, err := r.http.Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var doc json.RawMessage
	if resp.StatusCode != http.StatusNotModified {
		if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
			r.t.Fatal(err)
		}
	}
	return resp.StatusCode, resp.Header, doc
}

func TestWebhookKeys(t *testing.T) {
	r := newRig(t)
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r.now.Store(&begin)
	at := r.tenant("acme")
	own := signature.NewSecretOf(signature.KindEd25519)
	key, err := signature.Parse(own)
	if err != nil {
		t.Fatal(err)
	}
	made := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", map[string]any{"url": "https://example.com/", "secret": own})
	id, path := made.text("id"), at+"/endpoints/"+made.text("id")
	hmac, _ := r.endpoint(at)

	status, header, body := r.keys("?endpoint_id=" + id)
	raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(key.Public(), "whpk_"))
	want := `{"endpoint_id":"` + id + `","keys":[{"kty":"OKP","crv":"Ed25519","x":"` + base64.RawURLEncoding.EncodeToString(raw) +
		`","use":"sig","public_key":"` + key.Public() + `","created_at":"2026-01-02T03:04:05Z"}]}`
	if diff := cmp.Diff(want, string(body)); status != 200 || diff != "" {
		t.Errorf("status %d (-want +got):\n%s", status, diff)
	}
	tag := header.Get("ETag")
	if got := header.Get("Cache-Control"); got != "public, max-age=300, must-revalidate" || tag == "" {
		t.Errorf("Cache-Control %q, ETag %q", got, tag)
	}
	for given, want := range map[string]int{tag: 304, `"x", W/` + tag: 304, "*": 304, `"x"`: 200, "": 200} {
		if status, header, _ := r.keys("?endpoint_id="+id, with("If-None-Match", given)); status != want || header.Get("ETag") != tag {
			t.Errorf("If-None-Match %q: %d, ETag %s", given, status, header.Get("ETag"))
		}
	}

	r.must(200, http.MethodPost, path+"/rotate-secret", map[string]any{"overlap": "1m"})
	r.must(200, http.MethodPost, path+"/rotate-secret", map[string]any{"secret_kind": "hmac", "overlap": "1h"})
	shown := func() (keys []webhookKey, header http.Header) {
		_, header, body := r.keys("?endpoint_id=" + id)
		var out webhookKeys
		if err := json.Unmarshal(body, &out); err != nil {
			t.Fatal(err)
		}
		return out.Keys, header
	}
	keys, header := shown()
	if len(keys) != 2 || keys[1].PublicKey != key.Public() || keys[0].ExpiresAt == nil || !keys[1].ExpiresAt.Equal(begin.Add(time.Minute)) {
		t.Errorf("rotated: %+v", keys)
	}
	if got := header.Get("Cache-Control"); got != "public, max-age=60, must-revalidate" || header.Get("ETag") == tag {
		t.Errorf("while a key is about to end: Cache-Control %q, ETag %s", got, header.Get("ETag"))
	}
	later := begin.Add(time.Minute)
	r.now.Store(&later)
	if keys, _ := shown(); len(keys) != 1 || keys[0].PublicKey == key.Public() {
		t.Errorf("after a key ended: %+v", keys)
	}
	later = begin.Add(time.Hour)
	r.now.Store(&later)
	other := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", `{"url":"https://example.com/","secret_kind":"ed25519","description":"\"public_key\""}`).text("id")
	if status, _, body := r.keys("?endpoint_id=" + other); status != 200 || strings.Contains(string(body), "whsk_") {
		t.Errorf("another endpoint: %d %s", status, body)
	}
	r.must(http.StatusNoContent, http.MethodDelete, at+"/endpoints/"+other, nil)
	for query, want := range map[string]int{
		"?endpoint_id=" + id:                      404, // all its keys ended
		"?endpoint_id=" + other:                   404, // deleted
		"?endpoint_id=" + hmac:                    404,
		"?endpoint_id=ep_none":                    404,
		"?endpoint_id=" + strings.Repeat("x", 65): 422,
		"?endpoint_id=":                           422,
		"":                                        422,
		"?tenant=acme":                            422,
		"?endpoint_id=" + id + "&endpoint_id=" + hmac: 404,
	} {
		if status, header, body := r.keys(query); status != want || header.Get("Cache-Control") != "no-store" {
			t.Errorf("%q: %d, want %d: %s", query, status, want, body)
		}
	}
}

// A process that has just begun answers 503 rather than "no such keys" until it
// knows them all.
func TestWebhookKeysBeforeTheIndex(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	id := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", `{"url":"https://example.com/","secret_kind":"ed25519"}`).text("id")
	empty := newTenantIndex()
	s := &Server{cfg: r.server.cfg, kafka: r.server.kafka, topics: r.server.topics, tenants: empty}
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.publicSecrets(soon, id); failureOf(err).status != http.StatusServiceUnavailable {
		t.Errorf("before the index: %v", err)
	}
	if empty.whole.Load() {
		t.Error("an empty index counts as whole")
	}
	second := r.url
	r.start() // another control process
	if status, _, body := r.keys("?endpoint_id=" + id); status != 200 {
		t.Errorf("another process: %d %s (the first is at %s)", status, body, second)
	}
}
