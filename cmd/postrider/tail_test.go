package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/schemas"
)

func TestReadStream(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []streamEvent
		ends       bool // with the stream; else with another error
	}{
		{"nothing", "", nil, true},
		{"comment", ": alive\n\n", []streamEvent{{comment: "alive"}}, true},
		{"event", "event: attempt\nid: 1.2\ndata: {}\n\n", []streamEvent{{name: "attempt", id: "1.2", data: "{}"}}, true},
		{"lines of data", "data: a\ndata:b\ndata\n\n", []streamEvent{{data: "a\nb\n"}}, true},
		{"crlf", "data: a\r\n\r\n", []streamEvent{{data: "a"}}, true},
		{"names don't stay", "event: x\n\ndata: a\n\n", []streamEvent{{data: "a"}}, true},
		{"cut off", "data: a\n", nil, true},
		{"unknown field", "retry: 5\nfoo: bar\ndata: a\n\n", []streamEvent{{data: "a"}}, true},
		{"long line", "data: " + strings.Repeat("x", maxStreamLine+1), nil, false},
		{"much data", strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n", 1100), nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []streamEvent
			err := readStream(strings.NewReader(tc.text), func(e streamEvent) error {
				got = append(got, e)
				return nil
			})
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(streamEvent{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err == nil || errors.Is(err, io.ErrUnexpectedEOF) != tc.ends {
				t.Errorf("error %v; want the end of the stream: %v", err, tc.ends)
			}
		})
	}
}

// TestAttemptDetail: the class stands once, and the end of a long text, which may
// be what says it, is there.
func TestAttemptDetail(t *testing.T) {
	for want, a := range map[string]schemas.Attempt{
		"": {},
		"tls: failed to verify certificate: x509: certificate signed by unknown authority": {
			Error: "tls", Detail: "tls: failed to verify certificate: x509: certificate signed by unknown authority",
		},
		"dns no such host: a.example": {Error: "dns", Detail: "no such host: a.example"},
	} {
		if got := attemptDetail(&a); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzReadStream(f *testing.F) {
	f.Add("event: attempt\nid: 1\ndata: {}\n\n: x\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		total := 0
		err := readStream(strings.NewReader(text), func(e streamEvent) error {
			total += len(e.data)
			return nil
		})
		if err == nil || total > len(text) {
			t.Errorf("error %v, %d bytes of data out of %d", err, total, len(text))
		}
	})
}

// events is a stream of events of which each connection gets one part; then the
// connection ends.
func events(t *testing.T, parts ...string) (address string, connections *atomic.Int32) {
	t.Helper()
	connections = new(atomic.Int32)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(connections.Add(1)) - 1
		if n >= len(parts) {
			<-r.Context().Done()
			return
		}
		if status, body, ok := strings.Cut(parts[n], "!"); ok {
			var code int
			_, _ = fmt.Sscan(status, &code)
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
			return
		}
		_, _ = io.WriteString(w, parts[n])
	}))
	t.Cleanup(server.Close)
	return server.URL, connections
}

// TestFollow goes on after interruptions and ends where that is in vain.
func TestFollow(t *testing.T) {
	one := func(data string) string { return "event: attempt\ndata: " + data + "\n\n" }
	for _, tc := range []struct {
		name  string
		parts []string
		want  string // data seen before the end
		err   string
	}{
		{"interruptions", []string{one("a"), "503!", one("b"), one("c") + one("end")}, "a b c end", "done"},
		{"refused", []string{one("a"), `404!{"code":"not_found"}`}, "a", "404 not_found"},
		{"too many requests", []string{"429!", one("end")}, "end", "done"},
		{"unauthorized", []string{`401!{"code":"invalid_key"}`}, "", "401 invalid_key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			address, _ := events(t, tc.parts...)
			client, err := newAPIClient(address, "k")
			if err != nil {
				t.Fatal(err)
			}
			defer client.http.CloseIdleConnections()
			var got []string
			s := newStream(client, apiRequest{method: http.MethodGet, path: "/"}, func(e streamEvent) error {
				got = append(got, e.data)
				if e.data == "end" {
					return errors.New("done")
				}
				return nil
			})
			s.least = time.Millisecond
			err = s.follow(limit(t))
			if err == nil || err.Error() != tc.err || strings.Join(got, " ") != tc.want {
				t.Errorf("saw %q, error %v; want %q, %s", got, err, tc.want, tc.err)
			}
		})
	}
}

// TestSilence gives up a connection on which nothing comes.
func TestSilence(t *testing.T) {
	address, connections := events(t) // every connection is silent
	client, err := newAPIClient(address, "k")
	if err != nil {
		t.Fatal(err)
	}
	defer client.http.CloseIdleConnections()
	ctx, cancel := context.WithCancel(limit(t))
	s := newStream(client, apiRequest{method: http.MethodGet, path: "/"}, func(streamEvent) error { return nil })
	s.least, s.silence = time.Millisecond, 10*time.Millisecond
	s.lost = func(err error, _ time.Duration) {
		if connections.Load() >= 3 {
			cancel()
		}
	}
	if err := s.follow(ctx); err != nil || connections.Load() < 3 {
		t.Errorf("error %v after %d connections, want none and 3", err, connections.Load())
	}
}

func TestTailCommand(t *testing.T) {
	const record = `{"v":1,"endpoint_id":"ep_1","event_id":"evt_1","event_type":"a.b","attempt":2,"outcome":"retry","status":503,` +
		`"error":"status","duration_ms":12.4,"started_at":"2026-01-02T03:04:05Z","next_at":"2026-01-02T03:04:06Z"}`
	const unanswered = `{"v":1,"endpoint_id":"ep_1","event_id":"evt_1","event_type":"a.b","attempt":2,"outcome":"exhausted",` +
		`"error":"connect_refused","duration_ms":1,"started_at":"2026-01-02T03:04:05Z"}`
	const text = ": connected\n\nevent: attempt\ndata: " + record + "\n\nevent: attempt\ndata: " + unanswered + "\n\nevent: dropped\ndata: {\"count\":3}\n\n"
	for output, want := range map[string][]string{
		"json":  {record + "\n"},
		"table": {"retry              ep_1", "evt_1", "a.b", "503      12 ms  status next at ", "       -       1 ms  connect_refused"},
	} {
		t.Run(output, func(t *testing.T) {
			address, _ := events(t, text)
			out, errs, stop := background(t, "tail", "--api="+address, "--api-key=k", "--tenant=acme", "--endpoint=ep_1", "--outcome=retry", "-o", output)
			errs.await(t, `attempts were left out: {"count":3}`)
			errs.await(t, "Stream interrupted (unexpected EOF), again in 500ms.")
			for _, part := range want {
				if !strings.Contains(out.String(), part) {
					t.Errorf("%q is missing in:\n%s", part, out.String())
				}
			}
			if code := stop(); code != 0 {
				t.Errorf("ended with %d: %s", code, errs.String())
			}
		})
	}
	_, requests := fakeAPI(t, http.StatusForbidden, `{"code":"forbidden"}`)
	got := command(t, "", "tail", "--endpoint=ep_1", "--outcome=retry")
	if got.code != 1 || !strings.Contains(got.err, "403 forbidden") {
		t.Errorf("code %d, error %q", got.code, got.err)
	}
	if want := "GET /v1/tenants/acme/attempts/stream?endpoint=ep_1&outcome=retry"; (*requests)[0].Line != want {
		t.Errorf("asked for %s, want %s", (*requests)[0].Line, want)
	}
}
