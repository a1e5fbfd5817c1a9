package telemetry

import (
	"context"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// setupTraces makes the tracer provider. Without an exporter it is the no-op
// one, which still hands a producer's trace context on untouched. The sampler
// is the SDK's: OTEL_TRACES_SAMPLER, else parent-based and always on.
func (t *Telemetry) setupTraces(ctx context.Context, cfg Config, res *resource.Resource) error {
	t.tracers = noop.NewTracerProvider()
	if !cfg.exportsTraces() {
		return nil
	}
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		return err
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(res))
	t.tracers, t.tracing = provider, true
	t.stop = append(t.stop, provider.Shutdown)
	return nil
}

// exportsTraces reports whether the environment asks for spans: by naming an
// exporter or an OTLP address. The libraries' own default would dial
// localhost:4318 in every process that nobody configured.
func (c Config) exportsTraces() bool {
	if exporter := c.exporter("OTEL_TRACES_EXPORTER"); exporter != "" {
		return exporter != "none"
	}
	return !c.disabled() && (c.getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" ||
		c.getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "")
}

// exporter returns the exporter that the variable names, "none" when
// OTEL_SDK_DISABLED is true, and "" when the variable is not set.
func (c Config) exporter(key string) string {
	if c.disabled() {
		return "none"
	}
	return c.getenv(key)
}

func (c Config) disabled() bool { return c.getenv("OTEL_SDK_DISABLED") == "true" }

func (c Config) getenv(key string) string {
	if c.Getenv == nil {
		return ""
	}
	return c.Getenv(key)
}
