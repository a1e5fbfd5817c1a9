package egress_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/testkit"
)

// testProxy tunnels to one address, whatever it is asked for, and remembers that.
type testProxy struct {
	target string // where tunnels lead
	refuse map[string]bool

	mu    sync.Mutex
	asked []string
}

func (p *testProxy) note(address string) (ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, address)
	return !p.refuse[address]
}

func (p *testProxy) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// http serves CONNECT to those with the right credentials.
func (p *testProxy) http(c net.Conn, r *bufio.Reader) {
	req, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	if user, password, _ := basicAuth(req); user != "us er" || password != "pa:ss@word" {
		_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
		return
	}
	if req.Method != http.MethodConnect || req.Host != req.RequestURI || !p.note(req.RequestURI) {
		_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	p.tunnel(c, r)
}

func basicAuth(req *http.Request) (user, password string, ok bool) {
	return (&http.Request{Header: http.Header{"Authorization": req.Header["Proxy-Authorization"]}}).BasicAuth()
}

// socks5 serves CONNECT of SOCKS5 with the same credentials.
func (p *testProxy) socks5(c net.Conn, r *bufio.Reader) {
	read := func(n int) []byte {
		b := make([]byte, n)
		_, _ = io.ReadFull(r, b)
		return b
	}
	if methods := read(2); methods[0] != 5 || !strings.Contains(string(read(int(methods[1]))), "\x02") {
		_, _ = c.Write([]byte{5, 0xff})
		return
	}
	_, _ = c.Write([]byte{5, 2})
	user := string(read(int(read(2)[1])))
	if password := string(read(int(read(1)[0]))); user != "us er" || password != "pa:ss@word" {
		_, _ = c.Write([]byte{1, 1})
		return
	}
	_, _ = c.Write([]byte{1, 0})
	head := read(4)
	if head[1] != 1 || head[3] == 3 { // a name
		_, _ = c.Write([]byte{5, 8, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	addr, _ := netip.AddrFromSlice(read(map[byte]int{1: 4, 4: 16}[head[3]]))
	port := read(2)
	if !p.note(netip.AddrPortFrom(addr, uint16(port[0])<<8|uint16(port[1])).String()) {
		_, _ = c.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	_, _ = c.Write(append([]byte{5, 0, 0, 3, 4, 'h', 'o', 's', 't'}, 0, 0))
	p.tunnel(c, r)
}

func (p *testProxy) tunnel(c net.Conn, r *bufio.Reader) {
	target, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer func() { _ = target.Close() }()
	go func() {
		_, _ = io.Copy(target, r)
		_ = target.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(c, target)
}

// serve starts the proxy and returns its URL with the credentials.
func (p *testProxy) serve(t *testing.T, scheme string, cert tls.Certificate) *url.URL {
	t.Helper()
	handle := map[string]func(net.Conn, *bufio.Reader){"http": p.http, "https": p.http, "socks5": p.socks5}[scheme]
	if scheme == "https" {
		inner := handle
		handle = func(c net.Conn, _ *bufio.Reader) {
			secure := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
			inner(secure, bufio.NewReader(secure))
		}
	}
	address, _ := rawServer(t, handle)
	return proxyURL(t, scheme+"://us%20er:pa%3Ass%40word@"+address)
}

func proxyURL(tb testing.TB, raw string) *url.URL {
	tb.Helper()
	u, err := egress.ParseProxy(raw)
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

// Every kind of proxy is asked for the IP address that was checked here, for
// http as for https; TLS inside verifies the name; the tunnel is used again. The
// proxy itself may be on loopback, which no range allows.
func TestProxies(t *testing.T) {
	for _, scheme := range []string{"http", "https", "socks5"} {
		for _, target := range []string{"http", "https", "h2"} {
			t.Run(scheme+" to "+target, func(t *testing.T) {
				a := newAuthority(t)
				type seen struct {
					Host, Proto, Body string
					Secret            bool
				}
				var got []seen
				handler := func(_ http.ResponseWriter, r *http.Request) {
					body, _ := io.ReadAll(r.Body)
					got = append(got, seen{r.Host, r.Proto, string(body), r.Header.Get("Proxy-Authorization") != ""})
				}
				s, want := httpServer(t, handler), seen{"hook.example:8443", "HTTP/1.1", "hello", false}
				u := "http://hook.example:8443/"
				if target != "http" {
					config := &tls.Config{Certificates: []tls.Certificate{a.hour(t).tls}}
					if target == "h2" {
						config.NextProtos, want.Proto = []string{"h2"}, "HTTP/2.0"
					}
					s, u = serveTLS(t, config, handler), "https://hook.example:8443/"
				}
				p := &testProxy{target: s.Listener.Addr().String()}
				cfg := egress.Config{Resolver: always("10.0.0.1", "2606:4700::1111", "8.8.8.8"), RootCAs: a.pool()}
				cfg.Proxy = p.serve(t, scheme, a.issue(t, "127.0.0.1", time.Now().Add(time.Hour)).tls)
				c := newClient(t, cfg)
				for range 2 {
					result := c.Do(t.Context(), &egress.Request{URL: parseURL(t, u), Body: []byte("hello")})
					wantStatus(t, result, 200)
					if result.RemoteAddr != "[2606:4700::1111]:8443" {
						t.Errorf("remote address %s", result.RemoteAddr)
					}
				}
				if diff := cmp.Diff([]seen{want, want}, got); diff != "" {
					t.Errorf("requests (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff([]string{"[2606:4700::1111]:8443"}, p.requests()); diff != "" {
					t.Errorf("the proxy was asked for (-want +got):\n%s", diff)
				}
				if target != "http" {
					wantClass(t, send(t, newClient(t, cfg), "https://other.example:8443/"), egress.ClassDNS)
					cfg.Resolver = &resolver{answers: map[string][][]netip.Addr{"other.example": {addrList("8.8.8.8")}}}
					wantClass(t, send(t, newClient(t, cfg), "https://other.example:8443/"), egress.ClassTLS)
				}
			})
		}
	}
}

func TestProxyIsNotAskedForBlockedAddresses(t *testing.T) {
	p := &testProxy{}
	cfg := egress.Config{Resolver: always("10.0.0.1", "169.254.169.254"), Proxy: p.serve(t, "http", tls.Certificate{})}
	c := newClient(t, cfg)
	for _, raw := range []string{"http://hook.example/", "https://hook.example/", "http://127.0.0.1:8080/", "http://8.8.8.8:25/"} {
		wantClass(t, send(t, c, raw), egress.ClassBlockedAddress)
	}
	if asked := p.requests(); len(asked) > 0 {
		t.Errorf("the proxy was asked for %v", asked)
	}
}

func TestProxyIsAskedForTheNextAddress(t *testing.T) {
	s := httpServer(t, func(http.ResponseWriter, *http.Request) {})
	for _, scheme := range []string{"http", "socks5"} {
		p := &testProxy{target: s.Listener.Addr().String(), refuse: map[string]bool{"8.8.8.8:80": true}}
		c := newClient(t, egress.Config{Resolver: always("8.8.8.8", "9.9.9.9"), Proxy: p.serve(t, scheme, tls.Certificate{})})
		wantStatus(t, send(t, c, "http://hook.example/"), 200)
		if diff := cmp.Diff([]string{"8.8.8.8:80", "9.9.9.9:80"}, p.requests()); diff != "" {
			t.Errorf("%s: the proxy was asked for (-want +got):\n%s", scheme, diff)
		}
	}
}

// A proxy that fails has a class of its own, and a text that tells the endpoint's
// owner neither where it is nor what its credentials are.
func TestClassesOfProxies(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	after := func(texts ...string) string { // reads something before each text
		address, _ := rawServer(t, func(c net.Conn, r *bufio.Reader) {
			for _, text := range texts {
				if _, err := r.ReadByte(); err != nil {
					return
				}
				_, _ = r.Discard(r.Buffered())
				_, _ = io.WriteString(c, text)
			}
		})
		return address
	}
	hang, _ := rawServer(t, func(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
	const greeted, reply = "\x05\x02", "\x00\x00\x01\x00\x00\x00\x00\x00\x00"
	tests := []struct {
		name, proxy, want string
		timeout           bool
	}{
		{"refused", "http://" + closed.Addr().String(), "the proxy refuses connections", false},
		{"connect hangs", "http://" + testkit.FullListener(t), "no connection to the proxy in time", true},
		{"unknown name", "http://missing.example", "the name of the proxy could not be looked up", false},
		{"silent", "http://" + hang, "no answer of the proxy in time", true},
		{"credentials", "http://" + after("HTTP/1.1 407 x\r\n\r\n"), "the proxy does not accept the credentials (status 407)", false},
		{"bad gateway", "http://" + after("HTTP/1.1 502 x\r\n\r\n"), "the proxy answered with status 502", false},
		{"not HTTP", "http://" + after("SSH-2.0 secret\r\n"), "the proxy closed the connection, or its answer makes no sense", false},
		{"too much", "http://" + after("HTTP/1.1 200 x\r\n\r\nsecret"), "the proxy closed the connection, or its answer makes no sense", false},
		{"closed", "http://" + after(""), "the proxy closed the connection, or its answer makes no sense", false},
		{"no TLS", "https://" + after("HTTP/1.1 400 x\r\n\r\n"), "the TLS handshake with the proxy failed", false},
		{"TLS hangs", "https://" + hang, "the TLS handshake with the proxy failed", true},
		{"socks silent", "socks5://" + hang, "no answer of the proxy in time", true},
		{"socks not", "socks5://" + after("HTTP/1.1 400 x\r\n\r\n"), "the proxy closed the connection, or its answer makes no sense", false},
		{"socks method", "socks5://" + after("\x05\xff"), "the proxy does not accept the credentials", false},
		{"socks password", "socks5://" + after(greeted, "\x01\x01"), "the proxy does not accept the credentials", false},
		{"socks closed", "socks5://" + after(greeted), "the proxy closed the connection, or its answer makes no sense", false},
		{"socks reply hangs", "socks5://" + after(greeted, "\x01\x00", "\x05", ""), "no answer of the proxy in time", true},
		{"socks reply not", "socks5://" + after(greeted, "\x01\x00", "\x04"+reply), "the proxy closed the connection, or its answer makes no sense", false},
		{"socks address kind", "socks5://" + after(greeted, "\x01\x00", "\x05\x00\x00\x07"), "the proxy closed the connection, or its answer makes no sense", false},
	}
	for code, reason := range []string{
		1: "general failure", 2: "not allowed", 3: "network unreachable", 4: "host unreachable", 5: "connection refused",
		6: "no answer in time", 7: "command not supported", 8: "kind of address not supported", 9: "unknown reason",
	} {
		if code > 0 {
			tests = append(tests, struct {
				name, proxy, want string
				timeout           bool
			}{"socks " + reason, "socks5://" + after(greeted, "\x01\x00", "\x05"+string(rune(code))+reply), "the proxy could not connect: " + reason, false})
		}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := egress.Config{Resolver: always("8.8.8.8"), Proxy: proxyURL(t, strings.Replace(tt.proxy, "://", "://user:secret@", 1))}
			if tt.timeout {
				cfg.ConnectTimeout = 400 * time.Millisecond
			}
			result := send(t, newClient(t, cfg), "https://hook.example/")
			wantClass(t, result, egress.ClassProxy)
			if result.Err.Detail != tt.want || result.Err.Timeout != tt.timeout || strings.Contains(fmt.Sprint(result.Err), "127.0") {
				t.Errorf("%q, timeout %v", result.Err, result.Err.Timeout)
			}
		})
	}
}

func TestParseProxy(t *testing.T) {
	for _, raw := range []string{"http://proxy", "https://user:secret@proxy:3128/", "socks5://[fd00::1]:1080"} {
		proxyURL(t, raw)
	}
	for raw, want := range map[string]string{
		"proxy:3128": "scheme", "socks4://proxy": "scheme", "ftp://secret@proxy": "scheme", "": "scheme",
		"http://": "no host", "http:proxy": "no host", "http://:80": "no host",
		"http://secret/path": "a path", "http://secret?a": "a path", "http://proxy:secret": "can't be parsed", "http://proxy:99999": "the port", "http://proxy:0": "the port",
		"http://user%3Asecret@proxy": "colon", "socks5://" + strings.Repeat("a", 256) + "@proxy": "255 bytes",
	} {
		_, err := egress.ParseProxy(raw)
		if !errors.Is(err, egress.ErrProxy) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%.40q: %v, want %q in it", raw, err, want)
		}
	}
	if _, err := egress.New(egress.Config{Proxy: &url.URL{Scheme: "ftp", Host: "proxy"}}); !errors.Is(err, egress.ErrProxy) {
		t.Errorf("New: %v", err)
	}
}
