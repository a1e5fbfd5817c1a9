package registry

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/daead/subtle"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
)

// What keys are derived for; the names are part of the keys.
const (
	purposeToken       = "postrider token v1"
	purposeFingerprint = "postrider fingerprint v1"
)

// ErrToken says that a text is no token of [Sealer.SealToken] under any key of
// the keyset.
var ErrToken = errors.New("not a valid token")

// derived are keys made of those of the keyset.
//
// What is made now is made with the oldest key: while a rotation is rolled out,
// it is the one that every process has, and a token of a worker must open in every
// control. It changes when the oldest key is taken out of the keyset.
type derived struct {
	oldest      uint32
	tokens      map[uint32]*subtle.AESSIV
	fingerprint []byte
}

// derive makes a key for tokens of each enabled key, and one for fingerprints of
// the oldest.
func derive(h *keyset.Handle) (derived, error) {
	set := insecurecleartextkeyset.KeysetMaterial(h)
	d := derived{tokens: map[uint32]*subtle.AESSIV{}}
	for _, key := range set.GetKey() {
		if key.GetStatus() != tinkpb.KeyStatusType_ENABLED {
			continue
		}
		material := key.GetKeyData().GetValue()
		raw, err := hkdf.Key(sha256.New, material, nil, purposeToken, subtle.AESSIVKeySize)
		if err != nil {
			return d, fmt.Errorf("derive key: %w", err)
		}
		if d.tokens[key.GetKeyId()], err = subtle.NewAESSIV(raw); err != nil {
			return d, fmt.Errorf("derive key: %w", err)
		}
		if d.fingerprint != nil {
			continue
		}
		d.oldest = key.GetKeyId()
		if d.fingerprint, err = hkdf.Key(sha256.New, material, nil, purposeFingerprint, sha256.Size); err != nil {
			return d, fmt.Errorf("derive key: %w", err)
		}
	}
	return d, nil
}

// SealToken encrypts what a token stands for (AES-SIV, RFC 5297): the same bytes
// give the same token while the oldest key stays. The result is base64url.
func (s *Sealer) SealToken(plain []byte) (string, error) {
	sealed, err := s.derived.tokens[s.derived.oldest].EncryptDeterministically(plain, nil)
	if err != nil {
		return "", fmt.Errorf("seal token: %w", err)
	}
	id := binary.BigEndian.AppendUint32(nil, s.derived.oldest)
	return base64.RawURLEncoding.EncodeToString(append(id, sealed...)), nil
}

// OpenToken decrypts a token of SealToken; the error is [ErrToken].
func (s *Sealer) OpenToken(token string) ([]byte, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) < 4 {
		return nil, ErrToken
	}
	key := s.derived.tokens[binary.BigEndian.Uint32(raw)]
	if key == nil {
		return nil, ErrToken
	}
	plain, err := key.DecryptDeterministically(raw[4:], nil)
	if err != nil {
		return nil, ErrToken
	}
	return plain, nil
}

// Fingerprint returns a keyed hash (HMAC-SHA256, in hex) under the oldest key:
// whoever lacks the keyset can't find out by guessing what was hashed.
func (s *Sealer) Fingerprint(data []byte) string {
	mac := hmac.New(sha256.New, s.derived.fingerprint)
	_, _ = mac.Write(data) // a hash never fails
	return hex.EncodeToString(mac.Sum(nil))
}
