package egress_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/egress"
)

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// seen is what a server was sent.
type seen struct {
	Method, Path, Query, Agent, Auth, ID string
	Length                               int64
	Body                                 string
}

func TestDoSendsTheRequestAndReadsTheAnswer(t *testing.T) {
	var got seen
	s := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = seen{r.Method, r.URL.Path, r.URL.RawQuery, r.UserAgent(), r.Header.Get("Authorization"), r.Header.Get("Webhook-Id"), r.ContentLength, string(body)}
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, "slow down")
	})
	c := newClient(t, local(egress.Config{UserAgent: "test/1"}))
	u := parseURL(t, strings.Replace(s.URL, "http://", "http://user:secret@", 1)+"/hook?token=x")
	result := c.Do(t.Context(), &egress.Request{URL: u, Fields: fields("Webhook-Id", "evt_1"), Body: []byte("hello")})
	wantStatus(t, result, http.StatusTooManyRequests)
	if result.Duration <= 0 {
		t.Error("no duration")
	}
	result.Duration = 0
	want := egress.Result{Status: 429, RetryAfter: "7", Body: []byte("slow down"), RemoteAddr: s.Listener.Addr().String()}
	if diff := cmp.Diff(want, result, cmp.AllowUnexported(egress.Error{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	wantSeen := seen{"POST", "/hook", "token=x", "test/1", "", "evt_1", 5, "hello"}
	if diff := cmp.Diff(wantSeen, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestOwnMethodAgentAndEmptyBody(t *testing.T) {
	var got seen
	s := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		got = seen{Method: r.Method, Agent: r.UserAgent(), Length: r.ContentLength}
		w.Header().Set("Retry-After", strings.Repeat("9", 65))
		w.WriteHeader(http.StatusNoContent)
	})
	c := newClient(t, local(egress.Config{}))
	result := c.Do(t.Context(), &egress.Request{Method: "PUT", URL: parseURL(t, s.URL), Fields: fields("User-Agent", "mine")})
	wantStatus(t, result, http.StatusNoContent)
	if diff := cmp.Diff(seen{Method: "PUT", Agent: "mine"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if result.Body != nil || result.RetryAfter != "" {
		t.Errorf("body %q, Retry-After %q", result.Body, result.RetryAfter)
	}
	result = c.Do(t.Context(), &egress.Request{URL: parseURL(t, s.URL)})
	wantStatus(t, result, http.StatusNoContent)
	if diff := cmp.Diff(seen{Method: "POST", Agent: "Postrider"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	var hits atomic.Int32
	for _, status := range []int{301, 302, 303, 307, 308} {
		s := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
			hits.Add(1)
			w.Header().Set("Location", "http://"+r.Host+"/second")
			w.WriteHeader(status)
		})
		hits.Store(0)
		wantStatus(t, send(t, newClient(t, local(egress.Config{})), s.URL), status)
		if hits.Load() != 1 {
			t.Errorf("%d: %d requests", status, hits.Load())
		}
	}
}

func TestEnvironmentProxyIsNotUsed(t *testing.T) {
	proxy := httpServer(t, func(http.ResponseWriter, *http.Request) { t.Error("the proxy was asked") })
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	s := httpServer(t, func(http.ResponseWriter, *http.Request) {})
	c := newClient(t, local(egress.Config{Resolver: always("127.0.0.1")}))
	wantStatus(t, send(t, c, "http://hook.example:"+portOf(t, s.Listener.Addr().String())), 200)
}

func TestLongBodyIsTruncated(t *testing.T) {
	tests := []struct {
		name      string
		size      int
		kept      int
		truncated bool
		conns     int // after two requests: 1 if the connection was used again
	}{
		{"fits", 100, 100, false, 1},
		{"one more", 101, 100, true, 1},
		{"drained", 100 + 1000, 100, true, 1},
		{"too long to drain", 100 + 1001, 100, true, 2},
	}
	for _, tt := range tests {
		for _, chunked := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				names := always("127.0.0.1") // asked once for each connection
				s := httpServer(t, func(w http.ResponseWriter, _ *http.Request) {
					if chunked {
						w.(http.Flusher).Flush()
					}
					_, _ = w.Write(bytes.Repeat([]byte("x"), tt.size))
				})
				c := newClient(t, local(egress.Config{MaxResponse: 100, MaxDrain: 1000, Resolver: names}))
				for range 2 {
					result := send(t, c, "http://hook.example:"+portOf(t, s.Listener.Addr().String()))
					wantStatus(t, result, 200)
					if len(result.Body) != tt.kept || result.Truncated != tt.truncated {
						t.Errorf("%d bytes, truncated %v", len(result.Body), result.Truncated)
					}
				}
				// Exactly at the drain limit without a length the end is not seen.
				if got := names.asked; got != tt.conns && (!chunked || tt.name != "drained") {
					t.Errorf("%d connections, want %d", got, tt.conns)
				}
			})
		}
	}
}

func TestEndlessBodyIsNotRead(t *testing.T) {
	sent := make(chan int64, 1)
	address, _ := rawServer(t, func(c net.Conn, r *bufio.Reader) {
		if readRequest(r) != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		n, _ := io.Copy(c, io.LimitReader(zeroes{}, 1<<30))
		sent <- n
	})
	result := send(t, newClient(t, local(egress.Config{})), "http://"+address)
	wantStatus(t, result, 200)
	if len(result.Body) != 8<<10 || !result.Truncated {
		t.Errorf("%d bytes, truncated %v", len(result.Body), result.Truncated)
	}
	if n := <-sent; n > 64<<20 { // what fits into the buffers of both kernels
		t.Errorf("the server could send %d bytes", n)
	}
}

func TestCompressedBodyStaysCompressed(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = io.Copy(z, io.LimitReader(zeroes{}, 4<<20))
	_ = z.Close()
	var accepts string
	s := httpServer(t, func(w http.ResponseWriter, r *http.Request) {
		accepts = r.Header.Get("Accept-Encoding")
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb.Bytes())
	})
	result := send(t, newClient(t, local(egress.Config{})), s.URL)
	wantStatus(t, result, 200)
	if accepts != "" || !bytes.Equal(result.Body, bomb.Bytes()) {
		t.Errorf("Accept-Encoding %q, %d bytes", accepts, len(result.Body))
	}
}

