package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/signature"
)

// signed posts a body as the gateway does.
func signed(t *testing.T, url, secret, id string, body []byte) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(signature.HeaderID, id)
	if secret != "" {
		key, err := signature.Parse(secret)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		req.Header.Set(signature.HeaderTimestamp, signature.Timestamp(now))
		req.Header.Set(signature.HeaderSignature, signature.Sign([]signature.Key{key}, id, now, body))
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

func verifierOf(t *testing.T, spec signature.Spec, secrets ...string) verifier {
	t.Helper()
	v, err := parseVerifier(spec, secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestReceiver(t *testing.T) {
	right, other, wrong := signature.NewSecret(), signature.NewSecret(), signature.NewSecret()
	body := []byte(`{"type":"order.paid","data":{}}`)
	type post struct{ secret, id string }
	for _, tc := range []struct {
		name     string
		set      func(*receiver)
		posts    []post
		statuses []int
		verified []string
		seen     []int
	}{
		{"verified", nil, []post{{right, "a"}, {other, "b"}}, []int{200, 200}, []string{"yes", "yes"}, []int{1, 1}},
		{"not verified", nil, []post{{wrong, "a"}, {"", "b"}}, []int{401, 401}, []string{"no: no signature matches", "no: missing webhook header: webhook-timestamp"}, []int{1, 1}},
		{"without secrets", func(r *receiver) { r.verifiers = nil }, []post{{"", "a"}, {wrong, "a"}}, []int{200, 200}, []string{"-", "-"}, []int{1, 2}},
		{"status", func(r *receiver) { r.status = 410 }, []post{{right, "a"}}, []int{410}, []string{"yes"}, []int{1}},
		{"fail first", func(r *receiver) { r.failFirst = 2 }, []post{{right, "a"}, {right, "a"}, {right, "b"}, {right, "a"}}, []int{503, 503, 503, 200}, []string{"yes", "yes", "yes", "yes"}, []int{1, 2, 1, 3}},
		{"fail rate", func(r *receiver) {
			draws := []float64{0.1, 0.9}
			r.failRate, r.random = 0.5, func() float64 { d := draws[0]; draws = draws[1:]; return d }
		}, []post{{right, "a"}, {right, "b"}}, []int{503, 200}, []string{"yes", "yes"}, []int{1, 1}},
		{"too large", func(r *receiver) { r.maxBody = 5 }, []post{{right, "a"}}, []int{413}, []string{"-"}, []int{1}},
		{"too old", func(r *receiver) { r.now = func() time.Time { return time.Now().Add(time.Hour) } }, []post{{right, "a"}}, []int{401}, []string{"no: webhook-timestamp is too old"}, []int{1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var arrivals []arrival
			r := newReceiver(verifiers{verifierOf(t, signature.Spec{}, right, other)}, func(a arrival) { arrivals = append(arrivals, a) })
			if tc.set != nil {
				tc.set(r)
			}
			server := httptest.NewServer(r)
			defer server.Close()
			var statuses, seen []int
			var verified []string
			for _, p := range tc.posts {
				statuses = append(statuses, signed(t, server.URL, p.secret, p.id, body))
			}
			for _, a := range arrivals {
				verified, seen = append(verified, a.Verified), append(seen, a.Seen)
				if a.Status != http.StatusRequestEntityTooLarge && (a.Type != "order.paid" || a.Body != string(body)) {
					t.Errorf("type %q, body %q", a.Type, a.Body)
				}
			}
			if diff := cmp.Diff([]any{tc.statuses, tc.verified, tc.seen}, []any{statuses, verified, seen}); diff != "" {
				t.Errorf("statuses, verified, seen (-want +got):\n%s", diff)
			}
		})
	}
}

// TestReceiverForgets bounds what it remembers.
func TestReceiverForgets(t *testing.T) {
	last := 0
	r := newReceiver(nil, func(a arrival) { last = a.Seen })
	for i := range seenIDs + 1 {
		r.judge(&arrival{ID: strconv.Itoa(i), Status: 200})
	}
	if len(r.seen) != seenIDs || len(r.order) != seenIDs {
		t.Errorf("remembers %d and %d ids, want %d", len(r.seen), len(r.order), seenIDs)
	}
	r.judge(&arrival{ID: "0", Status: 200})
	if last != 1 {
		t.Errorf("the oldest id was seen %d times, want 1: forgotten", last)
	}
	r.judge(&arrival{ID: strconv.Itoa(seenIDs), Status: 200})
	if last != 2 {
		t.Errorf("the newest id was seen %d times, want 2", last)
	}
}

var listening = regexp.MustCompile(`http://[0-9.:]+`)

// TestListenCommand runs the command with a secret from the API.
func TestListenCommand(t *testing.T) {
	secret := signature.NewSecret()
	_, requests := fakeAPI(t, http.StatusOK, `{"secret":"`+secret+`"}`)
	for _, tc := range []struct{ output, want string }{
		{"table", "200     order.paid                      msg_1                           1     yes                     {\"type\":\"order.paid\""},
		{"json", `"webhook_id":"msg_1","seen":1,"verified":"yes","status":200`},
	} {
		t.Run(tc.output, func(t *testing.T) {
			*requests = nil
			out, errs, stop := background(t, "listen", "--addr=127.0.0.1:0", "--secret-from=ep_1", "--delay=1ms", "-o", tc.output)
			url := listening.FindString(errs.await(t, "signatures are verified.\n"))
			if got := signed(t, url, secret, "msg_1", []byte(`{"type":"order.paid"}`)); got != http.StatusOK {
				t.Errorf("answered %d, want 200", got)
			}
			out.await(t, tc.want)
			if code := stop(); code != 0 {
				t.Errorf("ended with %d: %s", code, errs.String())
			}
			if (*requests)[0].Line != "GET /v1/tenants/acme/endpoints/ep_1/secret" {
				t.Errorf("asked for %s", (*requests)[0].Line)
			}
		})
	}
}

// TestListenBegins says where it listens before the table's header.
func TestListenBegins(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	terminal, code := new(buffer), make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"listen", "--addr=127.0.0.1:0"}, streams{strings.NewReader(""), terminal, terminal})
	}()
	if text := terminal.await(t, "WEBHOOK-ID"); !strings.HasPrefix(text, "Listening on http://") {
		t.Errorf("it begins with %q", text)
	}
	cancel()
	if got := <-code; got != 0 {
		t.Errorf("ended with %d", got)
	}
}

