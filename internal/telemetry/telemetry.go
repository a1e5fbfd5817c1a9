package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// scrapesInFlight bounds how many scrapes of /metrics run at once; further ones
// are answered 503.
const scrapesInFlight = 4

// Config says who the process is and what it reports.
type Config struct {
	// Service is the resource attribute service.name; empty means "postrider".
	// OTEL_SERVICE_NAME wins over it.
	Service string
	// Instance is service.instance.id: stable over restarts and different for
	// every process of a deployment. Empty leaves the attribute out.
	Instance string
	// Role is the resource attribute postrider.role, such as "deliver". Empty
	// leaves the attribute out.
	Role string
	// Version is service.version. Empty leaves the attribute out.
	Version string
	// Log says where log lines go and which.
	Log LogConfig
	// DetailedMetrics keeps the attributes postrider.tenant and
	// postrider.endpoint_id on metrics and raises the limit of series per
	// instrument from 2,000 to 50,000. Default: both attributes are dropped.
	DetailedMetrics bool
	// Getenv reads one variable of the process environment, as os.Getenv does.
	// It is asked for OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER,
	// OTEL_METRICS_EXPORTER, OTEL_LOGS_EXPORTER, OTEL_EXPORTER_OTLP_ENDPOINT
	// and OTEL_EXPORTER_OTLP_TRACES_ENDPOINT. Nil means that none is set:
	// nothing is exported.
	Getenv func(key string) string
}

// Telemetry is what Setup made; its methods may be called concurrently.
type Telemetry struct {
	logger   *slog.Logger
	tracers  trace.TracerProvider
	meters   *sdkmetric.MeterProvider
	registry *prometheus.Registry
	tracing  bool

	stop     []func(context.Context) error // in the order of stopping
	stopOnce sync.Once
	stopErr  error
}

// Setup makes the providers of this process. What it returns must be ended with
// Shutdown, which also ends the exporters' background work. An exporter name or
// protocol that nobody knows is an error; an address that does not answer is
// not, it is logged while the process works on.
//
// Setup installs OpenTelemetry's process-wide error handler, so that a failing
// exporter shows in the log, and until Shutdown takes what is written with the package
// log, of which one line a second is logged; it sets no other global.
func Setup(ctx context.Context, cfg Config) (*Telemetry, error) {
	local, err := NewLogger(cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("set up logs: %w", err)
	}
	// The handler logs to the local output only: an exporter of logs that
	// fails must not feed itself.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		local.WarnContext(context.WithoutCancel(ctx), "opentelemetry", "error", err)
	}))
	res, err := cfg.resource(ctx)
	if err != nil {
		return nil, fmt.Errorf("set up the telemetry resource: %w", err)
	}
	t := &Telemetry{registry: prometheus.NewRegistry()}
	t.setupStdlog(local)
	steps := []struct {
		name string
		run  func(context.Context, Config, *resource.Resource) error
	}{
		{"traces", t.setupTraces},
		{"metrics", t.setupMetrics},
		{"logs", t.setupLogs},
	}
	for _, step := range steps {
		if err := step.run(ctx, cfg, res); err != nil {
			return nil, errors.Join(fmt.Errorf("set up %s: %w", step.name, err), t.Shutdown(context.WithoutCancel(ctx)))
		}
	}
	return t, nil
}

// resource describes the process; the environment wins, as the specification
// of OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME demands.
func (c Config) resource(ctx context.Context) (*resource.Resource, error) {
	service := c.Service
	if service == "" {
		service = "postrider"
	}
	attrs := []attribute.KeyValue{semconv.ServiceName(service)}
	for key, value := range map[attribute.Key]string{
		semconv.ServiceInstanceIDKey: c.Instance,
		semconv.ServiceVersionKey:    c.Version,
		"postrider.role":             c.Role,
	} {
		if value != "" {
			attrs = append(attrs, key.String(value))
		}
	}
	return resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(attrs...), resource.WithFromEnv())
}

// Logger returns the logger of the process: every line names role and instance
// and, where the context has a span, trace_id and span_id.
func (t *Telemetry) Logger() *slog.Logger { return t.logger }

// Tracer returns a tracer; name is the import path of the calling package.
func (t *Telemetry) Tracer(name string) trace.Tracer { return t.tracers.Tracer(name) }

// Meter returns a meter; name is the import path of the calling package. Names
// of instruments are those of the semantic conventions or start with
// "postrider."; durations are float64 histograms in seconds (unit "s").
func (t *Telemetry) Meter(name string) metric.Meter { return t.meters.Meter(name) }

// TracerProvider returns the provider for libraries that ask for one.
func (t *Telemetry) TracerProvider() trace.TracerProvider { return t.tracers }

// MeterProvider returns the provider for libraries that ask for one.
func (t *Telemetry) MeterProvider() metric.MeterProvider { return t.meters }

// Propagator returns the W3C trace context propagator for libraries that ask
// for one. Baggage is not carried: it is unbounded and comes from producers.
func (t *Telemetry) Propagator() propagation.TextMapPropagator { return propagation.TraceContext{} }

// Tracing reports whether spans are exported at all. A hot path may use it to
// build no attributes in vain.
func (t *Telemetry) Tracing() bool { return t.tracing }

// Handler serves /metrics in the Prometheus and OpenMetrics text formats: all
// instruments of this process and the Go runtime's and process's own.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(t.logger.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: scrapesInFlight,
		EnableOpenMetrics:   true,
	})
}

// Shutdown sends what is queued and ends the exporters; ctx bounds how long. It
// must not have ended before the call, or the libraries' background work stays.
// Further calls return the first one's error.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	t.stopOnce.Do(func() {
		var errs []error
		for _, stop := range t.stop {
			errs = append(errs, stop(ctx))
		}
		if err := errors.Join(errs...); err != nil {
			t.stopErr = fmt.Errorf("shut down telemetry: %w", err)
		}
	})
	return t.stopErr
}
