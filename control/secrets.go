package control

import (
	"context"
	"fmt"
	"net/http"
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
	Secret  string `json:"secret,omitempty" maxLength:"128" doc:"The new secret (whsec_…); absent: one is made."`
	Overlap string `json:"overlap,omitempty" example:"24h" doc:"How long the old secrets go on signing: 0s to 168h. Default 24h."`
}

type rotateInput struct {
	EndpointPath
	Precondition
	Body *rotation
}

// signingSecret is a secret in the clear.
type signingSecret struct {
	Secret    string    `json:"secret"`
	CreatedAt time.Time `json:"created_at"`
}

func (s *Server) rotateSecret(ctx context.Context, in *rotateInput) (*answer[signingSecret], error) {
	var want rotation
	if in.Body != nil {
		want = *in.Body
	}
	overlap := defaultOverlap
	faults := checkSecret(want.Secret)
	if want.Overlap != "" {
		d, f := duration("/overlap", want.Overlap, 0, maxOverlap, codeValidation)
		overlap, faults = time.Duration(d), append(faults, f...)
	}
	if len(faults) > 0 {
		return nil, invalid(faults...)
	}
	if want.Secret == "" {
		want.Secret = signature.NewSecret()
	}
	out := &answer[signingSecret]{Status: http.StatusOK}
	ep, err := s.changeEndpoint(ctx, endpointChange{
		at: in.EndpointPath, ifMatch: in.IfMatch, action: "endpoint.rotate_secret",
		step: func(_ *registry.TenantState, next *registry.Endpoint) (bool, error) {
			newest, err := s.newestSecret(next)
			if err != nil {
				return false, err
			}
			if newest == want.Secret {
				out.Body = signingSecret{Secret: newest, CreatedAt: next.Secrets[0].CreatedAt}
				return false, nil
			}
			if err := s.rotate(next, want.Secret, overlap); err != nil {
				return false, err
			}
			out.Body = signingSecret{Secret: want.Secret, CreatedAt: next.Secrets[0].CreatedAt}
			return true, nil
		},
	})
	if err != nil {
		return nil, err
	}
	out.ETag = ep.ETag
	return out, nil
}

// rotate puts the new secret first and lets the others end after the overlap, or
// when they would anyway.
func (s *Server) rotate(next *registry.Endpoint, text string, overlap time.Duration) error {
	sealed, err := s.newSecret(next, text)
	if err != nil {
		return err
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
		return refuse(http.StatusConflict, codeTooManySecrets,
			"%d secrets are still signing; wait until %s, or rotate with an overlap of 0s, which ends the old ones at once",
			len(live)-1, live[len(live)-1].ExpiresAt.Format(time.RFC3339))
	}
	next.Secrets = live
	return nil
}

// newestSecret opens the secret that signs first, "" if there is none.
func (s *Server) newestSecret(e *registry.Endpoint) (string, error) {
	if len(e.Secrets) == 0 {
		return "", nil
	}
	plain, err := s.deps.Sealer.Open(e.Secrets[0].Sealed, e.Tenant, e.ID, registry.SecretField)
	if err != nil {
		return "", fmt.Errorf("read the secret of %s: %w", e.ID, err)
	}
	return string(plain), nil
}

func (s *Server) readSecret(ctx context.Context, in *EndpointPath) (*answer[signingSecret], error) {
	st, ep, err := s.findEndpoint(ctx, *in)
	if err != nil {
		return nil, err
	}
	text, err := s.newestSecret(ep)
	if err != nil {
		return nil, err
	}
	if text == "" {
		return nil, notFound("secret")
	}
	return &answer[signingSecret]{
		Status: http.StatusOK, ETag: etag(st.Offsets[ep.ID]),
		Body: signingSecret{Secret: text, CreatedAt: ep.Secrets[0].CreatedAt},
	}, nil
}
