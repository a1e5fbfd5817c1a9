package control

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/registry"
)

// maxPEM bounds each of the texts of tls, in bytes.
const maxPEM = 16 << 10

const codeInvalidCertificate = "invalid_certificate"

type tlsSettings struct {
	Certificate string `json:"client_certificate,omitempty" maxLength:"16384" doc:"PEM: the client certificate, then its intermediates."`
	Key         string `json:"client_key,omitempty" maxLength:"16384" doc:"PEM, not encrypted. Never shown again."`
	CA          string `json:"ca,omitempty" maxLength:"16384" doc:"PEM: the authorities that are trusted instead of the system's."`
}

type tlsPatch struct {
	Certificate string `json:"client_certificate,omitempty" maxLength:"16384" nullable:"true"`
	Key         string `json:"client_key,omitempty" maxLength:"16384" nullable:"true"`
	CA          string `json:"ca,omitempty" maxLength:"16384" nullable:"true"`
}

// certificates says when what stands in tls ends.
type certificates struct {
	ClientExpiresAt *time.Time `json:"client_expires_at,omitempty" doc:"When the client certificate ends."`
	CAExpiresAt     *time.Time `json:"ca_expires_at,omitempty" doc:"When the first of the authorities ends."`
}

func certificatesOf(e *registry.Endpoint) *certificates {
	if e.TLS == nil {
		return nil
	}
	return &certificates{ClientExpiresAt: optionalTime(ends(e.TLS.Certificate, 1)), CAExpiresAt: optionalTime(ends(e.TLS.CA, 0))}
}

// ends returns when the first of the certificates ends; at most so many count, all
// of them if it is 0. It is the zero time where there are none.
func ends(text string, count int) (end time.Time) {
	rest := []byte(text)
	for n := 0; count == 0 || n < count; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err == nil && (end.IsZero() || cert.NotAfter.Before(end)) {
			end = cert.NotAfter
		}
	}
	return end.UTC()
}

// tls takes up a client certificate and authorities. What the endpoint has already
// may have ended since: that is no reason to refuse another change.
func (k *keeper) tls(set tlsSettings) *registry.TLS {
	had := registry.TLS{}
	if k.e.TLS != nil {
		had = *k.e.TLS
	}
	next := registry.TLS{Certificate: set.Certificate, CA: set.CA}
	before := len(k.faults)
	for member, text := range map[string]string{"/client_certificate": set.Certificate, "/ca": set.CA} {
		if strings.Contains(text, "PRIVATE KEY") {
			k.badTLS(member, "holds a private key, which would be shown: it belongs into client_key")
			return &next
		}
	}
	switch {
	case set == (tlsSettings{}):
		k.badTLS("", "want client_certificate and client_key, or ca, or all of them")
	case strings.HasPrefix(strings.ToLower(k.e.URL), "http:"):
		k.badTLS("", "has no effect on a URL without https")
	case set.Certificate != "" && set.Key == "":
		k.badTLS("/client_key", "is required by client_certificate")
	case set.Certificate == "" && set.Key != "":
		k.badTLS("/client_certificate", "is required by client_key")
	}
	if set.Certificate != "" && len(k.faults) == before {
		next.Key = k.pair(set, had)
	}
	if set.CA != "" {
		k.usable("/ca", "", "", set.CA)
		k.lasting("/ca", set.CA, had.CA, 0)
	}
	return &next
}

// pair checks that certificate and key belong together and returns the sealed key.
func (k *keeper) pair(set tlsSettings, had registry.TLS) string {
	const cert, key = "/client_certificate", "/client_key"
	sealed := k.secret(place{pointer: "/tls" + key, field: registry.FieldTLSKey, kept: had.Key}, set.Key, length(1, maxPEM, func(rune) bool { return true }, ""))
	if sealed == "" {
		return ""
	}
	plain := set.Key
	if plain == redactedText {
		opened, err := k.s.deps.Sealer.Open(sealed, k.e.Tenant, k.e.ID, registry.FieldTLSKey)
		if err != nil {
			k.badTLS(key, "the one that is kept can't be opened: give it anew")
			return sealed
		}
		plain = string(opened)
	}
	if ends(set.Certificate, 1).IsZero() {
		k.badTLS(cert, "is no PEM text of a certificate")
		return sealed
	}
	k.lasting(cert, set.Certificate, had.Certificate, 1)
	k.usable(key, set.Certificate, plain, "")
	return sealed
}

// usable asks egress, which is to use them, whether it can.
func (k *keeper) usable(member, cert, key, ca string) {
	if _, err := egress.NewTLS([]byte(cert), []byte(key), []byte(ca)); err != nil {
		k.badTLS(member, "%s", strings.TrimPrefix(err.Error(), egress.ErrTLS.Error()+": "))
	}
}

// lasting refuses certificates that have ended, unless they were there before.
func (k *keeper) lasting(member, text, had string, count int) {
	if end := ends(text, count); text != had && !end.IsZero() && !end.After(k.s.now()) {
		k.badTLS(member, "ended at %s", end.Format(time.RFC3339))
	}
}

func (k *keeper) badTLS(member, format string, args ...any) {
	k.faults = append(k.faults, fault{"/tls" + member, fmt.Sprintf(format, args...), codeInvalidCertificate})
}
