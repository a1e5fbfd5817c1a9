package egress

import (
	"crypto/tls"
	"net/http"
	"sync"
)

const (
	// maxIdentities bounds how many different TLS settings have connections at once.
	maxIdentities = 256
	// Sessions are kept apart for each identity: one that was opened with another
	// client's certificate must not be resumed.
	tlsSessions      = 4096
	identitySessions = 64
	// So many hosts are known to speak HTTP/2, without TLS settings and for each of
	// them. One that was forgotten costs a handshake more.
	plainH2Hosts    = 1 << 16
	identityH2Hosts = 256
)

// identity is the TLS side of connections that may stand in for each other.
type identity struct {
	config    *tls.Config
	transport *http.Transport // for HTTP/2
	h2        *h2Hosts
}

// identities holds one identity for each TLS in use; the one of nil stays.
type identities struct {
	make  func(*TLS) *identity
	drop  func(*identity) // called with one that is not in use any more
	plain *identity

	mu   sync.Mutex
	used *lru[tlsKey, *identity]
}

func newIdentities(build func(*TLS) *identity, drop func(*identity)) *identities {
	return &identities{make: build, drop: drop, plain: build(nil), used: newLRU[tlsKey, *identity](maxIdentities)}
}

// of returns the identity for t, which may be nil. The one that was used longest
// ago may lose its idle connections for it.
func (s *identities) of(t *TLS) *identity {
	if t == nil || t.key == (tlsKey{}) {
		return s.plain
	}
	s.mu.Lock()
	id, found := s.used.get(t.key)
	if found {
		s.mu.Unlock()
		return id
	}
	id = s.make(t)
	old, evicted := s.used.put(t.key, id)
	s.mu.Unlock()
	if evicted {
		s.drop(old)
	}
	return id
}

func (s *identities) closeIdle() {
	s.plain.transport.CloseIdleConnections()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used.each(func(id *identity) { id.transport.CloseIdleConnections() })
}

// newTLSConfig returns the configuration for t, which may be nil.
func newTLSConfig(cfg *Config, t *TLS) *tls.Config {
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		RootCAs:            cfg.RootCAs,
		NextProtos:         []string{"h2", "http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(tlsSessions),
	}
	if t != nil {
		config.Certificates = t.certs
		config.ClientSessionCache = tls.NewLRUClientSessionCache(identitySessions)
		if t.roots != nil {
			config.RootCAs = t.roots
		}
	}
	return config
}
