package registry

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/tink-crypto/tink-go/v2/keyset"
)

// sealedPrefix is what Tink puts before a ciphertext: a byte 1 and the key's id.
const sealedPrefix = 5

// RetireKeyset returns the keyset with its primary key alone: what the others sealed
// no longer opens, so [Sealer.SealAgain] must have been through all of it.
func RetireKeyset(text string) (string, error) {
	h, err := readKeyset(text)
	if err != nil {
		return "", err
	}
	m := keyset.NewManagerFromHandle(h)
	for _, key := range h.KeysetInfo().GetKeyInfo() {
		if key.GetKeyId() == h.KeysetInfo().GetPrimaryKeyId() {
			continue
		}
		if err := m.Delete(key.GetKeyId()); err != nil {
			return "", fmt.Errorf("retire sealing key: %w", err)
		}
	}
	return writeKeyset(m)
}

// Keys returns how many keys the keyset has: one, but during a rotation.
func (s *Sealer) Keys() int { return s.keys }

// Outdated reports whether the endpoint has a text that is sealed with another key
// than the newest, or that is damaged.
func (s *Sealer) Outdated(e *Endpoint) (outdated bool) {
	copied := e.unshared()
	copied.eachSealed(func(_ string, text *string) { outdated = outdated || !s.newest(*text) })
	return outdated
}

// SealAgain seals with the newest key what the endpoint has sealed with others, in
// copies: what e points to may be shared. It reports whether it changed e. After an
// error, which names a field that can't be opened, e is as it was.
func (s *Sealer) SealAgain(e *Endpoint) (changed bool, err error) {
	next := e.unshared()
	next.eachSealed(func(field string, text *string) {
		if err != nil || s.newest(*text) {
			return
		}
		var plain []byte
		if plain, err = s.Open(*text, e.Tenant, e.ID, field); err == nil {
			*text, err = s.Seal(plain, e.Tenant, e.ID, field)
			changed = true
		}
	})
	if err != nil {
		return false, err
	}
	*e = next
	return changed, nil
}

// newest reports whether a text is sealed with the newest key, by its prefix.
func (s *Sealer) newest(sealed string) bool {
	var prefix [sealedPrefix + 1]byte // as many whole groups of base64
	if len(sealed) < 8 {
		return false
	}
	if _, err := base64.StdEncoding.Decode(prefix[:], []byte(sealed[:8])); err != nil {
		return false
	}
	return bytes.Equal(prefix[:sealedPrefix], binary.BigEndian.AppendUint32([]byte{1}, s.primary))
}

// unshared is a copy of the endpoint of which what is sealed can be changed.
func (e *Endpoint) unshared() Endpoint {
	next := *e
	next.Secrets = slices.Clone(e.Secrets)
	next.Headers = maps.Clone(e.Headers)
	next.TLS = clone(e.TLS)
	if next.Auth = clone(e.Auth); next.Auth != nil {
		next.Auth.Bearer, next.Auth.Basic, next.Auth.OAuth2 = clone(e.Auth.Bearer), clone(e.Auth.Basic), clone(e.Auth.OAuth2)
	}
	return next
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	copied := *p
	return &copied
}

// eachSealed calls fn with each text that is sealed, which it may change, and with
// the name of its field for [Sealer].
func (e *Endpoint) eachSealed(fn func(field string, text *string)) {
	some := func(field string, text *string) {
		if *text != "" {
			fn(field, text)
		}
	}
	for i := range e.Secrets {
		some(SecretField, &e.Secrets[i].Sealed)
	}
	if a := e.Auth; a != nil {
		if a.Bearer != nil {
			some(FieldBearer, &a.Bearer.Token)
		}
		if a.Basic != nil {
			some(FieldBasic, &a.Basic.Password)
		}
		if a.OAuth2 != nil {
			some(FieldOAuth2, &a.OAuth2.ClientSecret)
		}
	}
	for name, h := range e.Headers {
		some(HeaderField(name), &h.Sealed)
		e.Headers[name] = h
	}
	if e.TLS != nil {
		some(FieldTLSKey, &e.TLS.Key)
	}
}