func TestInformationalAndEarlyResponses(t *testing.T) {
	address, _ := rawServer(t, answering("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"))
	result := send(t, newClient(t, local(egress.Config{})), "http://"+address)
	wantStatus(t, result, 201)
	if string(result.Body) != "ok" {
		t.Errorf("body %q", result.Body)
	}

	early, _ := rawServer(t, func(c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
		_, _ = io.Copy(io.Discard, req.Body)
	})
	c := newClient(t, local(egress.Config{}))
	wantStatus(t, c.Do(t.Context(), &egress.Request{URL: parseURL(t, "http://"+early), Body: make([]byte, 1<<20)}), 413)
}

func TestHTTP2AndSessionReuse(t *testing.T) {
	type request struct {
		proto   int
		from    string
		resumed bool
	}
	requests := make(chan request, 1)
	s, roots := tlsServer(t, "hook.example", time.Now().Add(time.Hour), func(_ http.ResponseWriter, r *http.Request) {
		requests <- request{r.ProtoMajor, r.RemoteAddr, r.TLS.DidResume}
	})
	c := newClient(t, local(egress.Config{RootCAs: roots, Resolver: always("127.0.0.1")}))
	var first request
	// A connection that is still ending its stream is not idle and stays open for
	// one request more, so a new one may take some tries.
	for try := range 1000 {
		result := send(t, c, "https://hook.example:"+portOf(t, s.Listener.Addr().String()))
		wantStatus(t, result, 200)
		if result.RemoteAddr != s.Listener.Addr().String() {
			t.Errorf("remote address %q", result.RemoteAddr)
		}
		c.CloseIdleConnections()
		got := <-requests
		if got.proto != 2 {
			t.Fatalf("HTTP/%d", got.proto)
		}
		if try == 0 {
			first = got
		} else if got.from != first.from {
			if first.resumed || !got.resumed {
				t.Errorf("resumed: first connection %v, second %v", first.resumed, got.resumed)
			}
			return
		}
	}
	t.Error("no second connection")
}

// A kept connection that dies under a POST must not make net/http send it twice.
func TestPostIsNotSentTwice(t *testing.T) {
	for _, header := range [][]egress.Field{nil, fields("Idempotency-Key", "k"), fields("X-Idempotency-Key", "k")} {
		for _, body := range [][]byte{[]byte("x"), nil} {
			var requests atomic.Int32
			keys := make(chan string, 4)
			address, _ := rawServer(t, func(c net.Conn, r *bufio.Reader) {
				for n := 1; ; n++ {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					keys <- req.Header.Get("Idempotency-Key") + req.Header.Get("X-Idempotency-Key")
					requests.Add(1)
					if n == 2 {
						return
					}
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			})
			c := newClient(t, local(egress.Config{}))
			u := parseURL(t, "http://"+address)
			wantStatus(t, c.Do(t.Context(), &egress.Request{URL: u, Body: body}), 200)
			wantClass(t, c.Do(t.Context(), &egress.Request{URL: u, Body: body, Fields: header}), egress.ClassReset)
			if requests.Load() != 2 {
				t.Errorf("%v: %d requests reached the endpoint", header, requests.Load())
			}
			<-keys
			if got, want := <-keys, strings.Repeat("k", len(header)); got != want {
				t.Errorf("key %q, want %q", got, want)
			}
		}
	}
}

func TestMixedAnswersReachOnlyAllowedAddresses(t *testing.T) {
	address, conns := rawServer(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	port := portOf(t, address)
	r := always("127.0.0.2", "::1", "127.0.0.1")
	cfg := allowing("127.0.0.1/32")
	cfg.Resolver = r
	result := send(t, newClient(t, cfg), "http://hook.example:"+port)
	wantStatus(t, result, 200)
	if result.RemoteAddr != address || conns.Load() != 1 {
		t.Errorf("spoke to %s over %d connections", result.RemoteAddr, conns.Load())
	}
}

func TestRebindingIsBlocked(t *testing.T) {
	address, conns := rawServer(t, answering("HTTP/1.1 200 OK\r\n\r\n"))
	r := &resolver{answers: map[string][][]netip.Addr{"hook.example": {addrList("8.8.8.8"), addrList("127.0.0.1")}}}
	c := newClient(t, egress.Config{Resolver: r})
	if err := c.CheckHost(t.Context(), "hook.example"); err != nil {
		t.Fatal(err)
	}
	wantClass(t, send(t, c, "http://hook.example:"+portOf(t, address)), egress.ClassBlockedAddress)
	if conns.Load() != 0 || r.asked != 2 {
		t.Errorf("%d connections, %d look-ups", conns.Load(), r.asked)
	}
}

func TestOtherFamilyIsTriedWhenTheFirstFails(t *testing.T) {
	address, _ := rawServer(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	cfg := local(egress.Config{Resolver: always("::1", "127.0.0.1")})
	cfg.AllowCIDRs = append(cfg.AllowCIDRs, netip.MustParsePrefix("::1/128"))
	result := send(t, newClient(t, cfg), "http://hook.example:"+portOf(t, address))
	wantStatus(t, result, 200)
	if result.RemoteAddr != address {
		t.Errorf("spoke to %s", result.RemoteAddr)
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
