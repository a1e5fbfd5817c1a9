package registry

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// SecretField names the field of endpoints' signing secrets for [Sealer].
const SecretField = "secret"

// Sealer encrypts secrets before they reach Kafka (AEAD of Tink, AES-256-GCM).
// A sealed secret opens only for the tenant, entity and field it was sealed for.
// It is safe for concurrent use.
type Sealer struct {
	aead    tink.AEAD
	primary uint32 // the id of the key that seals
	keys    int
	derived derived
}

// NewKeyset returns a fresh keyset for [NewSealer], in base64. It is a secret:
// whoever has it opens all that was sealed with it.
func NewKeyset() (string, error) {
	m := keyset.NewManager()
	return addPrimary(m)
}

// RotateKeyset returns the keyset with a new primary key: what was sealed
// before still opens, what is sealed from now on takes the new key. Roll it out
// to every process before anything is sealed with it.
func RotateKeyset(text string) (string, error) {
	h, err := readKeyset(text)
	if err != nil {
		return "", err
	}
	return addPrimary(keyset.NewManagerFromHandle(h))
}

func addPrimary(m *keyset.Manager) (string, error) {
	id, err := m.Add(aead.AES256GCMKeyTemplate())
	if err != nil {
		return "", fmt.Errorf("make sealing key: %w", err)
	}
	if err := m.SetPrimary(id); err != nil {
		return "", fmt.Errorf("make sealing key: %w", err)
	}
	return writeKeyset(m)
}

func writeKeyset(m *keyset.Manager) (string, error) {
	h, err := m.Handle()
	if err != nil {
		return "", fmt.Errorf("write sealing keyset: %w", err)
	}
	var out bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewBinaryWriter(&out)); err != nil {
		return "", fmt.Errorf("write sealing keyset: %w", err)
	}
	return base64.StdEncoding.EncodeToString(out.Bytes()), nil
}

// readKeyset tells nothing of the keyset in its errors.
func readKeyset(text string) (*keyset.Handle, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("sealing keyset: not base64")
	}
	h, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(raw)))
	if err != nil {
		return nil, errors.New("sealing keyset: not a Tink keyset")
	}
	return h, nil
}

// NewSealer returns a Sealer for a keyset of [NewKeyset].
func NewSealer(text string) (*Sealer, error) {
	h, err := readKeyset(text)
	if err != nil {
		return nil, err
	}
	a, err := aead.New(h)
	if err != nil {
		return nil, fmt.Errorf("sealing keyset: %w", err)
	}
	keys, err := derive(h)
	if err != nil {
		return nil, err
	}
	return &Sealer{aead: a, primary: h.KeysetInfo().GetPrimaryKeyId(), keys: h.Len(), derived: keys}, nil
}

// Seal encrypts a secret of an entity; the result is base64.
func (s *Sealer) Seal(plain []byte, tenant, entity, field string) (string, error) {
	sealed, err := s.aead.Encrypt(plain, associated(tenant, entity, field))
	if err != nil {
		return "", fmt.Errorf("seal %s of %s/%s: %w", field, tenant, entity, err)
	}
	return base64.StdEncoding.EncodeToString(sealed), nil
}

// Open decrypts what Seal returned for the same tenant, entity and field.
func (s *Sealer) Open(sealed, tenant, entity, field string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return nil, fmt.Errorf("open %s of %s/%s: not base64", field, tenant, entity)
	}
	plain, err := s.aead.Decrypt(raw, associated(tenant, entity, field))
	if err != nil {
		return nil, fmt.Errorf("open %s of %s/%s: %w", field, tenant, entity, err)
	}
	return plain, nil
}

// associated is length-prefixed, so that no two triples give the same bytes.
func associated(parts ...string) []byte {
	var out []byte
	for _, p := range parts {
		out = binary.BigEndian.AppendUint32(out, uint32(len(p))) //nolint:gosec // names are short
		out = append(out, p...)
	}
	return out
}
