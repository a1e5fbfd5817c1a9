package egress_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/testkit"
)

func TestClassesOfBadAnswers(t *testing.T) {
	tests := []struct {
		name, answer string
		want         egress.Class
		status       int
	}{
		{"closed without an answer", "", egress.ClassReset, 0},
		{"cut status line", "HTTP/1.1 200", egress.ClassReset, 0},
		{"cut headers", "HTTP/1.1 200 OK\r\nA: b\r\n", egress.ClassReset, 0},
		{"cut body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", egress.ClassReset, 200},
		{"cut chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc", egress.ClassReset, 200},
		{"not HTTP", "SSH-2.0-OpenSSH_9.6 token=secret\r\n\r\n", egress.ClassProtocol, 0},
		{"bad status", "HTTP/1.1 abc token=secret\r\n\r\n", egress.ClassProtocol, 0},
		{"bad header", "HTTP/1.1 200 OK\r\ntoken=secret\r\n\r\n", egress.ClassProtocol, 0},
		{"bad length", "HTTP/1.1 200 OK\r\nContent-Length: token=secret\r\n\r\n", egress.ClassProtocol, 0},
		{"bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", egress.ClassProtocol, 200},
		{"switched protocols", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", egress.ClassProtocol, 0},
		{"large headers", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 65<<10) + "\r\n\r\n", egress.ClassHeadersTooLarge, 0},
		{"endless 1xx", strings.Repeat("HTTP/1.1 103 Early Hints\r\nA: "+strings.Repeat("a", 1000)+"\r\n\r\n", 70), egress.ClassHeadersTooLarge, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			address, _ := rawServer(t, func(c net.Conn, r *bufio.Reader) {
				if readRequest(r) == nil {
					_, _ = io.WriteString(c, tt.answer)
				}
			})
			result := send(t, newClient(t, local(egress.Config{})), "http://"+address+"/?token=secret")
			wantClass(t, result, tt.want)
			if result.Status != tt.status || result.Err.Timeout {
				t.Errorf("status %d, timeout %v", result.Status, result.Err.Timeout)
			}
			if strings.Contains(result.Err.Error(), "secret") || strings.Contains(result.Err.Detail, "->") {
				t.Errorf("detail %q", result.Err.Detail)
			}
		})
	}
}

func TestResetIsAReset(t *testing.T) {
	address, _ := rawServer(t, func(c net.Conn, r *bufio.Reader) {
		if readRequest(r) == nil {
			_ = c.(*net.TCPConn).SetLinger(0) // close sends RST
		}
	})
	wantClass(t, send(t, newClient(t, local(egress.Config{})), "http://"+address), egress.ClassReset)
}

