package egress

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
)

// maxPEM bounds each of the three texts of NewTLS, in bytes.
const maxPEM = 256 << 10

// ErrTLS is wrapped by the errors of NewTLS.
var ErrTLS = errors.New("TLS settings not usable")

// TLS is how one endpoint is spoken to over TLS: the certificate that this side
// shows, the authorities that it trusts, or both. It never changes. Two of the
// same contents share their connections.
type TLS struct {
	key   tlsKey
	certs []tls.Certificate
	roots *x509.CertPool
}

// tlsKey identifies the contents of a TLS; zero is that of no settings.
type tlsKey [sha256.Size]byte

// NewTLS reads PEM texts of at most 256 KiB each, any of which may be empty:
// certPEM is the client certificate followed by its intermediates, keyPEM its
// private key (PKCS #8, PKCS #1 or SEC 1, not encrypted), caPEM the authorities
// that are trusted in place of all others. An error wraps ErrTLS, names the text
// that is wrong and quotes nothing of it.
func NewTLS(certPEM, keyPEM, caPEM []byte) (*TLS, error) {
	certPEM, keyPEM, caPEM = bytes.TrimSpace(certPEM), bytes.TrimSpace(keyPEM), bytes.TrimSpace(caPEM)
	for _, text := range []struct {
		name string
		pem  []byte
	}{{"client certificate", certPEM}, {"private key", keyPEM}, {"authorities", caPEM}} {
		if len(text.pem) > maxPEM {
			return nil, fmt.Errorf("%w: the %s has more than %d bytes", ErrTLS, text.name, maxPEM)
		}
	}
	t := &TLS{}
	switch {
	case len(certPEM) == 0 && len(keyPEM) == 0:
	case len(keyPEM) == 0:
		return nil, fmt.Errorf("%w: the client certificate has no private key", ErrTLS)
	case len(certPEM) == 0:
		return nil, fmt.Errorf("%w: the private key has no client certificate", ErrTLS)
	default:
		cert, err := clientCertificate(certPEM, keyPEM)
		if err != nil {
			return nil, err
		}
		t.certs = []tls.Certificate{cert}
	}
	if len(caPEM) > 0 {
		roots, err := authorities(caPEM)
		if err != nil {
			return nil, err
		}
		t.roots = roots
	}
	t.key = keyOf(certPEM, keyPEM, caPEM)
	return t, nil
}

// clientCertificate tells apart what tls.X509KeyPair says in texts that may hold
// parts of the input.
func clientCertificate(certPEM, keyPEM []byte) (tls.Certificate, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil || block.Type != "CERTIFICATE" {
		return tls.Certificate{}, fmt.Errorf("%w: the client certificate is no PEM text of a certificate", ErrTLS)
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return tls.Certificate{}, fmt.Errorf("%w: the client certificate can't be read", ErrTLS)
	}
	block, _ = pem.Decode(keyPEM)
	switch {
	case block == nil:
		return tls.Certificate{}, fmt.Errorf("%w: the private key is no PEM text", ErrTLS)
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
		return tls.Certificate{}, fmt.Errorf("%w: the private key is encrypted", ErrTLS)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%w: the private key can't be read or is not that of the client certificate", ErrTLS)
	}
	return cert, nil
}

// authorities reads certificates, all of which must be readable.
func authorities(caPEM []byte) (*x509.CertPool, error) {
	roots := x509.NewCertPool()
	n := 0
	for rest := caPEM; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil {
			return nil, fmt.Errorf("%w: number %d of the authorities is no certificate that can be read", ErrTLS, n+1)
		}
		roots.AddCert(cert)
	}
	if n == 0 {
		return nil, fmt.Errorf("%w: the authorities hold no PEM text of a certificate", ErrTLS)
	}
	return roots, nil
}

func keyOf(texts ...[]byte) (key tlsKey) {
	hash := sha256.New()
	empty := true
	for _, text := range texts {
		empty = empty && len(text) == 0
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(text)))
		hash.Write(length[:])
		hash.Write(text)
	}
	if !empty {
		hash.Sum(key[:0])
	}
	return key
}
