package deliver

import (
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/schemas"
)

// TestDetailMetrics: outcomes and durations of attempts have the ids of tenant and
// endpoint as labels where that is asked for, and only there.
func TestDetailMetrics(t *testing.T) {
	for _, detailed := range []bool{false, true} {
		reader := sdkmetric.NewManualReader()
		m, err := newMeters(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter(""), detailed)
		if err != nil {
			t.Fatal(err)
		}
		for _, endpoint := range []string{"ep_1", "ep_2"} {
			m.attempt(t.Context(), &schemas.Attempt{Tenant: "acme", Endpoint: endpoint, Outcome: schemas.OutcomeRetry, Error: "timeout", Duration: 1})
		}
		var found metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &found); err != nil {
			t.Fatal(err)
		}
		series := map[string][]attribute.Set{}
		for _, one := range found.ScopeMetrics[0].Metrics {
			switch data := one.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					series[one.Name] = append(series[one.Name], p.Attributes)
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					series[one.Name] = append(series[one.Name], p.Attributes)
				}
			}
		}
		want := 1
		if detailed {
			want = 2
		}
		for _, name := range []string{"postrider.deliver.outcomes", "postrider.deliver.attempt.duration"} {
			if len(series[name]) != want {
				t.Errorf("detailed %t: %s has the series %v, want %d", detailed, name, series[name], want)
			}
			for _, labels := range series[name] {
				tenant, has := labels.Value(telemetry.TenantKey)
				if class, _ := labels.Value("error.type"); has != detailed || has && tenant.AsString() != "acme" || class.AsString() != "timeout" {
					t.Errorf("detailed %t: %s has the labels %v", detailed, name, labels)
				}
			}
		}
	}
}
