package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/signature"
	"github.com/postrider/postrider/internal/testkit"
	"github.com/postrider/postrider/schemas"
)

// hook is one request that a receiver got.
type hook struct {
	method string
	header http.Header
	body   []byte
}

// hooks is a receiver that keeps requests by path. refuse, if set, answers some.
type hooks struct {
	mu     sync.Mutex
	got    map[string][]hook
	refuse func(path string, r *http.Request) int
}

func (h *hooks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender is gone
	}
	h.mu.Lock()
	h.got[r.URL.Path] = append(h.got[r.URL.Path], hook{r.Method, r.Header.Clone(), body})
	h.mu.Unlock()
	if status := h.refuse(r.URL.Path, r); status != 0 {
		w.WriteHeader(status)
	}
}

// of returns the requests to a path.
func (h *hooks) of(path string) []hook {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]hook(nil), h.got[path]...)
}

// tokenServer gives clients tokens t1, t2, … of their own; its first answer to the
// client "flaky" is 500.
func tokenServer(t *testing.T) *httptest.Server {
	t.Helper()
	var mu sync.Mutex
	asked := map[string]int{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, secret, inHeader := r.BasicAuth()
		if !inHeader {
			id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
		}
		mu.Lock()
		asked[id]++
		n := asked[id]
		mu.Unlock()
		switch {
		case secret != "the-secret" || r.PostFormValue("grant_type") != "client_credentials":
			w.WriteHeader(http.StatusUnauthorized)
		case id == "flaky" && n == 1:
			w.WriteHeader(http.StatusInternalServerError)
		default:
			_, _ = fmt.Fprintf(w, `{"access_token":"%s-t%d-%s","token_type":"bearer","expires_in":3600}`, id, n, r.PostFormValue("scope"))
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// publicURL is where the gateway of this test believes that receivers reach it.
const publicURL = "https://api.example/base"

// receiverCase is an endpoint and what its last request has to be.
type receiverCase struct {
	name     string
	settings settings
	attempts int
	check    func(t *testing.T, g *gateway, last hook)
}

func wantHeader(name, value string) func(*testing.T, *gateway, hook) {
	return func(t *testing.T, _ *gateway, last hook) {
		t.Helper()
		if got := last.header.Get(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
}

// paid is the event of this test, as it is sent and as the formats show it.
const (
	paidData = `{"n": 1.0, "who":"<Jörg>"}`
	paidBody = `{"specversion":"1.0","type":"order.paid","id":"order-17","source":"/e2e","subject":"a b","time":"2026-11-22T10:00:00Z","tenant":"acme",` +
		`"partitionkey":"jo","zone":"eu","datacontenttype":"application/json","data":` + paidData + `}`
)

func receiverCases(tokens string) []receiverCase {
	oauth := func(id, style string) settings {
		return settings{
			"retry": settings{"schedule": []string{"1s", "6s", "6s"}},
			"auth": settings{"oauth2": settings{
				"token_url": tokens, "client_id": id, "client_secret": "the-secret", "scopes": []string{"hooks"}, "style": style,
			}},
		}
	}
	body := func(want string) func(*testing.T, *gateway, hook) {
		return func(t *testing.T, _ *gateway, last hook) {
			t.Helper()
			if diff := cmp.Diff(want, string(last.body)); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
		}
	}
	return []receiverCase{
		{"bearer", settings{"auth": settings{"bearer": settings{"token": "abc"}}}, 1, wantHeader("Authorization", "Bearer abc")},
		{"basic", settings{"auth": settings{"basic": settings{"username": "jo", "password": "pass word"}}}, 1, wantHeader("Authorization", "Basic am86cGFzcyB3b3Jk")},
		{"headers", settings{"headers": settings{"X-Team": settings{"value": "a b"}, "X-Key": settings{"value": "k", "secret": true}}}, 1, func(t *testing.T, g *gateway, last hook) {
			wantHeader("X-Team", "a b")(t, g, last)
			wantHeader("X-Key", "k")(t, g, last)
		}},
		{"oauth", oauth("one", "header"), 1, wantHeader("Authorization", "Bearer one-t1-hooks")},
		{"oauth in the body", oauth("two", "body"), 1, wantHeader("Authorization", "Bearer two-t1-hooks")},
		{"oauth refused once", oauth("refused", "header"), 2, wantHeader("Authorization", "Bearer refused-t2-hooks")},
		{"oauth fails first", oauth("flaky", "header"), 1, wantHeader("Authorization", "Bearer flaky-t2-hooks")},
		{"standard", settings{"format": "standard"}, 1, body(`{"type":"order.paid","timestamp":"2026-11-22T10:00:00Z","data":` + paidData + `}`)},
		{"raw", settings{"format": "raw"}, 1, body(paidData)},
		{"structured", settings{"format": "cloudevents_structured"}, 1, checkCloudEvent},
		{"binary", settings{"format": "cloudevents_binary"}, 1, checkCloudEvent},
		{"thin", settings{"format": "thin"}, 1, checkThin},
		{"gzip", settings{"format": "raw", "compression": "gzip"}, 1, func(t *testing.T, g *gateway, last hook) {
			wantHeader("Content-Encoding", "gzip")(t, g, last)
			r, err := gzip.NewReader(bytes.NewReader(last.body))
			if err != nil {
				t.Fatal(err)
			}
			plain, err := io.ReadAll(r)
			if err != nil || string(plain) != paidData {
				t.Errorf("unpacked %q, %v", plain, err)
			}
		}},
		{"put", settings{"method": "PUT"}, 1, func(t *testing.T, _ *gateway, last hook) {
			if last.method != http.MethodPut {
				t.Errorf("method %s", last.method)
			}
		}},
	}
}

// checkCloudEvent reads a request with the CloudEvents library of others.
func checkCloudEvent(t *testing.T, _ *gateway, last hook) {
	t.Helper()
	got, err := cehttp.NewEventFromHTTPRequest(&http.Request{Header: last.header, Body: io.NopCloser(bytes.NewReader(last.body))})
	if err != nil {
		t.Fatalf("%v: %s", err, last.body)
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
	want := map[string]any{"partitionkey": "jo", "zone": "eu"}
	if diff := cmp.Diff(want, got.Extensions()); diff != "" || got.ID() != "order-17" || string(got.Data()) != paidData {
		t.Errorf("event %s, extensions (-want +got):\n%s", got, diff)
	}
}

// checkThin fetches the event as a receiver does, and tries what must not work.
func checkThin(t *testing.T, g *gateway, last hook) {
	t.Helper()
	id := last.header.Get("Webhook-Id")
	if !strings.HasPrefix(string(last.body), `{"type":"order.paid","id":"`+id+`","url":"`) {
		t.Fatalf("body %s", last.body)
	}
	want := schemas.Event{
		ID: "order-17", Source: "/e2e", Type: "order.paid", Subject: "a b", Time: "2026-11-22T10:00:00Z", DataContentType: "application/json",
		PartitionKey: "jo", Extensions: map[string]string{"zone": "eu"}, Data: []byte(paidData),
	}
	status, event, answer := g.fetchThin(t, last.body, func(path string) string { return path })
	if diff := cmp.Diff(want, event); status != http.StatusOK || diff != "" {
		t.Errorf("%d %s (-want +got):\n%s", status, answer, diff)
	}
	for name, bad := range map[string]func(string) string{
		"no token":         func(path string) string { return strings.SplitN(path, "?", 2)[0] },
		"cut":              func(path string) string { return path[:len(path)-3] },
		"of another event": func(path string) string { return strings.Replace(path, id, "evt_0", 1) },
	} {
		if status, _, answer := g.fetchThin(t, last.body, bad); status != http.StatusUnauthorized || !strings.Contains(string(answer), "invalid_token") {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
}

// fetchThin fetches the event that a thin body names, without a key, after the path
// and query of its URL were changed.
func (g *gateway) fetchThin(t *testing.T, thin []byte, change func(string) string) (status int, event schemas.Event, answer []byte) {
	t.Helper()
	var body struct {
		URL string `json:"url"`
	}
	if err := json.Unmarshal(thin, &body); err != nil {
		t.Fatal(err)
	}
	path, ok := strings.CutPrefix(body.URL, publicURL)
	if !ok {
		t.Fatalf("url %s", body.URL)
	}
	resp, err := client.Get("http://" + g.proc("control-1").listen + change(path))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	event, _ = schemas.ParseStructured(answer) // a problem is none
	return resp.StatusCode, event, answer
}

// Every kind of receiver gets what its endpoint says: formats, credentials, own
// headers, method, compression, a client certificate. What it gets is signed.
func TestReceivers(t *testing.T) {
	g := newGateway(t)
	for _, role := range []string{"control", "deliver"} {
		g.start(role, role+"-1", "POSTRIDER_PUBLIC_URL="+publicURL)
	}
	g.startAll()
	g.tenant()
	receiver := &hooks{got: map[string][]hook{}, refuse: func(path string, r *http.Request) int {
		if path == "/oauth_refused_once" && strings.Contains(r.Header.Get("Authorization"), "-t1-") {
			return http.StatusUnauthorized
		}
		if path == "/edited" && r.Header.Get("Authorization") != "Bearer new" {
			return http.StatusUnauthorized
		}
		return 0
	}}
	plain := httptest.NewServer(receiver)
	t.Cleanup(plain.Close)
	secure, ca := mutualTLS(t, receiver)
	cert, key := ca.Issue(t, "postrider")

	cases := receiverCases(tokenServer(t).URL)
	endpoints := map[string]string{}
	for _, c := range cases {
		endpoints[c.name] = g.endpoint(plain.URL+"/"+strings.ReplaceAll(c.name, " ", "_"), c.settings)
	}
	retryOnce := settings{"schedule": []string{"1s"}}
	mutual := settings{"client_certificate": string(cert), "client_key": string(key), "ca": string(ca.PEM)}
	endpoints["mtls"] = g.endpoint(secure.URL+"/mtls", settings{"tls": mutual})
	edited := g.endpoint(plain.URL+"/edited", settings{
		"auth": settings{"bearer": settings{"token": "old"}}, "retry": settings{"schedule": []string{"1s", "2s", "4s", "8s", "16s"}},
	})
	uncertified := g.endpoint(secure.URL+"/uncertified", settings{"retry": retryOnce, "tls": settings{"ca": string(ca.PEM)}})
	untrusted := g.endpoint(secure.URL+"/untrusted", settings{"retry": retryOnce})

	req, err := http.NewRequest(http.MethodPost, "http://"+g.proc("ingest-1").listen+"/v1/events", strings.NewReader(paidBody))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminKey)
	req.Header.Set("Content-Type", "application/cloudevents+json")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("status %d", resp.StatusCode)
	}
	event := schemas.EventID("acme", "/e2e", "order-17")
	eventually(t, 60*time.Second, "an attempt with the old token", func() bool { return len(receiver.of("/edited")) > 0 })
	g.insist("PATCH", "/v1/tenants/acme/endpoints/"+edited, settings{"auth": settings{"bearer": settings{"token": "new"}}}, nil)

	for _, c := range append(cases, receiverCase{"mtls", nil, 1, func(*testing.T, *gateway, hook) {}}) {
		t.Run(c.name, func(t *testing.T) {
			path := "/" + strings.ReplaceAll(c.name, " ", "_")
			eventually(t, 90*time.Second, fmt.Sprintf("%d requests to %s", c.attempts, path), func() bool { return len(receiver.of(path)) >= c.attempts })
			got := receiver.of(path)
			last := got[len(got)-1]
			c.check(t, g, last)
			signer, err := signature.Parse(g.secret(endpoints[c.name]))
			if err != nil {
				t.Fatal(err)
			}
			if err := signature.Verify([]signature.Key{signer}, last.header, last.body, time.Now(), 5*time.Minute); err != nil {
				t.Error(err)
			}
		})
	}
	var testEvent string
	t.Run("thin test event", func(t *testing.T) {
		var sent struct {
			ID string `json:"event_id"`
		}
		g.insist("POST", "/v1/tenants/acme/endpoints/"+endpoints["thin"]+"/test", nil, &sent)
		testEvent = sent.ID
		eventually(t, 60*time.Second, "a second request to /thin", func() bool { return len(receiver.of("/thin")) == 2 })
		status, got, answer := g.fetchThin(t, receiver.of("/thin")[1].body, func(path string) string { return path })
		if status != http.StatusOK || got.Type != schemas.TestType || schemas.EventID("acme", got.Source, got.ID) != sent.ID {
			t.Errorf("%d %s", status, answer)
		}
	})
	endpoints["edited"] = edited // its retries take the token that it has by then
	want := map[string]schemas.Outcome{event + "/" + uncertified: schemas.OutcomeExhausted, event + "/" + untrusted: schemas.OutcomeExhausted}
	for _, id := range endpoints {
		want[event+"/"+id] = schemas.OutcomeDelivered
	}
	want[testEvent+"/"+endpoints["thin"]] = schemas.OutcomeDelivered
	eventually(t, 90*time.Second, "every delivery ended", func() bool { return len(g.truth().final) == len(want) })
	if diff := cmp.Diff(want, g.truth().final); diff != "" {
		t.Errorf("ends (-want +got):\n%s", diff)
	}
	g.checkErrors(map[string]string{endpoints["oauth fails first"]: "oauth", endpoints["oauth refused once"]: "http_4xx", endpoints["edited"]: "http_4xx", uncertified: "tls", untrusted: "tls"})
}

// checkErrors compares the error class of the failed attempts of endpoints, and
// finds no secret in any record of an attempt.
func (g *gateway) checkErrors(want map[string]string) {
	g.t.Helper()
	got := map[string]string{}
	g.scan(g.broker().Topics().Attempts, func(r *kgo.Record) {
		a, err := schemas.DecodeAttempt(r.Value)
		if err != nil {
			g.t.Fatal(err)
		}
		if a.Error != "" {
			got[a.Endpoint] = a.Error
		}
		if strings.Contains(string(r.Value), "the-secret") || strings.Contains(string(r.Value), "-t1-") {
			g.t.Errorf("a secret is in %s", r.Value)
		}
	})
	if diff := cmp.Diff(want, got); diff != "" {
		g.t.Errorf("errors (-want +got):\n%s", diff)
	}
}

// mutualTLS is a receiver that wants a client certificate of its own authority.
func mutualTLS(t *testing.T, handler http.Handler) (*httptest.Server, *testkit.CA) {
	t.Helper()
	ca := testkit.NewCA(t)
	cert, key := ca.Issue(t, "receiver")
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(ca.PEM)
	s := httptest.NewUnstartedServer(handler)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: trusted}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that it refuses are part of the test
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, ca
}
