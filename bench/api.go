package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// api is a client of the management API.
type api struct{ base, key string }

// newTenant makes a tenant.
func (a api) newTenant(ctx context.Context, name string) error {
	return a.call(ctx, http.MethodPut, "/v1/tenants/"+name, map[string]any{})
}

// newEndpoint makes an endpoint with one subscription to an event type.
func (a api) newEndpoint(ctx context.Context, tenant, url, eventType string) error {
	return a.call(ctx, http.MethodPost, "/v1/tenants/"+tenant+"/endpoints", map[string]any{
		"url": url, "subscriptions": []map[string]any{{"types": []string{eventType}}},
	})
}

func (a api) call(ctx context.Context, method, path string, body any) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	payload, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, bytes.NewReader(payload))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", jsonType)
	req.Header.Set("Authorization", "Bearer "+a.key)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer resp.Body.Close() //nolint:errcheck // nothing depends on how it closes
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: status %d: %.500s", method, path, resp.StatusCode, text)
	}
	return nil
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
