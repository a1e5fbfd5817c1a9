package deliver

import (
	"fmt"
	"time"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/signature"
	"github.com/postrider/postrider/schemas"
)

// secretField names a signing secret in the associated data of its seal.
const secretField = "secret"

// opener unseals what control sealed.
type opener interface {
	Open(sealed, tenant, entity, field string) ([]byte, error)
}

// signer signs for one version of an endpoint. It never changes.
type signer struct {
	scheme *signature.Scheme
	keys   []signature.Key // newest first
	ends   []time.Time     // when each key stops signing; zero is never
}

// newSigner prepares how an endpoint's requests are signed and unseals its
// secrets.
func newSigner(e *registry.Endpoint, seal opener) (*signer, error) {
	scheme, err := signature.New(signature.Spec(e.Signing))
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", e.ID, err)
	}
	s := &signer{scheme: scheme}
	for _, secret := range e.Secrets {
		plain, err := seal.Open(secret.Sealed, e.Tenant, e.ID, secretField)
		if err != nil {
			return nil, fmt.Errorf("endpoint %s: unseal its signing secret: %w", e.ID, err)
		}
		key, err := scheme.Parse(string(plain))
		if err != nil {
			return nil, fmt.Errorf("endpoint %s: its signing secret: %w", e.ID, err)
		}
		s.keys, s.ends = append(s.keys, key), append(s.ends, secret.ExpiresAt)
	}
	return s, nil
}

// sign sets the headers that the endpoint's receiver verifies. It comes last: what
// other settings put into the headers never takes the place of a signature.
func (s *signer) sign(r *request, d *schemas.Delivery, now time.Time) {
	s.scheme.Sign(r, s.live(now), signature.Message{ID: d.EventID, Type: d.Event.Type, Time: now, Body: r.Body})
}

// live returns the keys that sign at a time.
func (s *signer) live(now time.Time) []signature.Key {
	ended := func(i int) bool { return !s.ends[i].IsZero() && !now.Before(s.ends[i]) }
	for i := range s.keys {
		if !ended(i) {
			continue
		}
		// Rare: until the endpoint's next version.
		keys := append(make([]signature.Key, 0, len(s.keys)), s.keys[:i]...)
		for j := i + 1; j < len(s.keys); j++ {
			if !ended(j) {
				keys = append(keys, s.keys[j])
			}
		}
		return keys
	}
	return s.keys
}
