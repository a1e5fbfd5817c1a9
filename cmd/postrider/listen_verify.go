package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/signature"
)

// verifier is one way in which a request may be signed.
type verifier struct {
	scheme *signature.Scheme
	keys   []signature.Key
}

// verifiers are the ways in which a request may be signed: any of them is enough.
type verifiers []verifier

// verify returns nil if one of them verifies the request, else what the first of
// them says that found its headers.
func (vs verifiers) verify(header http.Header, body []byte, now time.Time) (err error) {
	for _, v := range vs {
		e := v.scheme.Verify(v.keys, header, body, now, signature.DefaultTolerance)
		if e == nil {
			return nil
		}
		if err == nil || errors.Is(err, signature.ErrMissingHeader) {
			err = e
		}
	}
	return err
}

// parseVerifier reads secrets, or public keys, for a scheme.
func parseVerifier(spec signature.Spec, texts ...string) (verifier, error) {
	scheme, err := signature.New(spec)
	if err != nil {
		return verifier{}, err
	}
	v := verifier{scheme: scheme}
	for _, text := range texts {
		parse := scheme.Parse
		if strings.HasPrefix(text, signature.PublicPrefix) {
			parse = signature.ParsePublic
		}
		key, err := parse(text)
		if err != nil {
			return v, err
		}
		v.keys = append(v.keys, key)
	}
	return v, nil
}

// verifiers are those of the secrets that were given and of the endpoints.
func (c *listenCmd) verifiers(ctx context.Context, conn *connection) (all verifiers, err error) {
	add := func(spec signature.Spec, texts []string, of string) error {
		v, err := parseVerifier(spec, texts...)
		if err != nil {
			return fmt.Errorf("%s: %w", of, err)
		}
		all = append(all, v)
		return nil
	}
	if len(c.Secret) > 0 {
		if err := add(signature.Spec{Scheme: c.Scheme}, c.Secret, "--secret"); err != nil {
			return nil, err
		}
	}
	for _, id := range c.SecretFrom {
		signing, texts, err := c.endpointSecrets(ctx, conn, id)
		if err == nil {
			err = add(signature.Spec(signing), texts, "secret of "+id)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, id := range c.KeysFrom {
		texts, err := publicKeys(ctx, conn, id)
		if err == nil {
			err = add(signature.Spec{}, texts, "public keys of "+id)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// endpointSecrets reads how an endpoint signs, its newest secret and its public
// keys.
func (c *listenCmd) endpointSecrets(ctx context.Context, conn *connection, id string) (registry.Signing, []string, error) {
	client, err := conn.client()
	if err != nil {
		return registry.Signing{}, nil, err
	}
	path, err := conn.tenantPath("endpoints", id)
	if err != nil {
		return registry.Signing{}, nil, err
	}
	var texts []string
	secret, err := readSecret(ctx, client, path+"/secret")
	if err != nil {
		return registry.Signing{}, nil, fmt.Errorf("secret of %s: %w", id, err)
	}
	if secret != "" { // an ed25519 secret shows its public key only
		texts = append(texts, secret)
	}
	answer, err := client.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return registry.Signing{}, nil, fmt.Errorf("signing of %s: %w", id, err)
	}
	var found struct {
		Signing registry.Signing `json:"signing"`
		Secrets []publicKey      `json:"secrets"`
	}
	if err := json.Unmarshal(answer, &found); err != nil {
		return registry.Signing{}, nil, fmt.Errorf("read the answer: %w", err)
	}
	return found.Signing, append(texts, publicTexts(found.Secrets)...), nil
}

// publicKey is a secret as answers show it.
type publicKey struct {
	PublicKey string `json:"public_key"`
}

func publicTexts(keys []publicKey) (texts []string) {
	for _, key := range keys {
		if key.PublicKey != "" {
			texts = append(texts, key.PublicKey)
		}
	}
	return texts
}

// publicKeys fetches an endpoint's public keys as any receiver may: without an API
// key.
func publicKeys(ctx context.Context, conn *connection, id string) ([]string, error) {
	client, err := newAPIClient(conn.API, "")
	if err != nil {
		return nil, err
	}
	answer, err := client.do(ctx, apiRequest{
		method: http.MethodGet, path: "/.well-known/webhook-keys.json", query: url.Values{"endpoint_id": {id}},
	})
	if err != nil {
		return nil, fmt.Errorf("public keys of %s: %w", id, err)
	}
	var found struct {
		Keys []publicKey `json:"keys"`
	}
	if err := json.Unmarshal(answer, &found); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return publicTexts(found.Keys), nil
}
