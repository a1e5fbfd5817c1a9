package control

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/testkit"
)

// TestConfig shows the effect of the fields of Config that no other test sets.
// (Layout: TestTestEvent. Heartbeat, MaxStreams: TestStream. MaxTenantStreams:
// TestStreamsOfATenant. StreamBuffer: TestSlowReader. Clock: TestRotateSecret.)
func TestConfig(t *testing.T) {
	var ticks atomic.Int64
	r := newRig(t, func(c *Config) {
		c.Version = "1.2.3"
		c.Tick = func() { ticks.Add(1) }
		c.Kafka.MaxAge = 24 * time.Hour
		c.DefaultRetry = registry.Retry{Schedule: []registry.Duration{registry.Duration(time.Minute)}, MaxAge: registry.Duration(time.Hour)}
	})
	if !contains(r.document(), `"version": "1.2.3"`) {
		t.Error("the document has another version")
	}
	testkit.Eventually(t, "a sign of life", func() bool { return ticks.Load() > 0 })
	at := r.tenant("acme")
	for _, tt := range []struct {
		retry  string
		status int
	}{
		{`{"max_age":"78s"}`, 201},                       // 1.27 of the default schedule, and a second
		{`{"max_age":"77s"}`, 422},                       // less
		{`{"schedule":["47m"]}`, 201},                    // within the default max_age
		{`{"schedule":["48m"]}`, 422},                    // 1.27 of it is above
		{`{"schedule":["1h"],"max_age":"24h"}`, 201},     // what the gateway allows
		{`{"schedule":["1h"],"max_age":"24h0m1s"}`, 422}, // above
	} {
		got := r.call(http.MethodPost, at+"/endpoints", `{"url":"https://example.com/","retry":`+tt.retry+`}`)
		if got.status != tt.status {
			t.Errorf("%s: %d %s", tt.retry, got.status, got.raw)
		}
	}
}

// TestRetentionBoundsMaxAge: a delivery is not kept longer than its topic less a
// day, also where max-age says more.
func TestRetentionBoundsMaxAge(t *testing.T) {
	c := Config{Kafka: broker.Config{MaxAge: 96 * time.Hour, Retention: broker.Retention{Deliveries: 72 * time.Hour}}}
	s := &Server{cfg: c.withDefaults()}
	for maxAge, ok := range map[string]bool{"48h": true, "48h0m1s": false} {
		if _, faults := s.retry(retrySettings{Schedule: []string{"1h"}, MaxAge: maxAge}); (len(faults) == 0) != ok {
			t.Errorf("max_age %s: %v", maxAge, faults)
		}
	}
	s.cfg.DefaultRetry.MaxAge = registry.Duration(time.Hour) // less than the default schedule takes
	if _, faults := s.retry(retrySettings{}); len(faults) > 0 {
		t.Errorf("an empty retry is the gateway's own, as without one: %v", faults)
	}
}

func TestDefaults(t *testing.T) {
	c := Config{}.withDefaults()
	s := &Server{cfg: c}
	if faults := s.outlasts(registry.Retry{}); len(faults) > 0 {
		t.Errorf("the default retries do not fit: %v", faults)
	}
	c.Layout.Deliveries = 0
	if _, err := New(c, Deps{}); err == nil {
		t.Error("a layout without partitions was taken")
	}
}

// TestMetrics: requests are counted by operation and class of status.
func TestMetrics(t *testing.T) {
	r := newBackend(t)
	reader := sdkmetric.NewManualReader()
	r.deps.Meters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	r.start(func(c *Config) { c.StreamBuffer = 1 })
	r.tenant("acme")
	r.must(http.StatusNotFound, http.MethodGet, "/v1/tenants/nobody", nil)
	r.call(http.MethodGet, "/v1/tenants/acme", nil, as("nobody"))
	r.server.auditFailed(t.Context(), errHeld)
	counted := func() map[string]int64 {
		var all metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &all); err != nil {
			t.Fatal(err)
		}
		out := map[string]int64{}
		for _, scope := range all.ScopeMetrics {
			for _, m := range scope.Metrics {
				sum, _ := m.Data.(metricdata.Sum[int64])
				for _, p := range sum.DataPoints {
					op, _ := p.Attributes.Value(attribute.Key("operation"))
					class, _ := p.Attributes.Value(attribute.Key("http.response.status_class"))
					out[m.Name+" "+op.AsString()+" "+class.AsString()] += p.Value
				}
			}
		}
		return out
	}
	for name, want := range map[string]int64{
		"postrider.control.requests put-tenant 2xx": 1, "postrider.control.requests get-tenant 4xx": 2, "postrider.control.audit.errors  ": 1,
	} {
		if got := counted()[name]; got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
}
