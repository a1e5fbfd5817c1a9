package control

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/signature"
)

// Bounds of a rotation.
const (
	defaultOverlap = 24 * time.Hour
	maxOverlap     = 7 * 24 * time.Hour
	// maxSecrets bounds the secrets that sign at once: each is a signature in
	// the header of every request.
	maxSecrets = 3
)

type rotation struct {
	Secret     string `json:"secret,omitempty" maxLength:"128" doc:"The new secret, as for a new endpoint; absent: one is made."`
	SecretKind string `json:"secret_kind,omitempty" enum:"hmac,ed25519" doc:"The kind of the new secret. Default: that of the newest one, or what the given secret is."`
	Overlap    string `json:"overlap,omitempty" example:"24h" doc:"How long the old secrets go on signing: 0s to 168h. Default 24h."`
}

type rotateInput struct {
	EndpointPath
	Precondition
	Body *rotation
}

// signingSecret is an hmac secret in the clear, or the public key of an ed25519
// secret: nobody but the gateway needs the private one.
type signingSecret struct {
	Kind      string    `json:"kind" enum:"hmac,ed25519"`
	Secret    string    `json:"secret,omitempty" doc:"The secret, for hmac."`
	PublicKey string    `json:"public_key,omitempty" doc:"The public key (whpk_…), for ed25519."`
	CreatedAt time.Time `json:"created_at"`
}

func (s *Server) rotateSecret(ctx context.Context, in *rotateInput) (*answer[signingSecret], error) {
	var want rotation
	if in.Body != nil {
		want = *in.Body
	}
	overlap, early := defaultOverlap, []fault(nil)
	if want.Overlap != "" {
		d, f := duration("/overlap", want.Overlap, 0, maxOverlap, codeValidation)
		overlap, early = time.Duration(d), f
	}
	out := &answer[signingSecret]{Status: http.StatusOK}
	ep, err := s.changeEndpoint(ctx, endpointChange{
		at: in.EndpointPath, ifMatch: in.IfMatch, action: "endpoint.rotate_secret",
		step: func(_ *registry.TenantState, next *registry.Endpoint) (wrote bool, err error) {
			faults := append(slices.Clip(early), checkSecret(next, want.Secret, signature.Kind(want.SecretKind))...)
			if len(faults) > 0 {
				return false, invalid(faults...)
			}
			if wrote, err = s.rotate(next, want, overlap); err != nil {
				return false, err
			}
			out.Body, err = s.showSecret(next)
			return wrote, err
		},
	})
	if err != nil {
		return nil, err
	}
	out.ETag = ep.ETag
	return out, nil
}

// rotate puts the new secret first and lets the others end after the overlap, or
// when they would anyway. It reports whether the newest secret was another one.
func (s *Server) rotate(next *registry.Endpoint, want rotation, overlap time.Duration) (bool, error) {
	kind := signature.Kind(want.SecretKind)
	if len(next.Secrets) > 0 {
		newest, err := s.openSecret(next, next.Secrets[0])
		if err != nil || newest == want.Secret {
			return false, err
		}
		if kind == "" {
			kind = signature.KindOf(newest)
		}
	}
	sealed, err := s.newSecret(next, want.Secret, kind)
	if err != nil {
		return false, err
	}
	live := []registry.Secret{sealed}
	now := s.now()
	end := now.Add(overlap)
	for _, old := range next.Secrets {
		if old.ExpiresAt.IsZero() || old.ExpiresAt.After(end) {
			old.ExpiresAt = end
		}
		if old.ExpiresAt.After(now) {
			live = append(live, old)
		}
	}
	if len(live) > maxSecrets {
		return false, refuse(http.StatusConflict, codeTooManySecrets,
			"%d secrets are still signing; wait until %s, or rotate with an overlap of 0s, which ends the old ones at once",
			len(live)-1, live[len(live)-1].ExpiresAt.Format(time.RFC3339))
	}
	next.Secrets = live
	return true, nil
}

// newSecret seals the given secret for the endpoint, or a fresh one of a kind.
func (s *Server) newSecret(ep *registry.Endpoint, text string, kind signature.Kind) (registry.Secret, error) {
	if text == "" {
		text = signature.NewSecretOf(kind)
	}
	out := registry.Secret{CreatedAt: s.now()}
	if signature.KindOf(text) == signature.KindEd25519 {
		key, err := signature.Parse(text)
		if err != nil {
			return out, err
		}
		out.Public = key.Public()
	}
	var err error
	out.Sealed, err = s.deps.Sealer.Seal([]byte(text), ep.Tenant, ep.ID, registry.SecretField)
	return out, err
}

// openSecret returns a secret of an endpoint in the clear.
func (s *Server) openSecret(e *registry.Endpoint, secret registry.Secret) (string, error) {
	plain, err := s.deps.Sealer.Open(secret.Sealed, e.Tenant, e.ID, registry.SecretField)
	if err != nil {
		return "", fmt.Errorf("read a secret of %s: %w", e.ID, err)
	}
	return string(plain), nil
}

// kindOf returns the kind of a sealed secret.
func kindOf(secret registry.Secret) string {
	if secret.Public != "" {
		return string(signature.KindEd25519)
	}
	return string(signature.KindHMAC)
}

// showSecret shows what may be shown of the secret that signs first.
func (s *Server) showSecret(e *registry.Endpoint) (out signingSecret, err error) {
	if len(e.Secrets) == 0 {
		return out, notFound("secret")
	}
	newest := e.Secrets[0]
	out = signingSecret{Kind: kindOf(newest), PublicKey: newest.Public, CreatedAt: newest.CreatedAt}
	if newest.Public == "" {
		out.Secret, err = s.openSecret(e, newest)
	}
	return out, err
}

func (s *Server) readSecret(ctx context.Context, in *EndpointPath) (*answer[signingSecret], error) {
	st, ep, err := s.findEndpoint(ctx, *in)
	if err != nil {
		return nil, err
	}
	shown, err := s.showSecret(ep)
	if err != nil {
		return nil, err
	}
	return &answer[signingSecret]{Status: http.StatusOK, ETag: etag(st.Offsets[ep.ID]), Body: shown}, nil
}
