package deliver

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/signature"
	"github.com/postrider/postrider/schemas"
)

// signedRequest is the header and body of one attempt of an endpoint.
func signedRequest(t *testing.T, e *registry.Endpoint, now time.Time) (http.Header, []byte) {
	t.Helper()
	x, err := newTarget(e, 7, 0, plainSealer{}, DefaultMaxAge)
	if err != nil {
		t.Fatal(err)
	}
	d := &schemas.Delivery{EventID: "evt_1", Attempt: 1, Event: schemas.Event{Type: "order.paid", Data: []byte(`{"a":1}`)}}
	req := newRequest(x, d, "", now)
	return headerOf(req), req.Body
}

func sum(fresh func() hash.Hash, secret, text string) []byte {
	h := hmac.New(fresh, []byte(secret))
	h.Write([]byte(text))
	return h.Sum(nil)
}

// TestSigningFields has one row for each field of an endpoint's signing: what it
// puts into the header of an attempt. A field without a row fails.
func TestSigningFields(t *testing.T) {
	const newer, older = "a secret of the receiver's own", "the secret before"
	now := time.Unix(1_700_000_000, 0)
	body := `{"type":"order.paid","timestamp":"","data":{"a":1}}`
	standard := "evt_1.1700000000." + body
	first := hex.EncodeToString(sum(sha256.New, newer, standard))
	rows := map[string]struct {
		set          registry.Signing
		header, want string
	}{
		"Scheme":          {registry.Signing{Scheme: "slack"}, "X-Slack-Signature", "v0=" + hex.EncodeToString(sum(sha256.New, newer, "v0:1700000000:"+body))},
		"Header":          {registry.Signing{Header: "x-own"}, "X-Own", first},
		"Algorithm":       {registry.Signing{Algorithm: "sha512"}, "X-Signature", hex.EncodeToString(sum(sha512.New, newer, standard))},
		"Encoding":        {registry.Signing{Encoding: "base64"}, "X-Signature", base64.StdEncoding.EncodeToString(sum(sha256.New, newer, standard))},
		"Prefix":          {registry.Signing{Prefix: "sha256="}, "X-Signature", "sha256=" + first},
		"Start":           {registry.Signing{Start: "t={timestamp},"}, "X-Signature", "t=1700000000," + first},
		"Separator":       {registry.Signing{Separator: ","}, "X-Signature", first + "," + hex.EncodeToString(sum(sha256.New, older, standard))},
		"Template":        {registry.Signing{Template: "{body}"}, "X-Signature", hex.EncodeToString(sum(sha256.New, newer, body))},
		"TimestampHeader": {registry.Signing{TimestampHeader: "x-time"}, "X-Time", "1700000000"},
		"IDHeader":        {registry.Signing{IDHeader: "x-delivery"}, "X-Delivery", "evt_1"},
		"TypeHeader":      {registry.Signing{TypeHeader: "x-event"}, "X-Event", "order.paid"},
	}
	for f := range reflect.TypeFor[registry.Signing]().Fields() {
		row, ok := rows[f.Name]
		if !ok {
			t.Errorf("the field %s has no row", f.Name)
			continue
		}
		e := &registry.Endpoint{
			ID: "ep_1", Tenant: "acme", URL: "https://a.example/", Signing: row.set,
			Secrets: []registry.Secret{{Sealed: newer}, {Sealed: older, ExpiresAt: now.Add(time.Hour)}},
		}
		if f.Name != "Scheme" {
			e.Signing.Scheme = "custom"
			if row.set.Header == "" {
				e.Signing.Header = "X-Signature"
			}
		}
		header, sent := signedRequest(t, e, now)
		if got := header.Get(row.header); got != row.want || string(sent) != body {
			t.Errorf("%s: %q of %q, want %q", f.Name, got, sent, row.want)
		}
		if header.Get("Webhook-Id") != "evt_1" || header.Get("Webhook-Timestamp") != "1700000000" || header.Get("Webhook-Signature") != "" {
			t.Errorf("%s: header %v", f.Name, header)
		}
	}
}