// TestListenEndsWhileAnswering does not wait for a long delay.
func TestListenEndsWhileAnswering(t *testing.T) {
	_, errs, stop := background(t, "listen", "--addr=127.0.0.1:0", "--delay=1h")
	url := listening.FindString(errs.await(t, "not verified"))
	ended := make(chan struct{})
	go func() {
		res, err := http.Post(url, "application/json", strings.NewReader("{}"))
		if err == nil {
			_ = res.Body.Close()
		}
		close(ended)
	}()
	if code := stop(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	select {
	case <-ended:
	case <-limit(t).Done():
		t.Error("the request was left hanging")
	}
}

func TestEventType(t *testing.T) {
	for _, tc := range []struct{ header, body, want string }{
		{"", `{"type":"a"}`, "a"}, {"b", `{"type":"a"}`, "b"}, {"", "no json", ""}, {"", `{"type":5}`, ""}, {"", `[]`, ""},
	} {
		header := http.Header{}
		if tc.header != "" {
			header.Set("ce-type", tc.header)
		}
		if got := eventType(header, []byte(tc.body)); got != tc.want {
			t.Errorf("%q, %s: %q, want %q", tc.header, tc.body, got, tc.want)
		}
	}
}

// A PUT with a compressed body is verified as it came and shown unpacked, up to
// the bound.
func TestReceiverUnpacks(t *testing.T) {
	secret := signature.NewSecret()
	var shown []arrival
	key, err := signature.Parse(secret)
	if err != nil {
		t.Fatal(err)
	}
	r := newReceiver(verifiers{verifierOf(t, signature.Spec{}, secret)}, func(a arrival) { shown = append(shown, a) })
	r.maxBody = 64
	for _, plain := range []string{`{"type":"order.paid"}`, strings.Repeat("a", 1000)} {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, _ = io.WriteString(z, plain)
		_ = z.Close()
		now := time.Now()
		req := httptest.NewRequest(http.MethodPut, "/", bytes.NewReader(packed.Bytes()))
		req.Header.Set("Content-Encoding", "gzip")
		req.Header.Set(signature.HeaderID, "evt_1")
		req.Header.Set(signature.HeaderTimestamp, signature.Timestamp(now))
		req.Header.Set(signature.HeaderSignature, signature.Sign([]signature.Key{key}, "evt_1", now, packed.Bytes()))
		answer := httptest.NewRecorder()
		r.ServeHTTP(answer, req)
		last := shown[len(shown)-1]
		if answer.Code != http.StatusOK || last.Verified != "yes" || last.Body != plain[:min(len(plain), 64)] {
			t.Errorf("%d: %+v", answer.Code, last)
		}
	}
	if shown[0].Type != "order.paid" {
		t.Errorf("type %q", shown[0].Type)
	}
}