func TestClassesOfTimeouts(t *testing.T) {
	hang := func(first string) string {
		address, _ := rawServer(t, func(c net.Conn, r *bufio.Reader) {
			if readRequest(r) == nil {
				_, _ = io.WriteString(c, first)
				_, _ = r.ReadByte() // until the client gives up
			}
		})
		return address
	}
	silent, _ := rawServer(t, func(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
	drip, _ := rawServer(t, func(c net.Conn, r *bufio.Reader) {
		if readRequest(r) != nil {
			return
		}
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ; err == nil; <-tick.C {
			_, err = io.WriteString(c, "x")
		}
	})
	tests := []struct {
		name, url string
		want      egress.Class
		status    int
	}{
		{"before the headers", "http://" + hang(""), egress.ClassTimeout, 0},
		{"in the headers", "http://" + hang("HTTP/1.1 200 OK\r\nA:"), egress.ClassTimeout, 0},
		{"in the body", "http://" + hang("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), egress.ClassTimeout, 200},
		{"dripping body", "http://" + drip, egress.ClassTimeout, 200},
		{"in the handshake", "https://" + silent, egress.ClassTLS, 0},
		{"in the connect", "http://" + testkit.FullListener(t), egress.ClassConnectTimeout, 0},
		{"in the look-up", "http://slow.example", egress.ClassDNS, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			kinds := []func(limit time.Duration) (egress.Config, time.Duration){
				func(d time.Duration) (egress.Config, time.Duration) {
					return egress.Config{Timeout: d, ConnectTimeout: 10 * d}, 0
				},
				func(d time.Duration) (egress.Config, time.Duration) {
					return egress.Config{Timeout: time.Hour, ConnectTimeout: d}, 0
				},
			}
			if tt.want == egress.ClassTimeout {
				kinds[1] = func(d time.Duration) (egress.Config, time.Duration) {
					return egress.Config{Timeout: time.Hour}, d // the request's own counts
				}
			}
			for _, kind := range kinds {
				var result egress.Result
				for _, limit := range timeLimits() {
					cfg, own := kind(limit)
					cfg.MaxResponse, cfg.Resolver = 1<<20, slowResolver{}
					result = newClient(t, local(cfg)).Do(t.Context(), &egress.Request{URL: parseURL(t, tt.url), Timeout: own})
					if result.Err != nil && result.Err.Class == tt.want && result.Status == tt.status {
						break
					}
				}
				wantClass(t, result, tt.want)
				if !result.Err.Timeout || result.Status != tt.status {
					t.Errorf("timeout %v, status %d", result.Err.Timeout, result.Status)
				}
			}
		})
	}
}

func TestCallersDeadlineAndCancel(t *testing.T) {
	arrived := make(chan struct{}, 8)
	address, _ := rawServer(t, func(_ net.Conn, r *bufio.Reader) {
		if readRequest(r) == nil {
			arrived <- struct{}{}
			_, _ = r.ReadByte()
		}
	})
	c := newClient(t, local(egress.Config{Timeout: time.Hour}))
	request := &egress.Request{URL: parseURL(t, "http://"+address)}
	for _, limit := range timeLimits() {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		result := c.Do(ctx, request)
		if len(arrived) == 0 {
			continue // not even sent in time
		}
		wantClass(t, result, egress.ClassTimeout)
		break
	}
	<-arrived
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	result := c.Do(ctx, request)
	wantClass(t, result, egress.ClassCanceled)
	if result.Err.Timeout {
		t.Error("a cancel is no timeout")
	}
}

func TestClassesOfConnecting(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	plain := httpServer(t, func(http.ResponseWriter, *http.Request) {})
	c := newClient(t, local(egress.Config{Resolver: always("127.0.0.1")}))
	tests := []struct {
		name, url, detail string
		want              egress.Class
	}{
		{"refused", "http://" + closed.Addr().String(), "connection refused", egress.ClassConnectRefused},
		{"no such host", "http://missing.example", "no such host: missing.example", egress.ClassDNS},
		{"TLS to a plain server", strings.Replace(plain.URL, "http:", "https:", 1), "first record does not look like a TLS handshake", egress.ClassTLS},
		{"private", "http://10.0.0.1", "private", egress.ClassBlockedAddress},
		{"metadata", "http://169.254.169.254", "metadata", egress.ClassBlockedAddress},
		{"port", "http://127.0.0.1:25", "port 25", egress.ClassBlockedAddress},
		{"scheme", "ftp://hook.example", "http or https", egress.ClassInvalidRequest},
		{"no host", "http:///x", "with a host", egress.ClassInvalidRequest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			result := send(t, c, tt.url)
			wantClass(t, result, tt.want)
			if !strings.Contains(result.Err.Detail, tt.detail) || strings.Contains(result.Err.Detail, "10.96") {
				t.Errorf("detail %q, want %q in it", result.Err.Detail, tt.detail)
			}
		})
	}
	u := parseURL(t, plain.URL)
	for name, request := range map[string]*egress.Request{
		"header value": {URL: u, Fields: fields("A", "secret\n")},
		"header name":  {URL: u, Fields: fields("A b", "c")},
		"method":       {URL: u, Method: "P OST"},
		"URL":          {},
	} {
		t.Run(name, func(t *testing.T) {
			result := c.Do(t.Context(), request)
			wantClass(t, result, egress.ClassInvalidRequest)
			if strings.Contains(result.Err.Detail, "secret") {
				t.Errorf("detail %q", result.Err.Detail)
			}
		})
	}
}

func TestClassesOfTLS(t *testing.T) {
	hour := time.Now().Add(time.Hour)
	handler := func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") }
	tests := []struct {
		name, certName string
		notAfter       time.Time
		trusted        bool
	}{
		{"unknown authority", "hook.example", hour, false},
		{"expired", "hook.example", time.Now().Add(-time.Hour), true},
		{"wrong host", "other.example", hour, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, roots := tlsServer(t, tt.certName, tt.notAfter, handler)
			cfg := local(egress.Config{Resolver: always("127.0.0.1")})
			if tt.trusted {
				cfg.RootCAs = roots
			}
			wantClass(t, send(t, newClient(t, cfg), "https://hook.example:"+portOf(t, s.Listener.Addr().String())), egress.ClassTLS)
		})
	}
}

type slowResolver struct{}

func (slowResolver) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
