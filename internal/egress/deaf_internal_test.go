package egress

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"math"
	"net"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// An endpoint that allows everything to be sent over HTTP/2, reads nothing of it and
// looks alive holds what waits to be written no longer than the limit for that.
func TestHTTP2ThatDoesNotRead(t *testing.T) {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	given, closed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(closed)
		raw, err := listener.Accept()
		if err != nil {
			return
		}
		defer func() { _ = raw.Close() }()
		feign(raw, given)
	}()
	c, err := New(Config{AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdleConnections()
	limit := &c.ids.plain.transport.HTTP2.WriteByteTimeout
	if *limit <= 0 || *limit > 20*time.Second {
		t.Errorf("a write may take %s", *limit)
	}
	*limit = 100 * time.Millisecond
	target := &url.URL{Scheme: "https", Host: listener.Addr().String()}
	result := c.Do(t.Context(), &Request{URL: target, Body: make([]byte, 64<<20), Timeout: 20 * time.Second})
	if result.Err == nil || result.Duration > 15*time.Second {
		t.Errorf("%+v", result)
	}
	close(given)
	<-closed
}

// feign makes much room for a request and sends frames for as long as
// the connection lasts, but reads no more than the preface, until it may.
func feign(raw net.Conn, may <-chan struct{}) {
	if _, err := io.ReadFull(raw, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	framer := http2.NewFramer(raw, nil)
	_ = framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: math.MaxInt32})
	_ = framer.WriteWindowUpdate(0, 1<<30)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for framer.WriteWindowUpdate(0, 1) == nil {
		select {
		case <-tick.C:
		case <-may:
			_, _ = io.Copy(io.Discard, raw)
			return
		}
	}
}
