package control

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/signature"
)

const (
	webhookKeysPath = "/.well-known/webhook-keys.json"
	// keysAge is how long the keys may be cached, if none of them ends before.
	keysAge = 5 * time.Minute
	// keysWait bounds the wait for the index.
	keysWait = 5 * time.Second
)

type webhookKeysInput struct {
	EndpointID  string `query:"endpoint_id" required:"true" minLength:"1" maxLength:"64" doc:"The endpoint whose requests are to be verified."`
	IfNoneMatch string `header:"If-None-Match" maxLength:"1024" doc:"ETags of what is known: 304 if it is that."`
}

// webhookKeys is a JSON Web Key Set (RFC 7517) of ed25519 keys (RFC 8037).
type webhookKeys struct {
	EndpointID string       `json:"endpoint_id"`
	Keys       []webhookKey `json:"keys" nullable:"false" doc:"The public keys of the live ed25519 secrets, newest first. A request carries a v1a signature of each."`
}

// webhookKey is a key as both JWK libraries and those of Standard Webhooks read it.
type webhookKey struct {
	Type      string     `json:"kty" enum:"OKP"`
	Curve     string     `json:"crv" enum:"Ed25519"`
	X         string     `json:"x" doc:"The public key in base64url without padding."`
	Use       string     `json:"use" enum:"sig"`
	PublicKey string     `json:"public_key" doc:"The same in the form of Standard Webhooks: whpk_ and base64."`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"When the key stops signing; absent: not known yet."`
}

type webhookKeysOutput struct {
	Status       int
	ETag         string `header:"ETag"`          //nolint:tagliatelle // the header's name
	CacheControl string `header:"Cache-Control"` //nolint:tagliatelle // the header's name
	Body         *webhookKeys
}

func (s *Server) registerWebhookKeys(api huma.API) {
	handle(s, api, operation{
		method: http.MethodGet, path: webhookKeysPath, id: "get-webhook-keys", tag: "endpoints", status: http.StatusOK, access: anyone,
		summary: "Read the public keys that verify an endpoint's requests",
		description: "For receivers: no key is needed. The answer may be cached as its Cache-Control says. " +
			"An endpoint that does not exist can't be told from one without ed25519 secrets.",
	}, s.readWebhookKeys)
}

func (s *Server) readWebhookKeys(ctx context.Context, in *webhookKeysInput) (*webhookKeysOutput, error) {
	secrets, err := s.publicSecrets(ctx, in.EndpointID)
	if err != nil {
		return nil, err
	}
	body, age, err := webhookKeysOf(in.EndpointID, secrets, s.now())
	if err != nil {
		return nil, err
	}
	if len(body.Keys) == 0 {
		return nil, notFound("endpoint with ed25519 secrets")
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	out := &webhookKeysOutput{
		Status: http.StatusOK, ETag: `"` + hex.EncodeToString(sum[:16]) + `"`, Body: body,
		CacheControl: fmt.Sprintf("public, max-age=%d, must-revalidate", int(age/time.Second)),
	}
	if matches(in.IfNoneMatch, out.ETag) {
		out.Status, out.Body = http.StatusNotModified, nil
	}
	return out, nil
}

// matches reports whether an If-None-Match header names the tag (RFC 9110,
// section 13.1.2: compared weakly).
func matches(header, tag string) bool {
	for given := range strings.SplitSeq(header, ",") {
		given = strings.TrimPrefix(strings.TrimSpace(given), "W/")
		if given == tag || given == "*" {
			return true
		}
	}
	return false
}

// webhookKeysOf returns the keys that are live and for how long that holds.
func webhookKeysOf(id string, secrets []registry.Secret, now time.Time) (*webhookKeys, time.Duration, error) {
	out, age := &webhookKeys{EndpointID: id, Keys: []webhookKey{}}, keysAge
	for _, secret := range secrets {
		if !secret.ExpiresAt.IsZero() {
			left := secret.ExpiresAt.Sub(now)
			if left <= 0 {
				continue
			}
			age = min(age, left)
		}
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret.Public, signature.PublicPrefix))
		if err != nil {
			return nil, 0, fmt.Errorf("public key of %s: %w", id, err)
		}
		out.Keys = append(out.Keys, webhookKey{
			Type: "OKP", Curve: "Ed25519", X: base64.RawURLEncoding.EncodeToString(raw), Use: "sig", PublicKey: secret.Public,
			CreatedAt: secret.CreatedAt, ExpiresAt: optionalTime(secret.ExpiresAt),
		})
	}
	return out, age, nil
}

// publicSecrets returns an endpoint's ed25519 secrets from the index of this
// process: whoever asks costs neither Redis nor, once the index was whole, Kafka
// anything.
func (s *Server) publicSecrets(ctx context.Context, id string) ([]registry.Secret, error) {
	if !s.tenants.whole.Load() {
		if _, err := s.knownTenants(ctx); err != nil {
			return nil, err
		}
		s.tenants.whole.Store(true)
	}
	ctx, cancel := context.WithTimeout(ctx, keysWait)
	defer cancel()
	if err := s.tenants.reach(ctx, s.written.Load()); err != nil {
		return nil, unavailable(err)
	}
	return s.tenants.publicSecrets(id), nil
}
