package egress_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/testkit"
)

// local allows this machine and gives names to it.
func local(cfg egress.Config) egress.Config {
	cfg.AllowCIDRs = append(cfg.AllowCIDRs, netip.MustParsePrefix("127.0.0.0/8"))
	return cfg
}

// rawServer runs handle for each connection and counts them.
func rawServer(tb testing.TB, handle func(net.Conn, *bufio.Reader)) (address string, count *atomic.Int32) {
	tb.Helper()
	return testkit.RawServer(tb, handle)
}

// answering reads one request after the other and writes text to each.
func answering(text string) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		for readRequest(r) == nil {
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
		}
	}
}

func readRequest(r *bufio.Reader) error { return testkit.ReadRequest(r) }

// fields makes a list of names and values.
func fields(pairs ...string) (list []egress.Field) {
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, egress.Field{Name: pairs[i], Value: pairs[i+1]})
	}
	return list
}

func httpServer(tb testing.TB, handler http.HandlerFunc) *httptest.Server {
	tb.Helper()
	s := httptest.NewServer(handler)
	tb.Cleanup(s.Close)
	return s
}

// tlsServer speaks HTTP/2 with a certificate for name that ends at notAfter.
func tlsServer(tb testing.TB, name string, notAfter time.Time, handler http.HandlerFunc) (*httptest.Server, *x509.CertPool) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: notAfter,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	s := httptest.NewUnstartedServer(handler)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = quiet()
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.StartTLS()
	tb.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return s, roots
}

func portOf(tb testing.TB, address string) string {
	tb.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		tb.Fatal(err)
	}
	return port
}

func send(tb testing.TB, c *egress.Client, raw string) egress.Result {
	tb.Helper()
	return c.Do(tb.Context(), &egress.Request{URL: parseURL(tb, raw), Body: []byte(`{"a":1}`)})
}

// timeLimits are for exchanges that are to run into one: a busy machine may not get
// as far as a test wants within the first.
func timeLimits() []time.Duration {
	return []time.Duration{200 * time.Millisecond, 2 * time.Second, 20 * time.Second}
}

func wantClass(tb testing.TB, result egress.Result, want egress.Class) {
	tb.Helper()
	if result.Err == nil {
		tb.Fatalf("no error, status %d; want class %s", result.Status, want)
	}
	if result.Err.Class != want {
		tb.Fatalf("class %s (%s), want %s", result.Err.Class, result.Err, want)
	}
}

func wantStatus(tb testing.TB, result egress.Result, want int) {
	tb.Helper()
	if result.Err != nil || result.Status != want {
		tb.Fatalf("status %d, error %v; want status %d", result.Status, result.Err, want)
	}
}
