package e2e

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/postrider/postrider/internal/testkit"
	"github.com/postrider/postrider/schemas"
)

// authority is a certificate authority of a test's own.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert, a.key = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

// sign makes a certificate; without an authority yet, or where it is its own, it
// signs itself.
func (a *authority) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore = time.Now().Add(-24 * time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// file writes the authority's certificate for SSL_CERT_FILE.
func (a *authority) file() string {
	a.t.Helper()
	path := filepath.Join(a.t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// leaf is a server's certificate: for this machine unless a host is given.
func (a *authority) leaf(host string, until time.Time) tls.Certificate {
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "receiver"}, NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if host == "" {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	} else {
		template.DNSNames = []string{host}
	}
	cert, key := a.sign(template)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// secure returns a receiver with a certificate. Where mayArrive is false a
// request at it fails the test.
func secure(cfg *tls.Config, mayArrive bool) func(*testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if !mayArrive {
				t.Errorf("a request came to %s", r.Host)
			}
		}))
		s.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are meant
		s.TLS, s.EnableHTTP2 = cfg, true
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
}

// secureRaw is a receiver of connections with TLS.
func secureRaw(cfg *tls.Config, handle func(net.Conn, *bufio.Reader)) func(*testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		ln, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
		if err != nil {
			t.Fatal(err)
		}
		testkit.ServeRaw(t, ln, handle)
		return "https://" + ln.Addr().String()
	}
}

// goAway speaks HTTP/2 until the first request and then says that it has enough.
func goAway(code http2.ErrCode) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		if _, err := r.Discard(len(http2.ClientPreface)); err != nil {
			return
		}
		framer := http2.NewFramer(c, r)
		_ = framer.WriteSettings()
		for {
			f, err := framer.ReadFrame()
			if err != nil {
				return
			}
			if _, ok := f.(*http2.HeadersFrame); ok {
				_ = framer.WriteGoAway(f.Header().StreamID, code, nil)
				return
			}
		}
	}
}

// resetStream speaks HTTP/2 and resets the first request's stream.
func resetStream(c net.Conn, r *bufio.Reader) {
	if _, err := r.Discard(len(http2.ClientPreface)); err != nil {
		return
	}
	framer := http2.NewFramer(c, r)
	_ = framer.WriteSettings()
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return
		}
		if _, ok := f.(*http2.HeadersFrame); ok {
			_ = framer.WriteRSTStream(f.Header().StreamID, http2.ErrCodeInternal)
		}
	}
}

// silent takes what comes and says nothing.
func silent(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) }

// A receiver with a certificate that the process trusts (SSL_CERT_FILE) gets its
// event; every fault of a certificate or handshake is tls, with a detail that
// says which, and no request is sent.
func TestTLSReceivers(t *testing.T) {
	ours, hour := newAuthority(t), time.Now().Add(time.Hour)
	with := func(cert tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{cert}} }
	valid := ours.leaf("", hour)
	h2 := &tls.Config{Certificates: []tls.Certificate{valid}, NextProtos: []string{"h2"}}
	h1 := &tls.Config{Certificates: []tls.Certificate{valid}, NextProtos: []string{"http/1.1"}}
	old := &tls.Config{Certificates: []tls.Certificate{valid}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	self := &authority{t: t}
	const retry, delivered = schemas.OutcomeRetry, schemas.OutcomeDelivered
	g := newGateway(t)
	g.start("deliver", "deliver-1", "SSL_CERT_FILE="+ours.file())
	g.startAll().tenant()
	g.outcomes(t, []outcomeCase{
		{row: "trusted", name: "HTTP/2", url: secure(with(valid), true), want: delivered, status: 200},
		{row: "trusted", name: "HTTP/1.1", url: secureRaw(h1, answers("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")), want: delivered, status: 200},
		{row: "refused", class: "tls", name: "expired", url: secure(with(ours.leaf("", time.Now().Add(-time.Hour))), false), want: retry, also: detail("expired")},
		{row: "refused", class: "tls", name: "wrong host", url: secure(with(ours.leaf("other.example", hour)), false), want: retry, also: detail("127.0.0.1")},
		{row: "refused", class: "tls", name: "self-signed", url: secure(with(self.leaf("", hour)), false), want: retry, also: detail("unknown authority")},
		{row: "refused", class: "tls", name: "another authority", url: secure(with(newAuthority(t).leaf("", hour)), false), want: retry, also: detail("unknown authority")},
		{row: "refused", class: "tls", name: "TLS 1.1", url: secure(old, false), want: retry, also: detail("version")},
		{row: "refused", class: "tls", name: "handshake that doesn't end", url: func(t *testing.T) string { return "https://" + rawServer(t, silent) }, want: retry, also: detail("handshake")},
		{row: "refused", class: "tls", name: "hangs up in the handshake", url: func(t *testing.T) string { return "https://" + rawServer(t, hangsUp) }, want: retry},
		{row: "broken off", class: "timeout", name: "hangs after the handshake", url: secureRaw(h1, silent), want: retry},
		{row: "broken off", class: "reset", name: "closes after the handshake", url: secureRaw(h1, answers("")), want: retry},
		{row: "broken off", class: "reset", name: "GOAWAY with an error", url: secureRaw(h2, goAway(http2.ErrCodeEnhanceYourCalm)), want: retry},
		{row: "broken off", class: "reset", name: "the stream is reset", url: secureRaw(h2, resetStream), want: retry},
	})
}

// hangsUp closes after the first byte.
func hangsUp(_ net.Conn, r *bufio.Reader) { _, _ = r.ReadByte() }

// detail holds that the record says what was wrong.
func detail(text string) func(*testing.T, *gateway, string, schemas.Attempt) {
	return func(t *testing.T, _ *gateway, _ string, last schemas.Attempt) {
		t.Helper()
		wants(t, last.Detail, text)
	}
}
