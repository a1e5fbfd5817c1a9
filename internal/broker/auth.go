package broker

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// TLS says whether and how connections to Kafka are encrypted. There is no way
// to skip the check of the broker's certificate.
type TLS struct {
	Enabled  bool
	CAFile   string // PEM; "" means the system's authorities
	CertFile string // PEM, for client certificates; goes with KeyFile
	KeyFile  string // PEM
}

// config returns nil if TLS is off.
func (t TLS) config() (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil //nolint:nilnil // off is not an error
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read kafka ca: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read kafka ca %s: no certificate in it", t.CAFile)
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read kafka client certificate: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

// SASL is how the gateway signs in at Kafka.
type SASL struct {
	Mechanism string // "" (off), PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	User      string
	Password  string
}

// String shows everything but the password.
func (s SASL) String() string { return fmt.Sprintf("{%s %s}", s.Mechanism, s.User) }

// GoString shows everything but the password.
func (s SASL) GoString() string { return s.String() }

func (s SASL) valid() error {
	switch s.Mechanism {
	case "":
		return nil
	case "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512":
		if s.User == "" || s.Password == "" {
			return fmt.Errorf("sasl %s: user and password are needed", s.Mechanism)
		}
		return nil
	}
	return fmt.Errorf("sasl mechanism %q: must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", s.Mechanism)
}

// mechanism returns nil if SASL is off.
func (s SASL) mechanism() sasl.Mechanism {
	switch s.Mechanism {
	case "PLAIN":
		return plain.Auth{User: s.User, Pass: s.Password}.AsMechanism()
	case "SCRAM-SHA-256":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha256Mechanism()
	case "SCRAM-SHA-512":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha512Mechanism()
	}
	return nil
}
