package egress_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/egress"
)

// What can be wrong with an endpoint's TLS has the class tls, a text that says
// what it is, and no request is sent.
func TestHandshakesThatFail(t *testing.T) {
	known, unknown := newAuthority(t), newAuthority(t)
	hour := time.Now().Add(time.Hour)
	selfSigned := tls.Certificate{Certificate: [][]byte{unknown.cert.Raw}, PrivateKey: unknown.key}
	good := known.issue(t, "hook.example", hour).tls
	with := func(cert tls.Certificate, change ...func(*tls.Config)) act {
		config := &tls.Config{Certificates: []tls.Certificate{cert}}
		for _, c := range change {
			c(config)
		}
		return func(c net.Conn, _ *bufio.Reader) {
			secure := tls.Server(c, config)
			if _, err := http.ReadRequest(bufio.NewReader(secure)); err == nil {
				t.Error("a request arrived")
			}
		}
	}
	versions := func(low, high uint16) func(*tls.Config) {
		return func(c *tls.Config) { c.MinVersion, c.MaxVersion = low, high }
	}
	tests := []struct {
		name    string
		do      act
		detail  string
		timeout bool
	}{
		{"expired", with(known.issue(t, "hook.example", time.Now().Add(-time.Hour)).tls), "expired", false},
		{"not valid yet", with(known.issue(t, "hook.example", time.Now().Add(72*time.Hour)).tls), "not yet valid", false},
		{"wrong host", with(known.issue(t, "other.example", hour).tls), "valid for other.example, not hook.example", false},
		{"unknown authority", with(unknown.issue(t, "hook.example", hour).tls), "unknown authority", false},
		{"self-signed", with(selfSigned), "x509: ", false},
		{"TLS 1.0 only", with(good, versions(tls.VersionTLS10, tls.VersionTLS10)), "protocol version", false},
		{"TLS 1.1 only", with(good, versions(tls.VersionTLS10, tls.VersionTLS11)), "protocol version", false},
		{"no common cipher", with(good, versions(tls.VersionTLS12, tls.VersionTLS12), func(c *tls.Config) {
			c.CipherSuites = []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}
		}), "handshake failure", false},
		{"other protocol", with(good, func(c *tls.Config) { c.NextProtos = []string{"imap"} }), "no application protocol", false},
		{"plain HTTP", then(peek, say("HTTP/1.1 400 Bad Request\r\n\r\n")), "does not look like a TLS handshake", false},
		{"closed in the handshake", peek, "EOF", false},
		{"reset in the handshake", then(peek, reset), "reset", false},
		{"no answer", hang, "no end of the TLS handshake in time", true},
		{"stops in the handshake", then(peek, say("\x16\x03\x03\x00\x7a\x02"), hang), "no end of the TLS handshake in time", true},
		{"drips in the handshake", then(peek, say("\x16\x03\x03\x3f\xff"), drip("\x00")), "no end of the TLS handshake in time", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			address, _ := rawServer(t, tt.do)
			cfg := local(egress.Config{Resolver: always("127.0.0.1"), RootCAs: known.pool()})
			if tt.timeout {
				cfg.ConnectTimeout = time.Second
			}
			result := send(t, newClient(t, cfg), "https://hook.example:"+portOf(t, address))
			wantClass(t, result, egress.ClassTLS)
			if !strings.Contains(result.Err.Detail, tt.detail) || result.Err.Timeout != tt.timeout {
				t.Errorf("detail %q, want %q in it; timeout %v", result.Err.Detail, tt.detail, result.Err.Timeout)
			}
		})
	}
}

// An endpoint may refuse the client's certificate, or the lack of one, only after
// the handshake: the request is out, but the class says what to mend.
func TestClientCertificateIsRefused(t *testing.T) {
	servers, clients := newAuthority(t), newAuthority(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, protocol := range []string{"http/1.1", "h2"} {
			s := serveTLS(t, &tls.Config{
				Certificates: []tls.Certificate{servers.hour(t).tls}, MaxVersion: version, NextProtos: []string{protocol},
				ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients.pool(),
			}, func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") })
			u := "https://hook.example:" + portOf(t, s.Listener.Addr().String())
			wrong := servers.hour(t)
			for name, settings := range map[string]*egress.TLS{"none": nil, "wrong": newTLS(t, wrong.cert, wrong.key, nil)} {
				c := newClient(t, local(egress.Config{Resolver: always("127.0.0.1"), RootCAs: servers.pool()}))
				result := c.Do(t.Context(), &egress.Request{URL: parseURL(t, u), Body: []byte("x"), TLS: settings})
				if protocol == "h2" && version == tls.VersionTLS13 && result.Err != nil && result.Err.Class == egress.ClassReset {
					continue // HTTP/2 had begun to write, and closed the connection before it read why that failed
				}
				wantClass(t, result, egress.ClassTLS)
				if !strings.Contains(result.Err.Detail, "tls: ") {
					t.Errorf("TLS %x, %s, %s: %s", version, protocol, name, result.Err.Detail)
				}
			}
		}
	}
}

// Over TLS, too, a request is split where it is long, and an early answer counts.
func TestLargeRequestsOverTLS(t *testing.T) {
	a := newAuthority(t)
	s := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{a.hour(t).tls}}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/early" {
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || n != r.ContentLength {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
	c := newClient(t, local(egress.Config{Resolver: always("127.0.0.1"), RootCAs: a.pool()}))
	u := "https://hook.example:" + portOf(t, s.Listener.Addr().String())
	for _, size := range []int{0, 1, 10 << 10, 16 << 10, 17 << 10, 3 << 20} {
		result := c.Do(t.Context(), &egress.Request{URL: parseURL(t, u), Body: make([]byte, size)})
		wantStatus(t, result, 200)
	}
	result := c.Do(t.Context(), &egress.Request{URL: parseURL(t, u+"/early"), Body: make([]byte, 3<<20)})
	if result.Err != nil {
		wantClass(t, result, egress.ClassReset) // the end of the connection may destroy the answer
	} else {
		wantStatus(t, result, 413)
	}
}
