package telemetry

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel/attribute"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/resource"
)

const (
	// TenantKey names the tenant on spans and, with Config.DetailedMetrics, on
	// metrics.
	TenantKey = attribute.Key("postrider.tenant")
	// EndpointKey names the endpoint on spans and, with Config.DetailedMetrics,
	// on metrics.
	EndpointKey = attribute.Key("postrider.endpoint_id")
)

// Limits of series per instrument. What goes over is summed under
// otel_metric_overflow="true".
const (
	seriesLimit         = 2_000
	detailedSeriesLimit = 50_000
)

// setupMetrics makes the meter provider with its Prometheus registry and, where
// OTEL_METRICS_EXPORTER names another exporter, a second reader for that.
func (t *Telemetry) setupMetrics(ctx context.Context, cfg Config, res *resource.Resource) error {
	t.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	scraped, err := promexporter.New(
		promexporter.WithRegisterer(t.registry),
		promexporter.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes),
	)
	if err != nil {
		return fmt.Errorf("make the Prometheus exporter: %w", err)
	}
	limit := seriesLimit
	if cfg.DetailedMetrics {
		limit = detailedSeriesLimit
	}
	opts := []sdkmetric.Option{
		sdkmetric.WithResource(res),
		sdkmetric.WithReader(scraped),
		sdkmetric.WithView(cfg.view),
		sdkmetric.WithCardinalityLimit(limit),
	}
	switch cfg.exporter("OTEL_METRICS_EXPORTER") {
	case "", "none", "prometheus": // /metrics is always served, no second listener
	default:
		pushed, err := autoexport.NewMetricReader(ctx)
		if err != nil {
			return err
		}
		opts = append(opts, sdkmetric.WithReader(pushed))
	}
	t.meters = sdkmetric.NewMeterProvider(opts...)
	t.stop = append(t.stop, t.meters.Shutdown)
	return nil
}

// view holds for every instrument. It is one view and not several because each
// view that matches an instrument would make a stream of its own. It is the
// single place for histogram buckets: those of an instrument are overridden.
func (c Config) view(i sdkmetric.Instrument) (sdkmetric.Stream, bool) {
	stream := sdkmetric.Stream{Name: i.Name, Description: i.Description, Unit: i.Unit}
	if i.Kind == sdkmetric.InstrumentKindHistogram && i.Unit == "s" {
		stream.Aggregation = sdkmetric.AggregationExplicitBucketHistogram{Boundaries: durationBuckets()}
	}
	if !c.DetailedMetrics {
		stream.AttributeFilter = attribute.NewDenyKeysFilter(TenantKey, EndpointKey)
		stream.ExemplarReservoirProviderSelector = bareExemplars
	}
	return stream, true
}

// durationBuckets returns bounds in seconds from 1 ms to 60 s, about two to
// three a decade, with one at the 15 s of the default exchange timeout.
func durationBuckets() []float64 {
	return []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60}
}

// bareExemplars selects the SDK's reservoirs but keeps dropped attributes out
// of them. An exemplar would otherwise show the ids that the view drops, and
// with them pass the 128 characters that Prometheus allows.
func bareExemplars(agg sdkmetric.Aggregation) exemplar.ReservoirProvider {
	provider := sdkmetric.DefaultExemplarReservoirProviderSelector(agg)
	return func(series attribute.Set) exemplar.Reservoir { return bareReservoir{provider(series)} }
}

type bareReservoir struct{ exemplar.Reservoir }

// Offer implements exemplar.Reservoir.
func (r bareReservoir) Offer(ctx context.Context, at time.Time, v exemplar.Value, _ []attribute.KeyValue) {
	r.Reservoir.Offer(ctx, at, v, nil)
}
