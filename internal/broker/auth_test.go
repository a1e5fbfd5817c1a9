package broker

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

func TestSASL(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser(mechanism, "user", "right"))
			if err != nil {
				t.Fatal(err)
			}
			defer cluster.Close()
			for password, want := range map[string]bool{"right": true, "wrong": false} {
				c := Config{Brokers: cluster.ListenAddrs(), SASL: SASL{mechanism, "user", password}}
				if got := pings(t, c); got != want {
					t.Errorf("password %s: signed in %v, want %v", password, got, want)
				}
			}
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cert, caFile, certFile, keyFile := certificate(t)
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.TLS(&tls.Config{
		Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12,
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	for _, tt := range []struct {
		name string
		tls  TLS
		want bool
	}{
		{"right", TLS{true, caFile, certFile, keyFile}, true},
		{"off", TLS{}, false},
		{"unknown authority", TLS{Enabled: true, CertFile: certFile, KeyFile: keyFile}, false},
		{"no client certificate", TLS{Enabled: true, CAFile: caFile}, false},
	} {
		if got := pings(t, Config{Brokers: cluster.ListenAddrs(), TLS: tt.tls}); got != tt.want {
			t.Errorf("%s: connected %v, want %v", tt.name, got, tt.want)
		}
	}
	for name, conf := range map[string]TLS{
		"missing ca":   {Enabled: true, CAFile: caFile + "x"},
		"key as ca":    {Enabled: true, CAFile: keyFile},
		"missing key":  {Enabled: true, CertFile: certFile},
		"missing cert": {Enabled: true, KeyFile: keyFile},
	} {
		if _, err := (Config{Brokers: []string{"x:1"}, TLS: conf}).Options(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// pings reports whether a broker answers within five seconds.
func pings(t *testing.T, c Config) bool {
	t.Helper()
	cl, err := c.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return cl.Ping(ctx) == nil
}

// certificate makes a self-signed certificate for 127.0.0.1 and its files.
func certificate(t *testing.T) (cert tls.Certificate, caFile, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certFile, keyFile = write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", keyDER)
	if cert, err = tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	return cert, certFile, certFile, keyFile
}