// The kind of each live secret decides what it signs.
func TestKindsOfSecrets(t *testing.T) {
	now := time.Now()
	symmetric, private := signature.NewSecret(), signature.NewSecretOf(signature.KindEd25519)
	e := &registry.Endpoint{ID: "ep_1", Tenant: "acme", URL: "https://a.example/"}
	for _, test := range []struct {
		name, want string
		secrets    []registry.Secret
	}{
		{"hmac", "v1", []registry.Secret{{Sealed: symmetric}}},
		{"ed25519", "v1a", []registry.Secret{{Sealed: private}}},
		{"both", "v1a v1", []registry.Secret{{Sealed: private}, {Sealed: symmetric, ExpiresAt: now.Add(time.Second)}}},
		{"one ended", "v1a", []registry.Secret{{Sealed: private}, {Sealed: symmetric, ExpiresAt: now}}},
		{"one between ended", "v1a v1a", []registry.Secret{{Sealed: private}, {Sealed: symmetric, ExpiresAt: now}, {Sealed: private}}},
	} {
		e.Secrets = test.secrets
		header, body := signedRequest(t, e, now)
		var versions []string
		for s := range strings.FieldsSeq(header.Get("Webhook-Signature")) {
			version, _, _ := strings.Cut(s, ",")
			versions = append(versions, version)
		}
		if diff := cmp.Diff(test.want, strings.Join(versions, " ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
		key, err := signature.Parse(test.secrets[0].Sealed)
		if err != nil {
			t.Fatal(err)
		}
		if err := signature.Verify([]signature.Key{key}, header, body, now, time.Minute); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// Headers that hold one signature hold that of the newest secret; GitHub's two
// are both there.
func TestPresetHeaders(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	secrets := []registry.Secret{{Sealed: "shpss_0123456789"}, {Sealed: "an older one", ExpiresAt: now.Add(time.Hour)}}
	for scheme, want := range map[string]func(body string) map[string]string{
		"stripe": func(body string) map[string]string {
			one, two := sum(sha256.New, secrets[0].Sealed, "1700000000."+body), sum(sha256.New, secrets[1].Sealed, "1700000000."+body)
			return map[string]string{"Stripe-Signature": "t=1700000000,v1=" + hex.EncodeToString(one) + ",v1=" + hex.EncodeToString(two)}
		},
		"github": func(body string) map[string]string {
			return map[string]string{
				"X-Hub-Signature-256": "sha256=" + hex.EncodeToString(sum(sha256.New, secrets[0].Sealed, body)),
				"X-Hub-Signature":     "sha1=" + hex.EncodeToString(sum(sha1.New, secrets[0].Sealed, body)),
				"X-Github-Event":      "order.paid", "X-Github-Delivery": "evt_1",
			}
		},
		"shopify": func(body string) map[string]string {
			return map[string]string{
				"X-Shopify-Hmac-Sha256": base64.StdEncoding.EncodeToString(sum(sha256.New, secrets[0].Sealed, body)),
				"X-Shopify-Topic":       "order.paid", "X-Shopify-Webhook-Id": "evt_1",
			}
		},
	} {
		header, body := signedRequest(t, &registry.Endpoint{
			ID: "ep_1", Tenant: "acme", URL: "https://a.example/", Signing: registry.Signing{Scheme: scheme}, Secrets: secrets,
		}, now)
		got := map[string]string{}
		for name := range header {
			got[name] = header.Get(name)
		}
		all := want(string(body))
		maps.Copy(all, map[string]string{
			"Content-Type": "application/json", "Postrider-Attempt": "1", "Postrider-Hops": "1",
			"Webhook-Id": "evt_1", "Webhook-Timestamp": "1700000000",
		})
		if diff := cmp.Diff(all, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", scheme, diff)
		}
	}
}

// An endpoint whose stored signing can't be used is told apart, and its secret
// is not shown.
func TestBrokenSigning(t *testing.T) {
	for name, e := range map[string]*registry.Endpoint{
		"scheme":            {Signing: registry.Signing{Scheme: "paypal"}},
		"field":             {Signing: registry.Signing{Scheme: "custom", Header: "Host"}},
		"secret's form":     {Secrets: []registry.Secret{{Sealed: "plain-text-secret"}}},
		"private as a text": {Signing: registry.Signing{Scheme: "github"}, Secrets: []registry.Secret{{Sealed: "whsk_plain-text-secret"}}},
	} {
		e.ID, e.Tenant, e.URL = "ep_1", "acme", "https://a.example/"
		if _, err := newTarget(e, 7, 0, plainSealer{}, DefaultMaxAge); err == nil || strings.Contains(err.Error(), "plain-text-secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
