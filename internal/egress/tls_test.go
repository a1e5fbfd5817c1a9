package egress_test

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/egress"
)

func newTLS(tb testing.TB, cert, key, ca []byte) *egress.TLS {
	tb.Helper()
	t, err := egress.NewTLS(cert, key, ca)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func TestNewTLSRefusesWhatCannotWork(t *testing.T) {
	a := newAuthority(t)
	one, two := a.hour(t), a.hour(t)
	broken := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("secret")})
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("secret")})
	large := bytes.Repeat([]byte("x"), 256<<10+1)
	for _, tt := range []struct {
		want          string
		cert, key, ca []byte
	}{
		{"client certificate has no private key", one.cert, nil, nil},
		{"private key has no client certificate", nil, one.key, nil},
		{"not that of the client certificate", one.cert, two.key, nil},
		{"client certificate is no PEM", []byte("secret"), one.key, nil},
		{"client certificate is no PEM", one.key, one.key, nil},
		{"client certificate can't be read", broken, one.key, nil},
		{"private key is no PEM", one.cert, []byte("secret"), nil},
		{"private key is encrypted", one.cert, encrypted, nil},
		{"private key can't be read", one.cert, one.cert, nil},
		{"authorities hold no PEM", nil, nil, []byte("secret")},
		{"number 2 of the authorities", nil, nil, append(bytes.Clone(a.pem), broken...)},
		{"number 1 of the authorities", nil, nil, one.key},
		{"client certificate has more than 262144 bytes", large, one.key, nil},
		{"private key has more than 262144 bytes", one.cert, large, nil},
		{"authorities has more than 262144 bytes", nil, nil, large},
	} {
		_, err := egress.NewTLS(tt.cert, tt.key, tt.ca)
		if !errors.Is(err, egress.ErrTLS) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("error %v, want %q in it", err, tt.want)
		}
	}
}

// An endpoint's certificate is shown to it and its authority is trusted, over
// HTTP/1.1 and HTTP/2; another TLS of the same contents uses the connection
// again, one of other contents never does, not even by resuming its session.
func TestTLSOfAnEndpoint(t *testing.T) {
	for _, protocol := range []string{"http/1.1", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			servers, clients := newAuthority(t), newAuthority(t)
			server := servers.hour(t)
			type seen struct{ Client, From, Protocol string }
			requests := make(chan seen, 1)
			s := serveTLS(t, &tls.Config{
				Certificates: []tls.Certificate{server.tls}, NextProtos: []string{protocol},
				ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients.pool(),
			}, func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				name := ""
				if len(r.TLS.PeerCertificates) > 0 {
					name = r.TLS.PeerCertificates[0].Subject.CommonName
				}
				requests <- seen{name, r.RemoteAddr, fmt.Sprintf("HTTP/%d", r.ProtoMajor)}
			})
			c := newClient(t, local(egress.Config{Resolver: always("127.0.0.1")}))
			u := parseURL(t, "https://hook.example:"+portOf(t, s.Listener.Addr().String()))
			do := func(settings *egress.TLS) seen {
				t.Helper()
				wantStatus(t, c.Do(t.Context(), &egress.Request{URL: u, Body: []byte("x"), TLS: settings}), 200)
				return <-requests
			}
			wantClass(t, c.Do(t.Context(), &egress.Request{URL: u}), egress.ClassTLS)
			wantClass(t, c.Do(t.Context(), &egress.Request{URL: u, TLS: newTLS(t, nil, nil, nil)}), egress.ClassTLS)

			client := clients.hour(t)
			first := do(newTLS(t, client.cert, client.key, servers.pem))
			again := do(newTLS(t, client.cert, client.key, append(servers.pem, '\n')))
			if diff := cmp.Diff(first, again); diff != "" || first.Client != "hook.example" {
				t.Errorf("first %v, with the same contents (-first +again):\n%s", first, diff)
			}
			if want := map[string]string{"h2": "HTTP/2", "http/1.1": "HTTP/1"}[protocol]; first.Protocol != want {
				t.Errorf("%s, want %s", first.Protocol, want)
			}
			other := do(newTLS(t, nil, nil, servers.pem))
			if other.Client != "" || other.From == first.From {
				t.Errorf("without a certificate: the endpoint saw %v, before %v", other, first)
			}
		})
	}
}

// The settings used longest ago lose their connections; they can be used again.
func TestTLSSettingsAreBounded(t *testing.T) {
	servers := newAuthority(t)
	server := servers.hour(t)
	from := make(chan string, 1)
	s := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{server.tls}}, func(_ http.ResponseWriter, r *http.Request) {
		from <- r.RemoteAddr
	})
	c := newClient(t, local(egress.Config{Resolver: always("127.0.0.1")}))
	u := parseURL(t, "https://hook.example:"+portOf(t, s.Listener.Addr().String()))
	do := func(n int) string {
		t.Helper()
		// Text between the blocks of a PEM file makes other contents of it.
		ca := fmt.Appendf(nil, "number %d\n%s", n, servers.pem)
		wantStatus(t, c.Do(t.Context(), &egress.Request{URL: u, TLS: newTLS(t, nil, nil, ca)}), 200)
		return <-from
	}
	first, second := do(0), do(1)
	for n := 2; n < 256; n++ {
		do(n)
	}
	if do(0) != first {
		t.Error("the first of 256 lost its connection")
	}
	do(256)
	if do(0) != first {
		t.Error("the one used a moment ago lost its connection")
	}
	if do(1) == second {
		t.Error("the second of 257 kept its connection")
	}
}
