package control

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/testkit"
)

// fakeView answers with a fixed marker or error.
type fakeView struct {
	registryView
	marker *registry.Marker
	err    error
}

func (v fakeView) Versions(ctx context.Context, tenants []string) ([]registry.Version, error) {
	if v.err != nil {
		return nil, v.err
	}
	versions, err := v.registryView.Versions(ctx, tenants)
	if err == nil && v.marker != nil {
		versions[0].Marker = *v.marker
	}
	return versions, err
}

// TestAway: while the view can't be asked, or is not complete, nothing is said to
// be missing: 503 with Retry-After, never 404.
func TestAway(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	_, path := r.endpoint(at)
	view, writer := r.deps.View, r.deps.Writer
	behind := registry.Marker{Generation: 1, Next: 1, Complete: true}
	tests := []struct {
		name string
		view registryView
		fail error
		code string
	}{
		{"redis away", fakeView{view, nil, errors.New("connection refused")}, registry.ErrUnavailable, "unavailable"},
		{"view incomplete", fakeView{view, &registry.Marker{Generation: 1, Next: 1 << 40}, nil}, registry.ErrUnavailable, "unavailable"},
		{"view behind our own writes", fakeView{view, &behind, nil}, registry.ErrUnavailable, "unavailable"},
		{"lock not had", view, registry.ErrBusy, "busy"},
		{"outcome unknown", view, registry.ErrOutcomeUnknown, "outcome_unknown"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			failures := make(chan error, 1)
			r.server.deps.View, r.server.deps.Writer = tt.view, failingWriter{writer, failures}
			defer func() { r.server.deps.View, r.server.deps.Writer = view, writer }()
			if tt.view != view {
				for _, p := range []string{path, "/v1/tenants/nobody", at + "/subscriptions", at + "/attempts/stream"} {
					got := r.call(http.MethodGet, p, nil)
					if got.status != 503 || got.text("code") != "unavailable" || got.header.Get("Retry-After") == "" {
						t.Errorf("GET %s: %d, Retry-After %q: %s", p, got.status, got.header.Get("Retry-After"), got.raw)
					}
				}
			}
			failures <- tt.fail
			got := r.call(http.MethodPost, path+"/pause", nil)
			if got.status != 503 || got.text("code") != tt.code || got.header.Get("Retry-After") == "" {
				t.Errorf("write: %d, Retry-After %q: %s", got.status, got.header.Get("Retry-After"), got.raw)
			}
		})
	}
}

// TestRedisStops is the same with the real view: a flush while no projector runs.
func TestRedisStops(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	r.stopView()
	if err := r.redis.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{at, "/v1/tenants/nobody"} {
		if got := r.call(http.MethodGet, p, nil); got.status != 503 {
			t.Errorf("GET %s: %d %s", p, got.status, got.raw)
		}
	}
	testkit.Background(t, registry.NewProjector(registry.ProjectorConfig{Kafka: r.kafka, Redis: r.redis}).Run)
	testkit.Eventually(t, "the tenant is back", func() bool { return r.call(http.MethodGet, at, nil).status == 200 })
}

// TestInternal: what is not foreseen tells the client nothing but a request id.
func TestInternal(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	failures := make(chan error, 1)
	r.server.deps.Writer = failingWriter{r.deps.Writer, failures}
	failures <- errors.New("some inside knowledge")
	got := r.call(http.MethodPut, at, `{"name":"x"}`)
	if got.status != 500 || got.text("code") != "internal" || got.text("request_id") == "" {
		t.Errorf("%d %s", got.status, got.raw)
	}
	if len(got.raw) == 0 || got.text("detail") == "" || contains(got.raw, "inside knowledge") {
		t.Errorf("the answer tells: %s", got.raw)
	}
}
