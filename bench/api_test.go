package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAPIAsksAgainWhileBusy(t *testing.T) {
	var keys []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		switch len(keys) {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			_, _ = w.Write([]byte(`{"id":"ep_1"}`))
		}
	}))
	defer server.Close()
	id, err := api{base: server.URL, key: "key"}.newEndpoint(t.Context(), "acme", "x", map[string]any{"url": "http://example.com"})
	if err != nil || id != "ep_1" {
		t.Errorf("got %q, %v", id, err)
	}
	if len(keys) != 2 || keys[0] == "" || keys[0] != keys[1] {
		t.Errorf("Idempotency-Key of each request: %q, want the same", keys)
	}
}

func TestAPITellsRefusals(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	err := api{base: server.URL}.verb(t.Context(), "acme", "ep_1", "pause")
	if err == nil || !strings.Contains(err.Error(), "/v1/tenants/acme/endpoints/ep_1/pause: status 404") {
		t.Errorf("got %v", err)
	}
}

func TestHasBreaker(t *testing.T) {
	for doc, want := range map[string]bool{
		`{"components":{"schemas":{"Endpoint":{"properties":{"url":{},"breaker":{}}}}}}`:                          true,
		`{"components":{"schemas":{"Endpoint":{"properties":{"url":{}}},"Other":{"properties":{"breaker":{}}}}}}`: false,
		`{}`: false,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(doc)) }))
		got, err := api{base: server.URL}.hasBreaker(t.Context())
		server.Close()
		if err != nil || got != want {
			t.Errorf("%s: got %t, %v", doc, got, err)
		}
	}
}
