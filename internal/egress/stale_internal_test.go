//go:build linux

package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// lateConn hands on what it has read only as long as it is not held up; then the
// transport does not come to see that the other end has closed it.
type lateConn struct {
	*net.TCPConn
	held   atomic.Bool
	closed chan struct{}
	once   sync.Once
}

func (c *lateConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if c.held.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *lateConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.TCPConn.Close()
}

// lateClient dials lateConns for HTTP/2 and hands over their socks.
func lateClient(t *testing.T, s *httptest.Server) (*Client, <-chan *sock) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c, err := New(Config{AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	socks := make(chan *sock, 8)
	id := c.ids.plain
	id.h2.add(s.Listener.Addr().String())
	id.transport.DialTLSContext = func(ctx context.Context, _, address string) (net.Conn, error) {
		dialed, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		tcp := dialed.(*net.TCPConn)
		one := newSock(tcp, tcp.RemoteAddr())
		one.Conn = &lateConn{TCPConn: tcp, closed: make(chan struct{})}
		socks <- one
		return c.dialer.handshake(ctx, one, "127.0.0.1", id.config)
	}
	return c, socks
}

// A request does not go over a kept HTTP/2 connection that the endpoint has
// closed, though the transport has not noticed: it is written once, to a new one.
func TestStaleHTTP2IsNotUsed(t *testing.T) {
	var requests atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		requests.Add(int32(r.ProtoMajor))
	}))
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{}
	s.StartTLS()
	defer s.Close()
	c, socks := lateClient(t, s)
	target := &url.URL{Scheme: "https", Host: s.Listener.Addr().String()}
	for n := range int32(3) {
		result := c.Do(t.Context(), &Request{URL: target, Body: []byte("{}")})
		if result.Err != nil || result.Status != http.StatusOK || requests.Load() != 2*(n+1) {
			t.Fatalf("request %d: status %d, error %v, %d/2 came", n, result.Status, result.Err, requests.Load())
		}
		one := <-socks // there is a new one each time
		defer func() { _ = one.Close() }()
		if one.users.Load() != 0 {
			t.Errorf("%d exchanges are left on the connection", one.users.Load())
		}
		one.Conn.(*lateConn).held.Store(true)
		s.CloseClientConnections()
		for !one.hasEnded() {
			runtime.Gosched()
		}
	}
}

// Where another exchange waits for its answer, a closed connection is left to the
// transport: the answer may still be read.
func TestSharedHTTP2IsNotRefused(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	dialed, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	one := newSock(dialed, dialed.RemoteAddr())
	defer func() { _ = one.Close() }()
	info := httptrace.GotConnInfo{Conn: tls.Client(one, nil), Reused: true}
	first, second, third := &exchange{}, &exchange{}, &exchange{}
	first.gotConn(info)
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := accepted.Close(); err != nil {
		t.Fatal(err)
	}
	for !one.hasEnded() {
		runtime.Gosched()
	}
	second.gotConn(info)
	if one.refused.Load() {
		t.Error("refused while the first exchange waits")
	}
	first.leave()
	second.leave()
	third.gotConn(info)
	if _, err := one.Write([]byte("x")); !errors.Is(err, net.ErrClosed) || !third.unsent(err) {
		t.Errorf("written to the closed connection: %v", err)
	}
}
