// Package signature signs and verifies requests.
//
// In: how an endpoint wants its requests signed (a Spec), its live secrets, the
// webhook id, a time and the exact bytes of the body. Out: the headers that
// receivers verify: those of Standard Webhooks, with one v1 (HMAC-SHA256) or v1a
// (ed25519) signature for each live secret, so that a receiver may hold the old
// or the new one while a secret is rotated; or those of another form, such as
// Stripe's or GitHub's. Verify is the other direction.
//
// Nothing here blocks or keeps a secret in an error or a printed value. All
// functions are safe for concurrent use. The specification is at
// https://www.standardwebhooks.com.
package signature

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // as an HMAC, where a receiver knows no better
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

const (
	// SecretPrefix starts every symmetric secret of Standard Webhooks.
	SecretPrefix = "whsec_"
	// PrivatePrefix starts every private ed25519 key of Standard Webhooks.
	PrivatePrefix = "whsk_"
	// PublicPrefix starts every public ed25519 key of Standard Webhooks.
	PublicPrefix = "whpk_"
	// MinSecretBytes is the shortest decoded secret that Parse accepts.
	MinSecretBytes = 24
	// MaxSecretBytes is the longest decoded secret that Parse accepts.
	MaxSecretBytes = 64
	// MinTextBytes is the shortest secret whose text is the key.
	MinTextBytes = 8
	// MaxTextBytes is the longest secret whose text is the key.
	MaxTextBytes = 128

	newSecretBytes = 32
	redacted       = SecretPrefix + "***"
)

// ErrSecret is wrapped by every error about a secret or key.
var ErrSecret = errors.New("invalid webhook secret")

// errOnlyStandard refuses ed25519 where an HMAC is meant.
var errOnlyStandard = fmt.Errorf("%w: ed25519 keys sign with the scheme %s only", ErrSecret, SchemeStandard)

// Kind is what a secret signs with.
type Kind string

// The kinds of secrets.
const (
	// KindHMAC is a secret that both sides know; it signs v1.
	KindHMAC Kind = "hmac"
	// KindEd25519 is a private key whose public key verifies; it signs v1a.
	KindEd25519 Kind = "ed25519"
)

// KindOf returns the kind of a secret by the beginning of its text.
func KindOf(secret string) Kind {
	if strings.HasPrefix(secret, PrivatePrefix) {
		return KindEd25519
	}
	return KindHMAC
}

// Key is a parsed secret, ready to sign, or a public key, ready to verify. The
// zero Key panics when used. A Key is cheap to copy, and printing or logging it
// never shows the secret.
type Key struct{ m *material }

type material struct {
	raw     []byte                // the key of HMACs, nil for ed25519
	used    atomic.Bool           // it signed once
	macs    atomic.Pointer[pools] // nil before it signs again: of many keys few sign often
	private ed25519.PrivateKey    // nil for HMAC and for a public key
	public  ed25519.PublicKey     // nil for HMAC
}

// pools have HMACs (*mac) to be used again, by algorithm.
type pools [algorithms]sync.Pool

// mac is an HMAC with its key schedule done, and room for what it needs.
type mac struct {
	hash   hash.Hash
	prefix []byte
	sum    [sha512.Size]byte
}

// NewSecret returns a fresh symmetric secret of 32 random bytes in its text form.
func NewSecret() string {
	var raw [newSecretBytes]byte
	// crypto/rand.Read never returns an error: it ends the process instead.
	_, _ = rand.Read(raw[:])
	return SecretPrefix + base64.StdEncoding.EncodeToString(raw[:])
}

// NewSecretOf returns a fresh secret of a kind in its text form: NewSecret, or a
// private ed25519 key of 64 bytes (seed and public key).
func NewSecretOf(kind Kind) string {
	if kind != KindEd25519 {
		return NewSecret()
	}
	var seed [ed25519.SeedSize]byte
	_, _ = rand.Read(seed[:]) // as in NewSecret
	return PrivatePrefix + base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(seed[:]))
}

// Parse reads a secret of Standard Webhooks in its text form: whsec_ and padded
// standard base64 of 24 to 64 bytes, or whsk_ and that of a private ed25519 key
// (its 32-byte seed, or seed and public key, 64 bytes). Its errors wrap
// ErrSecret and never quote the secret.
func Parse(secret string) (Key, error) {
	if encoded, found := strings.CutPrefix(secret, PrivatePrefix); found {
		return parsePrivate(encoded)
	}
	encoded, found := strings.CutPrefix(secret, SecretPrefix)
	if !found {
		return Key{}, fmt.Errorf("%w: it does not start with %s or %s", ErrSecret, SecretPrefix, PrivatePrefix)
	}
	raw, err := decode(encoded)
	if err != nil {
		return Key{}, err
	}
	if len(raw) < MinSecretBytes || len(raw) > MaxSecretBytes {
		return Key{}, fmt.Errorf("%w: it has %d bytes, not %d to %d", ErrSecret, len(raw), MinSecretBytes, MaxSecretBytes)
	}
	return newKey(raw), nil
}

