package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/postrider/postrider/schemas"
)

// api is a client of the management API.
type api struct{ base, key string }

// newTenant makes a tenant.
func (a api) newTenant(ctx context.Context, name string) error {
	return a.call(ctx, http.MethodPut, "/v1/tenants/"+name, map[string]any{})
}

// newEndpoint makes an endpoint with the given settings, url among them, and one
// subscription to an event type. It returns its id.
func (a api) newEndpoint(ctx context.Context, tenant, eventType string, settings map[string]any) (id string, err error) {
	settings["subscriptions"] = []map[string]any{{"types": []string{eventType}}}
	var made struct {
		ID string `json:"id"`
	}
	text, err := a.ask(ctx, http.MethodPost, "/v1/tenants/"+tenant+"/endpoints", settings)
	if err != nil {
		return "", err
	}
	err = json.Unmarshal(text, &made)
	return made.ID, err
}

// verb is pause or resume.
func (a api) verb(ctx context.Context, tenant, endpoint, verb string) error {
	return a.call(ctx, http.MethodPost, "/v1/tenants/"+tenant+"/endpoints/"+endpoint+"/"+verb, nil)
}

func (a api) deleteEndpoint(ctx context.Context, tenant, endpoint string) error {
	return a.call(ctx, http.MethodDelete, "/v1/tenants/"+tenant+"/endpoints/"+endpoint, nil)
}

// hasBreaker reports whether the gateway's endpoints have one to be set.
func (a api) hasBreaker(ctx context.Context) (bool, error) {
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]json.RawMessage `json:"properties"`
			} `json:"schemas"`
		} `json:"components"`
	}
	text, err := a.ask(ctx, http.MethodGet, "/openapi.json", nil)
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return false, fmt.Errorf("read the API's document: %w", err)
	}
	for _, schema := range doc.Components.Schemas {
		if schema.Properties["breaker"] != nil && schema.Properties["url"] != nil {
			return true, nil
		}
	}
	return false, nil
}

func (a api) call(ctx context.Context, method, path string, body any) error {
	_, err := a.ask(ctx, method, path, body)
	return err
}

// ask returns the body of a 2xx answer. What the gateway could not do at once
// (503) is asked again: every request here may be repeated.
func (a api) ask(ctx context.Context, method, path string, body any) (text []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	payload := []byte(nil)
	if body != nil {
		if payload, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	req := apiRequest{method, path, schemas.NewID("bench"), payload}
	for {
		text, again, err := a.once(ctx, req)
		if !again {
			return text, err
		}
		if wait(ctx, 100*time.Millisecond) != nil {
			return nil, err
		}
	}
}

// apiRequest is a request that may be repeated under its key.
type apiRequest struct {
	method, path, key string
	body              []byte
}

func (a api) once(ctx context.Context, r apiRequest) (text []byte, again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, r.method, a.base+r.path, bytes.NewReader(r.body))
	if err != nil {
		return nil, false, err
	}
	if r.method == http.MethodPost {
		req.Header.Set("Idempotency-Key", r.key)
	}
	req.Header.Set("Content-Type", jsonType)
	req.Header.Set("Authorization", "Bearer "+a.key)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, false, fmt.Errorf("%s %s: %w", r.method, r.path, err)
	}
	defer resp.Body.Close() //nolint:errcheck // nothing depends on how it closes
	text, err = io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return nil, false, fmt.Errorf("%s %s: %w", r.method, r.path, err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, resp.StatusCode == http.StatusServiceUnavailable, fmt.Errorf("%s %s: status %d: %.500s", r.method, r.path, resp.StatusCode, text)
	}
	return text, false, nil
}

// ready reports whether a gateway process says that it is ready.
func ready(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // so that the connection is kept
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}
