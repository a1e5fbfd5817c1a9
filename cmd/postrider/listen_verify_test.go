package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/signature"
)

// post sends a request that a scheme signed, and returns the status.
func post(t *testing.T, url string, v verifier, body string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	v.scheme.Sign(req.Header, v.keys, signature.Message{ID: "msg_1", Type: "order.paid", Time: time.Now(), Body: []byte(body)})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// TestListenSchemes runs the command with each way to say what verifies: what the
// endpoint signs is taken, what another secret signs is not.
func TestListenSchemes(t *testing.T) {
	private, symmetric := signature.NewSecretOf(signature.KindEd25519), signature.NewSecret()
	key, err := signature.Parse(private)
	if err != nil {
		t.Fatal(err)
	}
	custom := signature.Spec{Scheme: "custom", Header: "X-Signature", Algorithm: "sha512", Template: "{timestamp}.{body}"}
	answers := map[string]string{
		"/v1/tenants/acme/endpoints/ep_c":                       `{"signing":{"scheme":"custom","header":"X-Signature","algorithm":"sha512","template":"{timestamp}.{body}"},"secrets":[{"kind":"hmac"}]}`,
		"/v1/tenants/acme/endpoints/ep_c/secret":                `{"kind":"hmac","secret":"` + symmetric + `"}`,
		"/v1/tenants/acme/endpoints/ep_a":                       `{"secrets":[{"kind":"ed25519","public_key":"` + key.Public() + `"}]}`,
		"/v1/tenants/acme/endpoints/ep_a/secret":                `{"kind":"ed25519","public_key":"` + key.Public() + `"}`,
		"/.well-known/webhook-keys.json?endpoint_id=ep_a":       `{"endpoint_id":"ep_a","keys":[{"kty":"OKP","public_key":"` + key.Public() + `"}]}`,
		"/v1/tenants/acme/endpoints/ep_broken":                  `{"signing":{"scheme":"paypal"}}`,
		"/v1/tenants/acme/endpoints/ep_broken/secret":           `{"kind":"hmac","secret":"` + symmetric + `"}`,
		"/.well-known/webhook-keys.json?endpoint_id=ep_nobody1": `{"keys":[{"public_key":"whpk_x"}]}`,
	}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.URL.RequestURI()]
		if public := strings.HasPrefix(r.URL.Path, "/.well-known/"); public != (r.Header.Get("Authorization") == "") {
			t.Errorf("%s: Authorization %q", r.URL, r.Header.Get("Authorization"))
		}
		if !ok {
			http.Error(w, "{}", http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(api.Close)
	t.Setenv("POSTRIDER_API", api.URL)
	t.Setenv("POSTRIDER_API_KEY", testKey)
	t.Setenv("POSTRIDER_TENANT", "acme")
	for _, tc := range []struct {
		name, args     string
		spec           signature.Spec
		signs, another string
	}{
		{"v1", "--secret=" + symmetric, signature.Spec{}, symmetric, signature.NewSecret()},
		{"v1a", "--secret=" + key.Public(), signature.Spec{}, private, signature.NewSecretOf(signature.KindEd25519)},
		{"stripe", "--scheme=stripe --secret=" + symmetric, signature.Spec{Scheme: "stripe"}, symmetric, "another secret"},
		{"github", "--scheme=github --secret=shpss_0123", signature.Spec{Scheme: "github"}, "shpss_0123", "another secret"},
		{"shopify", "--scheme=shopify --secret=shpss_0123", signature.Spec{Scheme: "shopify"}, "shpss_0123", "another secret"},
		{"slack", "--scheme=slack --secret=shpss_0123", signature.Spec{Scheme: "slack"}, "shpss_0123", "another secret"},
		{"custom of an endpoint", "--secret-from=ep_c", custom, symmetric, "another secret"},
		{"ed25519 of an endpoint", "--secret-from=ep_a", signature.Spec{}, private, symmetric},
		{"public keys", "--keys-from=ep_a", signature.Spec{}, private, symmetric},
		{"both", "--keys-from=ep_a --scheme=slack --secret=shpss_0123", signature.Spec{Scheme: "slack"}, "shpss_0123", "another secret"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, errs, stop := background(t, append([]string{"listen", "--addr=127.0.0.1:0", "-o", "json"}, strings.Fields(tc.args)...)...)
			url := listening.FindString(errs.await(t, "signatures are verified.\n"))
			if got := post(t, url, verifierOf(t, tc.spec, tc.signs), `{"type":"order.paid"}`); got != http.StatusOK {
				t.Errorf("answered %d: %s", got, out.String())
			}
			if got := post(t, url, verifierOf(t, tc.spec, tc.another), `{"type":"order.paid"}`); got != http.StatusUnauthorized {
				t.Errorf("another secret: answered %d", got)
			}
			out.await(t, `"verified":"no: no signature matches"`)
			if code := stop(); code != 0 {
				t.Errorf("ended with %d: %s", code, errs.String())
			}
		})
	}
	for args, want := range map[string]string{
		"--secret=whsec_hush-hush":            "--secret: invalid webhook secret",
		"--secret-from=ep_none":               "secret of ep_none: 404",
		"--keys-from=ep_none":                 "public keys of ep_none: 404",
		"--keys-from=ep_nobody1":              "public keys of ep_nobody1: invalid webhook secret",
		"--secret-from=ep_broken":             "secret of ep_broken: signing: scheme want one of",
		"--scheme=github --secret=whsk_hush1": "--secret: invalid webhook secret: ed25519 keys sign with the scheme standard only",
	} {
		got := command(t, "", append([]string{"listen", "--addr=127.0.0.1:0"}, strings.Fields(args)...)...)
		if got.code == 0 || !strings.Contains(got.err, want) || strings.Contains(got.err, "hush") {
			t.Errorf("%s: code %d, %q, want %q", args, got.code, got.err, want)
		}
	}
}