func parsePrivate(encoded string) (Key, error) {
	raw, err := decode(encoded)
	if err != nil {
		return Key{}, err
	}
	if len(raw) != ed25519.SeedSize && len(raw) != ed25519.PrivateKeySize {
		return Key{}, fmt.Errorf("%w: a private ed25519 key has %d or %d bytes, not %d",
			ErrSecret, ed25519.SeedSize, ed25519.PrivateKeySize, len(raw))
	}
	private := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
	if len(raw) == ed25519.PrivateKeySize && !private.Equal(ed25519.PrivateKey(raw)) {
		return Key{}, fmt.Errorf("%w: the two halves of the private ed25519 key do not belong together", ErrSecret)
	}
	return Key{&material{private: private, public: private.Public().(ed25519.PublicKey)}}, nil
}

// ParsePublic reads a public key of Standard Webhooks: whpk_ and padded standard
// base64 of 32 bytes. The Key verifies; Sign leaves it out.
func ParsePublic(text string) (Key, error) {
	encoded, found := strings.CutPrefix(text, PublicPrefix)
	if !found {
		return Key{}, fmt.Errorf("%w: a public key starts with %s", ErrSecret, PublicPrefix)
	}
	raw, err := decode(encoded)
	if err != nil {
		return Key{}, err
	}
	if len(raw) != ed25519.PublicKeySize {
		return Key{}, fmt.Errorf("%w: a public ed25519 key has %d bytes, not %d", ErrSecret, ed25519.PublicKeySize, len(raw))
	}
	return Key{&material{public: raw}}, nil
}

// parseText makes a key of the text itself, as most vendors' libraries do. What
// is meant to be an ed25519 key is refused.
func parseText(secret string) (Key, error) {
	switch {
	case strings.HasPrefix(secret, PrivatePrefix), strings.HasPrefix(secret, PublicPrefix):
		return Key{}, errOnlyStandard
	case len(secret) < MinTextBytes || len(secret) > MaxTextBytes:
		return Key{}, fmt.Errorf("%w: it has %d bytes, not %d to %d", ErrSecret, len(secret), MinTextBytes, MaxTextBytes)
	case !utf8.ValidString(secret) || strings.ContainsFunc(secret, func(r rune) bool { return !unicode.IsPrint(r) }):
		return Key{}, fmt.Errorf("%w: it has characters that are not printable", ErrSecret)
	case secret[0] == ' ' || secret[len(secret)-1] == ' ':
		return Key{}, fmt.Errorf("%w: it begins or ends with a blank", ErrSecret)
	}
	return newKey([]byte(secret)), nil
}

// decode reads padded standard base64 and tells nothing of it in its errors.
func decode(encoded string) ([]byte, error) {
	// The decoder skips line ends, even when strict.
	if strings.ContainsAny(encoded, "\r\n") {
		return nil, fmt.Errorf("%w: it contains a line end", ErrSecret)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("%w: it is not standard base64 with padding", ErrSecret)
	}
	return raw, nil
}

func newKey(raw []byte) Key { return Key{&material{raw: raw}} }

// mac returns an HMAC, to be given back to its pool if there is one: a used one has
// the key schedule done, which saves seven allocations and a third of the time for
// a body of 1 KiB (BenchmarkSign against BenchmarkSignFresh).
func (m *material) mac(a algorithm) (*mac, *sync.Pool) {
	pool := m.pool(a)
	if pool != nil {
		if used, ok := pool.Get().(*mac); ok {
			used.hash.Reset()
			return used, pool
		}
	}
	fresh := [algorithms]func() hash.Hash{sha1.New, sha256.New, sha512.New}
	return &mac{hash: hmac.New(fresh[a], m.raw)}, pool
}

// pool returns where HMACs are kept, nil when the key signs for the first time.
func (m *material) pool(a algorithm) *sync.Pool {
	all := m.macs.Load()
	if all == nil {
		if !m.used.Swap(true) {
			return nil
		}
		if all = new(pools); !m.macs.CompareAndSwap(nil, all) {
			all = m.macs.Load()
		}
	}
	return &all[a]
}

// Kind returns what the key signs with.
func (k Key) Kind() Kind {
	if k.m.public != nil {
		return KindEd25519
	}
	return KindHMAC
}

// Public returns the text form of the public key (whpk_…), "" for HMAC.
func (k Key) Public() string {
	if k.m.public == nil {
		return ""
	}
	return PublicPrefix + base64.StdEncoding.EncodeToString(k.m.public)
}

// String returns a fixed text, never the secret.
func (Key) String() string { return redacted }

// GoString returns a fixed text, never the secret.
func (Key) GoString() string { return redacted }

// LogValue returns a fixed text, never the secret.
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }
