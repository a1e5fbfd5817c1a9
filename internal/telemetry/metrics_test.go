package telemetry_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/internal/telemetry/otlptest"
)

func TestIdsAreLabelsOnlyInDetail(t *testing.T) {
	for _, detailed := range []bool{false, true} {
		t.Run(fmt.Sprintf("detailed %v", detailed), func(t *testing.T) {
			quiet(t)
			tel := setup(t, telemetry.Config{DetailedMetrics: detailed})
			count(t, tel, t.Context(), telemetry.TenantKey.String("acme"),
				telemetry.EndpointKey.String("ep_1"), attribute.String("outcome", "success"))
			body := scrape(tel)
			if !strings.Contains(body, `outcome="success"`) {
				t.Errorf("the bounded label is missing:\n%s", body)
			}
			for _, label := range []string{`postrider_tenant="acme"`, `postrider_endpoint_id="ep_1"`} {
				if got := strings.Contains(body, label); got != detailed {
					t.Errorf("label %s present: %v, want %v", label, got, detailed)
				}
			}
		})
	}
}

func TestDetailRaisesTheSeriesLimit(t *testing.T) {
	quiet(t)
	for _, detailed := range []bool{false, true} {
		tel := setup(t, telemetry.Config{DetailedMetrics: detailed})
		for i := range 3_000 {
			count(t, tel, t.Context(), attribute.Int("n", i))
		}
		overflowed := strings.Contains(scrape(tel), `otel_metric_overflow="true"`)
		if overflowed == detailed {
			t.Errorf("detailed %v: 3,000 series overflow: %v", detailed, overflowed)
		}
	}
}

// An exemplar names the trace, and not the ids that the view dropped.
func TestExemplarsCarryNoIds(t *testing.T) {
	quiet(t)
	collector := otlptest.New()
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	tel := setup(t, telemetry.Config{Getenv: os.Getenv})
	ctx, span := tel.Tracer("test").Start(t.Context(), "attempt")
	defer span.End()
	duration, err := tel.Meter("test").Float64Histogram("postrider.test.duration", metric.WithUnit("s"))
	if err != nil {
		t.Fatal(err)
	}
	duration.Record(ctx, 0.2, metric.WithAttributes(telemetry.TenantKey.String("acme")))
	body := scrape(tel)
	if !strings.Contains(body, span.SpanContext().TraceID().String()) {
		t.Errorf("no exemplar with the trace id:\n%s", body)
	}
	if strings.Contains(body, "acme") {
		t.Errorf("the tenant shows in an exemplar:\n%s", body)
	}
}

func TestDurationsHaveBucketsFromOneMillisecondToAMinute(t *testing.T) {
	quiet(t)
	tel := setup(t, telemetry.Config{})
	meter := tel.Meter("test")
	duration, err := meter.Float64Histogram("postrider.test.duration", metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(1, 2))
	if err != nil {
		t.Fatal(err)
	}
	size, err := meter.Int64Histogram("postrider.test.size", metric.WithUnit("By"),
		metric.WithExplicitBucketBoundaries(1024))
	if err != nil {
		t.Fatal(err)
	}
	duration.Record(t.Context(), 0.2)
	size.Record(t.Context(), 100)
	body := scrape(tel)
	for name, want := range map[string]string{
		"postrider_test_duration_seconds": "0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 10.0 15.0 30.0 60.0 +Inf",
		"postrider_test_size_bytes":       "1024.0 +Inf",
	} {
		var bounds []string
		for _, m := range regexp.MustCompile(name+`_bucket{.*le="([^"]+)"`).FindAllStringSubmatch(body, -1) {
			bounds = append(bounds, m[1])
		}
		if diff := cmp.Diff(want, strings.Join(bounds, " ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestRuntimeMetricsAreServed(t *testing.T) {
	quiet(t)
	body := scrape(setup(t, telemetry.Config{}))
	for _, name := range []string{"go_goroutines ", "process_cpu_seconds_total "} {
		if !strings.Contains(body, name) {
			t.Errorf("no %sin /metrics", name)
		}
	}
}
