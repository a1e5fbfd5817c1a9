package signature

import (
	"crypto/ed25519"
	"crypto/hmac"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// DefaultTolerance is the clock difference that the specification proposes.
const DefaultTolerance = 5 * time.Minute

const (
	// maxTimestamp keeps a timestamp far from the limits of time.Time (year 9999).
	maxTimestamp = 253402300799
	// maxCandidates bounds the signatures of a header that are looked at.
	maxCandidates = 32
)

// The reasons why Verify refuses a request.
var (
	ErrMissingHeader = errors.New("missing webhook header")
	ErrBadTimestamp  = errors.New("webhook-timestamp is not a time in Unix seconds")
	ErrTooOld        = errors.New("webhook-timestamp is too old")
	ErrTooNew        = errors.New("webhook-timestamp is in the future")
	ErrNoMatch       = errors.New("no signature matches")
)

// Verify reports whether one of the keys signed the request after Standard
// Webhooks: nil if so, else an error that wraps one of the errors above. A
// timestamp that differs from now by exactly the tolerance is still good.
// Signatures of other versions than v1 and v1a are passed over. The comparison
// takes the same time wherever signatures differ.
func Verify(keys []Key, header http.Header, body []byte, now time.Time, tolerance time.Duration) error {
	return shared().standard.Verify(keys, header, body, now, tolerance)
}

// Verify is the function Verify for requests that this scheme signed. The id and
// the time are those of webhook-id and webhook-timestamp, or of the scheme's own
// headers for them.
func (s *Scheme) Verify(keys []Key, header http.Header, body []byte, now time.Time, tolerance time.Duration) error {
	idHeader, timestampHeader := s.idHeader, s.timestampHeader
	if idHeader == "" {
		idHeader = HeaderID
	}
	if timestampHeader == "" {
		timestampHeader = HeaderTimestamp
	}
	names := []string{idHeader, timestampHeader}
	for i := range s.forms {
		names = append(names, s.forms[i].header)
	}
	for _, name := range names {
		if header.Get(name) == "" {
			return fmt.Errorf("%w: %s", ErrMissingHeader, strings.ToLower(name))
		}
	}
	stamp := header.Get(timestampHeader)
	seconds, err := parseTimestamp(stamp)
	if err != nil {
		return err
	}
	switch age := now.Sub(time.Unix(seconds, 0)); {
	case age > tolerance:
		return ErrTooOld
	case age < -tolerance:
		return ErrTooNew
	}
	m := Message{ID: header.Get(idHeader), Body: body}
	for i := range s.forms {
		if f := &s.forms[i]; !s.anyMatches(f, keys, &m, stamp, header.Get(f.header)) {
			return ErrNoMatch
		}
	}
	return nil
}

// anyMatches reports whether one of the keys made one of the signatures in a
// header's value.
func (s *Scheme) anyMatches(f *form, keys []Key, m *Message, stamp, value string) bool {
	given, ok := strings.CutPrefix(value, string(appendPieces(nil, f.start, m.ID, stamp)))
	if !ok {
		return false
	}
	candidates := []string{given}
	if f.separator != "" {
		candidates = strings.SplitN(given, f.separator, maxCandidates+1)
		candidates = candidates[:min(len(candidates), maxCandidates)]
	}
	for _, key := range keys {
		if key.m.public != nil {
			if s.standard && s.anyVerifies(f, key, m, stamp, candidates) {
				return true
			}
			continue
		}
		want := key.appendMAC([]byte(f.prefix), f, m, stamp)
		for _, candidate := range candidates {
			if hmac.Equal([]byte(candidate), want) {
				return true
			}
		}
	}
	return false
}

// anyVerifies reports whether a public key verifies one of the v1a signatures.
func (s *Scheme) anyVerifies(f *form, key Key, m *Message, stamp string, candidates []string) (ok bool) {
	s.signed(f, m, stamp, func(text []byte) {
		for _, candidate := range candidates {
			encoded, found := strings.CutPrefix(candidate, versionA)
			if !found {
				continue
			}
			raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
			if err == nil && len(raw) == ed25519.SignatureSize && ed25519.Verify(key.m.public, text, raw) {
				ok = true
			}
		}
	})
	return ok
}

// parseTimestamp accepts digits without sign or leading zero only: the text that
// was signed must be the text that is signed here again.
func parseTimestamp(s string) (int64, error) {
	seconds, err := strconv.ParseInt(s, 10, 64)
	if err != nil || seconds <= 0 || seconds > maxTimestamp || s[0] < '1' || s[0] > '9' {
		return 0, ErrBadTimestamp
	}
	return seconds, nil
}
