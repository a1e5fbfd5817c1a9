package deliver

import (
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/schemas"
)

// Outcomes and durations are labelled with ids only where that is asked for.
func TestIdsAreLabelsOnlyInDetail(t *testing.T) {
	for _, detailed := range []bool{false, true} {
		reader := sdkmetric.NewManualReader()
		m, err := newMeters(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter(""), detailed)
		if err != nil {
			t.Fatal(err)
		}
		m.attempt(t.Context(), &schemas.Attempt{Outcome: schemas.OutcomeRetry, Error: errorServer, Tenant: "acme", Endpoint: "ep_1", Duration: 5})
		var all metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &all); err != nil {
			t.Fatal(err)
		}
		labels := map[string]attribute.Set{}
		for _, one := range all.ScopeMetrics[0].Metrics {
			switch data := one.Data.(type) {
			case metricdata.Sum[int64]:
				labels[one.Name] = data.DataPoints[0].Attributes
			case metricdata.Histogram[float64]:
				labels[one.Name] = data.DataPoints[0].Attributes
			}
		}
		want := map[attribute.Key]string{"postrider.outcome": "retry", "error.type": "http_5xx", telemetry.TenantKey: "", telemetry.EndpointKey: ""}
		if detailed {
			want[telemetry.TenantKey], want[telemetry.EndpointKey] = "acme", "ep_1"
		}
		for _, name := range []string{"postrider.deliver.outcomes", "postrider.deliver.attempt.duration"} {
			set := labels[name]
			for key, text := range want {
				if got, _ := set.Value(key); got.AsString() != text {
					t.Errorf("detailed %t: %s has %s %q, want %q", detailed, name, key, got.AsString(), text)
				}
			}
		}
	}
}
