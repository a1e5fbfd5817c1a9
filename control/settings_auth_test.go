package control

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/testkit"
)

// object is a JSON object.
type object = map[string]any

// stored reads an endpoint as deliver does.
func (r *rig) stored(id string) *registry.Endpoint {
	r.t.Helper()
	found, err := r.view.Entities(r.t.Context(), []registry.Ref{{Tenant: "acme", Entity: id}})
	if err != nil || !found[0].OK {
		r.t.Fatal(err, found)
	}
	e, err := registry.Decode[registry.Endpoint](found[0].Value)
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// opens unseals a field of an endpoint.
func (r *rig) opens(e *registry.Endpoint, sealed, field string) string {
	r.t.Helper()
	plain, err := r.deps.Sealer.Open(sealed, "acme", e.ID, field)
	if err != nil {
		r.t.Errorf("open %s: %v", field, err)
	}
	return string(plain)
}

// secretRow is a secret of an endpoint: how it is set, how it is shown, a change
// beside it, and where deliver finds it.
type secretRow struct {
	field               string
	set, shown, besides object
	after               object
	find                func(*registry.Endpoint) (sealed, field string)
}

func secretRows(cert, key string) []secretRow {
	return []secretRow{
		{
			"auth.bearer",
			object{"auth": object{"bearer": object{"token": "hush-1"}}},
			object{"auth": object{"bearer": object{"token": "(redacted)"}}},
			object{"description": "a"},
			nil,
			func(e *registry.Endpoint) (string, string) { return e.Auth.Bearer.Token, registry.FieldBearer },
		},
		{
			"auth.basic",
			object{"auth": object{"basic": object{"username": "jo", "password": "hush-1"}}},
			object{"auth": object{"basic": object{"username": "jo", "password": "(redacted)"}}},
			object{"auth": object{"basic": object{"username": "jim"}}},
			object{"auth": object{"basic": object{"username": "jim", "password": "(redacted)"}}},
			func(e *registry.Endpoint) (string, string) { return e.Auth.Basic.Password, registry.FieldBasic },
		},
		{
			"auth.oauth2",
			object{"auth": object{"oauth2": object{
				"token_url": "https://hooks.example.com/token?a=query", "client_id": "c", "client_secret": "hush-1", "scopes": []any{"a", "b"}, "audience": "x", "style": "body",
			}}},
			object{"auth": object{"oauth2": object{
				"token_url": "https://hooks.example.com/token?a=query", "client_id": "c", "client_secret": "(redacted)", "scopes": []any{"a", "b"}, "audience": "x", "style": "body",
			}}},
			object{"auth": object{"oauth2": object{"scopes": []any{"c"}, "audience": nil, "style": nil}}},
			object{"auth": object{"oauth2": object{
				"token_url": "https://hooks.example.com/token?a=query", "client_id": "c", "client_secret": "(redacted)", "scopes": []any{"c"},
			}}},
			func(e *registry.Endpoint) (string, string) { return e.Auth.OAuth2.ClientSecret, registry.FieldOAuth2 },
		},
		{
			"headers",
			object{"headers": object{"X-Key": object{"value": "hush-1", "secret": true}, "x-plain": object{"value": "seen"}, "X-Old": object{"value": "1"}}},
			object{"headers": object{"X-Key": object{"value": "(redacted)", "secret": true}, "x-plain": object{"value": "seen"}, "X-Old": object{"value": "1"}}},
			object{"headers": object{"x-plain": object{"value": "new"}, "X-Old": nil}},
			object{"headers": object{"X-Key": object{"value": "(redacted)", "secret": true}, "x-plain": object{"value": "new"}}},
			func(e *registry.Endpoint) (string, string) {
				return e.Headers["X-Key"].Sealed, registry.HeaderField("X-Key")
			},
		},
		{
			"tls",
			object{"tls": object{"client_certificate": cert, "client_key": key}},
			object{"tls": object{"client_certificate": cert, "client_key": "(redacted)"}},
			object{"tls": object{"ca": cert}},
			object{"tls": object{"client_certificate": cert, "client_key": "(redacted)", "ca": cert}},
			func(e *registry.Endpoint) (string, string) { return e.TLS.Key, registry.FieldTLSKey },
		},
	}
}

// TestSecretsAreKeptAndHidden: each secret reaches deliver sealed, stays when
// something beside it changes or when its placeholder comes back, and is in no
// answer, no audit record and no hash that could be guessed.
func TestSecretsAreKeptAndHidden(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	cert, key := testkit.NewCA(t).Issue(t, "client")
	rows := secretRows(string(cert), string(key))
	for _, row := range rows {
		t.Run(row.field, func(t *testing.T) {
			member, _, _ := strings.Cut(row.field, ".")
			body := object{"url": "https://example.com/"}
			body[member] = row.set[member]
			secret := "hush-1"
			if row.field == "tls" {
				secret = string(key)
			}
			made := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", body, with("Idempotency-Key", row.field))
			path := at + "/endpoints/" + made.text("id")
			check := func(got reply, want any) {
				t.Helper()
				if diff := cmp.Diff(want, got.body[member]); diff != "" {
					t.Errorf("shown (-want +got):\n%s", diff)
				}
				e := r.stored(made.text("id"))
				sealed, field := row.find(e)
				if plain := r.opens(e, sealed, field); plain != secret {
					t.Errorf("deliver finds %q, want %q", plain, secret)
				}
			}
			check(made, row.shown[member])
			check(r.must(http.StatusOK, http.MethodGet, path, nil), row.shown[member])
			check(r.must(http.StatusOK, http.MethodPatch, path, object{member: made.body[member]}), row.shown[member])
			after := row.after
			if after == nil {
				after = row.shown
			}
			check(r.must(http.StatusOK, http.MethodPatch, path, row.besides), after[member])
			doc, _ := json.Marshal(body)
			sum := sha256.Sum256(append([]byte("endpoints\x00"), doc...))
			if hash := r.stored(made.text("id")).Idempotency.Hash; hash == "" || hash == hex.EncodeToString(sum[:]) {
				t.Errorf("hash %s of the request can be guessed", hash)
			}
			if gone := r.must(http.StatusOK, http.MethodPatch, path, object{member: nil}); gone.body[member] != nil {
				t.Errorf("null: %v", gone.body[member])
			}
		})
	}
	if err := r.server.kafka.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, topic := range []string{r.kafka.Topics().Audit, r.kafka.Topics().Registry} {
		for _, rec := range r.log(topic, 0) {
			text := string(rec.Value)
			if strings.Contains(text, "hush-") || strings.Contains(text, "PRIVATE KEY") || topic == r.kafka.Topics().Audit && strings.Contains(text, "a=query") {
				t.Errorf("a secret is in %s: %s", topic, text)
			}
		}
	}
}

// TestChangeOfCredentials: another kind takes the place of the one there was, if
// the patch says so; a placeholder is no value.
func TestChangeOfCredentials(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	made := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", `{"url":"https://example.com/","auth":{"bearer":{"token":"a"}},"headers":{"X":{"value":"b","secret":true}}}`)
	path := at + "/endpoints/" + made.text("id")
	for _, tt := range []struct{ patch, pointers string }{
		{`{"auth":{"basic":{"username":"a","password":"b"}}}`, "/auth"},
		{`{"auth":{"bearer":null}}`, "/auth"},
		{`{"auth":{"bearer":null,"basic":{"username":"a","password":"(redacted)"}}}`, "/auth/basic/password"},
		{`{"auth":{"bearer":{"token":null}}}`, "/auth/bearer/token"},
		{`{"headers":{"X":{"secret":false}}}`, "/headers/X/value"},
		{`{"headers":{"x":{"value":"a"}}}`, "/headers/x"},
		{`{"headers":{"Y":{"value":"(redacted)","secret":true}}}`, "/headers/Y/value"},
		{`{"headers":{"X":{"Value":"a"}}}`, "/headers/X/Value"},
		{`{"headers":{"X":{"colour":"a"}}}`, "/headers/X/colour"},
		{`{"auth":{"oauth2":{"token_url":"https://inside.example.com/"}}}`, "/auth/oauth2/token_url"},
	} {
		if got := r.call(http.MethodPatch, path, tt.patch); got.status != 422 || pointers(got) != tt.pointers {
			t.Errorf("%s: %d %s, want %s", tt.patch, got.status, got.raw, tt.pointers)
		}
	}
	got := r.must(http.StatusOK, http.MethodPatch, path, `{"auth":{"bearer":null,"basic":{"username":"a","password":"b"}},"headers":{"X":{"value":"seen","secret":false}}}`)
	if diff := cmp.Diff([]any{object{"basic": object{"username": "a", "password": "(redacted)"}}, object{"X": object{"value": "seen"}}}, []any{got.body["auth"], got.body["headers"]}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// A password may be empty (RFC 7617): some receivers take a key as the name.
	r.must(http.StatusOK, http.MethodPatch, path, `{"auth":{"basic":{"password":null}}}`)
	e := r.stored(made.text("id"))
	if plain := r.opens(e, e.Auth.Basic.Password, registry.FieldBasic); plain != "" || e.Auth.Basic.Username != "a" {
		t.Errorf("name %q, password %q, want a and none", e.Auth.Basic.Username, plain)
	}
}

// badReceivers are members of an endpoint that are refused.
func badReceivers(t *testing.T) []struct{ member, code, pointers string } {
	t.Helper()
	quoted := func(text []byte) string { return fmt.Sprintf("%q", text) }
	ca := testkit.NewCA(t)
	cert, key := ca.Issue(t, "a")
	_, otherKey := ca.Issue(t, "b")
	ca.Ends = time.Now().Add(-time.Minute)
	oldCert, oldKey := ca.Issue(t, "c")
	pair := func(cert, key []byte) string {
		return `"tls":{"client_certificate":` + quoted(cert) + `,"client_key":` + quoted(key) + `}`
	}
	basic := func(name, password string) string {
		return fmt.Sprintf(`"auth":{"basic":{"username":%q,"password":%q}}`, name, password)
	}
	oauth := func(more string) string {
		return `"auth":{"oauth2":{"token_url":"https://example.com/t","client_id":"c","client_secret":"s"` + more + `}}`
	}
	header := func(name, value string) string { return fmt.Sprintf(`"headers":{%q:{"value":%q}}`, name, value) }
	rows := []struct{ member, code, pointers string }{
		{`"method":"GET"`, "validation_failed", "/method"},
		{`"format":"xml"`, "validation_failed", "/format"},
		{`"format":"thin"`, "validation_failed", "/format"},
		{`"compression":"br"`, "validation_failed", "/compression"},
		{`"auth":{}`, "validation_failed", "/auth"},
		{`"auth":{"digest":{}}`, "validation_failed", "/auth/digest"},
		{`"auth":{"bearer":{"token":"a"},"basic":{"username":"a"}}`, "validation_failed", "/auth"},
		{`"auth":{"bearer":{}}`, "validation_failed", "/auth/bearer/token"},
		{`"auth":{"bearer":{"token":""}}`, "validation_failed", "/auth/bearer/token"},
		{`"auth":{"bearer":{"token":"a b"}}`, "validation_failed", "/auth/bearer/token"},
		{`"auth":{"bearer":{"token":"a\r\nX: b"}}`, "validation_failed", "/auth/bearer/token"},
		{`"auth":{"bearer":{"token":"(redacted)"}}`, "validation_failed", "/auth/bearer/token"},
		{`"auth":{"bearer":{"token":"` + strings.Repeat("a", 4097) + `"}}`, "validation_failed", "/auth/bearer/token"},
		{basic("a:b", "c"), "validation_failed", "/auth/basic/username"},
		{basic("", "c"), "validation_failed", "/auth/basic/username"},
		{basic("a", "c\n"), "validation_failed", "/auth/basic/password"},
		{oauth(`,"token_url":"ftp://a"`), "invalid_url", "/auth/oauth2/token_url"},
		{oauth(`,"token_url":"http://10.0.0.1/"`), "blocked_address", "/auth/oauth2/token_url"},
		{oauth(`,"token_url":"https://inside.example.com/"`), "blocked_address", "/auth/oauth2/token_url"},
		{oauth(`,"token_url":"https://u:p@example.com/"`), "url_credentials", "/auth/oauth2/token_url"},
		{oauth(`,"client_id":"ä"`), "validation_failed", "/auth/oauth2/client_id"},
		{oauth(`,"client_secret":"a\nb"`), "validation_failed", "/auth/oauth2/client_secret"},
		{oauth(`,"scopes":["a b"]`), "validation_failed", "/auth/oauth2/scopes/0"},
		{oauth(`,"scopes":["a",""]`), "validation_failed", "/auth/oauth2/scopes/1"},
		{oauth(`,"audience":"a\nb"`), "validation_failed", "/auth/oauth2/audience"},
		{oauth(`,"style":"query"`), "validation_failed", "/auth/oauth2/style"},
		{header("X-A", ""), "validation_failed", "/headers/X-A/value"},
		{header("X-A", " a"), "validation_failed", "/headers/X-A/value"},
		{header("X-A", "a\r\nX-B: c"), "validation_failed", "/headers/X-A/value"},
		{header("X-A", "é"), "validation_failed", "/headers/X-A/value"},
		{header("X-A", strings.Repeat("a", 4097)), "validation_failed", "/headers/X-A/value"},
		{`"headers":{"X-A":{"value":1}}`, "validation_failed", "/headers/X-A/value"},
		{`"headers":{"X-A":{"value":"a"},"x-a":{"value":"b"}}`, "invalid_header", "/headers/x-a"},
		{`"headers":{"A":{"value":"` + strings.Repeat("a", 4096) + `"},"B":{"value":"` + strings.Repeat("a", 4096) + `"}}`, "invalid_header", "/headers"},
		{`"auth":{"bearer":{"token":"a"}},"headers":{"AUTHORIZATION":{"value":"b"}}`, "invalid_header", "/headers/AUTHORIZATION"},
		{`"signing":{"scheme":"stripe"},` + header("stripe-signature", "a"), "invalid_header", "/headers/stripe-signature"},
		{`"signing":{"scheme":"custom","header":"X-Sig","timestamp_header":"X-At"},` + header("x-at", "a"), "invalid_header", "/headers/x-at"},
		{`"tls":{}`, "invalid_certificate", "/tls"},
		{`"tls":{"client_certificate":` + quoted(cert) + `}`, "invalid_certificate", "/tls/client_key"},
		{`"tls":{"client_key":` + quoted(key) + `}`, "invalid_certificate", "/tls/client_certificate"},
		{pair([]byte("x"), key), "invalid_certificate", "/tls/client_certificate"},
		{pair(append(append([]byte(nil), cert...), key...), key), "invalid_certificate", "/tls/client_certificate"},
		{pair(cert, []byte("x")), "invalid_certificate", "/tls/client_key"},
		{pair(cert, otherKey), "invalid_certificate", "/tls/client_key"},
		{pair(cert, []byte("(redacted)")), "validation_failed", "/tls/client_key"},
		{pair(oldCert, oldKey), "invalid_certificate", "/tls/client_certificate"},
		{`"tls":{"ca":` + quoted(append(append([]byte(nil), cert...), key...)) + `}`, "invalid_certificate", "/tls/ca"},
		{`"tls":{"ca":"x"}`, "invalid_certificate", "/tls/ca"},
		{`"tls":{"ca":` + quoted(oldCert) + `}`, "invalid_certificate", "/tls/ca"},
		{`"url":"http://example.com/","tls":{"ca":` + quoted(cert) + `}`, "invalid_certificate", "/tls"},
	}
	for _, name := range []string{
		"", "a b", "ä", "X:", strings.Repeat("a", 129), "Host", "content-length", "Content-Type", "Transfer-Encoding", "Connection", "TE",
		"Webhook-Extra", "postrider-x", "Ce-Type", "Proxy-Authorization", "Traceparent", "Idempotency-Key", "X-Idempotency-Key", ":path",
	} {
		rows = append(rows, struct{ member, code, pointers string }{header(name, "a"), "invalid_header", strings.TrimSuffix("/headers/"+escape(name), "/")})
	}
	return rows
}

// TestBadReceivers has one row for each way in which these settings can be wrong.
// No answer quotes a value.
func TestBadReceivers(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	for _, tt := range badReceivers(t) {
		body := `{"url":"https://example.com/",` + tt.member + `}`
		got := r.call(http.MethodPost, at+"/endpoints", body)
		if got.status != 422 || got.text("code") != tt.code || pointers(got) != tt.pointers {
			t.Errorf("%.120s: %d %s, want %s at %s", tt.member, got.status, got.raw, tt.code, tt.pointers)
		}
	}
	many := make([]string, 21)
	for i := range many {
		many[i] = fmt.Sprintf(`"X-%d":{"value":"a"}`, i)
	}
	if got := r.call(http.MethodPost, at+"/endpoints", `{"url":"https://example.com/","headers":{`+strings.Join(many, ",")+`}}`); got.status != 422 || pointers(got) != "/headers" {
		t.Errorf("21 headers: %d %s", got.status, got.raw)
	}
}

// TestCertificates: when they end is shown; one that has ended since does not
// stand in the way of another change.
func TestCertificates(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	ca := testkit.NewCA(t)
	cert, key := ca.Issue(t, "client")
	made := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", object{
		"url": "https://example.com/", "tls": object{"client_certificate": string(cert), "client_key": string(key), "ca": string(ca.PEM)},
	})
	ends := ca.Ends.UTC().Truncate(time.Second).Format(time.RFC3339)
	if diff := cmp.Diff(object{"client_expires_at": ends, "ca_expires_at": ends}, made.body["certificates"]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	later := time.Now().Add(48 * time.Hour)
	r.now.Store(&later)
	path := at + "/endpoints/" + made.text("id")
	r.must(http.StatusOK, http.MethodPatch, path, `{"description":"a"}`)
	other, otherKey := ca.Issue(t, "other")
	got := r.call(http.MethodPatch, path, object{"tls": object{"client_certificate": string(other), "client_key": string(otherKey)}})
	if got.status != 422 || pointers(got) != "/tls/client_certificate" {
		t.Errorf("a certificate that has ended: %d %s", got.status, got.raw)
	}
	if got := r.must(http.StatusOK, http.MethodPatch, path, `{"tls":{"client_certificate":null,"client_key":null}}`); !reflect.DeepEqual(got.body["certificates"], object{"ca_expires_at": ends}) {
		t.Errorf("without a client certificate: %s", got.raw)
	}
}
