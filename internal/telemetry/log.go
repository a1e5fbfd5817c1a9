package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"

	"go.opentelemetry.io/contrib/bridges/otelslog"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/trace"
)

// LogFormat is how log lines are written.
type LogFormat string

const (
	// LogJSON writes one JSON object a line, for machines.
	LogJSON LogFormat = "json"
	// LogText writes key=value lines, for a terminal.
	LogText LogFormat = "text"
)

// LogConfig says where log lines go and which.
type LogConfig struct {
	// Output takes the lines, one Write each; nil means standard error.
	Output io.Writer
	// Level is the lowest level written; nil means info.
	Level slog.Leveler
	// Format is LogJSON or LogText; empty means LogJSON.
	Format LogFormat
}

// NewLogger returns a logger that adds trace_id and span_id of the context's
// span, at the top level also where the logger has groups. An unknown format is
// an error.
func NewLogger(cfg LogConfig) (*slog.Logger, error) {
	output := cfg.Output
	if output == nil {
		output = os.Stderr
	}
	opts := &slog.HandlerOptions{Level: cfg.level()}
	var lines slog.Handler
	switch cfg.Format {
	case LogJSON, "":
		lines = slog.NewJSONHandler(output, opts)
	case LogText:
		lines = slog.NewTextHandler(output, opts)
	default:
		return nil, fmt.Errorf("log format %q is neither %q nor %q", cfg.Format, LogJSON, LogText)
	}
	return slog.New(&traceHandler{next: lines, root: lines}), nil
}

func (c LogConfig) level() slog.Leveler {
	if c.Level == nil {
		return slog.LevelInfo
	}
	return c.Level
}

// setupLogs makes the logger: to the local output always, and over OTLP where
// OTEL_LOGS_EXPORTER names an exporter.
func (t *Telemetry) setupLogs(ctx context.Context, cfg Config, res *resource.Resource) error {
	local, err := NewLogger(cfg.Log)
	if err != nil {
		return err
	}
	handler := local.Handler()
	if name := cfg.exporter("OTEL_LOGS_EXPORTER"); name != "" && name != "none" {
		exporter, err := autoexport.NewLogExporter(ctx)
		if err != nil {
			return err
		}
		provider := sdklog.NewLoggerProvider(
			sdklog.WithProcessor(sdklog.NewBatchProcessor(exporter)),
			sdklog.WithResource(res),
		)
		t.stop = append(t.stop, provider.Shutdown)
		exported := otelslog.NewHandler("github.com/postrider/postrider", otelslog.WithLoggerProvider(provider))
		handler = slog.NewMultiHandler(handler, leveledHandler{exported, cfg.Log.level()})
	}
	t.logger = slog.New(handler)
	for _, kv := range [][2]string{{"role", cfg.Role}, {"instance", cfg.Instance}} {
		if kv[1] != "" {
			t.logger = t.logger.With(kv[0], kv[1])
		}
	}
	return nil
}

// traceHandler adds the ids of the context's span to each line.
type traceHandler struct {
	next slog.Handler // root with all ops applied
	root slog.Handler
	// ops are the calls of WithAttrs and WithGroup since the root, replayed
	// behind the ids once a group is open: an attribute added later would land
	// inside of it.
	ops     []func(slog.Handler) slog.Handler
	grouped bool
}

// Enabled implements slog.Handler.
func (h *traceHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *traceHandler) Handle(ctx context.Context, line slog.Record) error {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return h.next.Handle(ctx, line)
	}
	traceID, spanID := slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String())
	if !h.grouped {
		line = line.Clone()
		line.AddAttrs(traceID, spanID)
		return h.next.Handle(ctx, line)
	}
	next := h.root.WithAttrs([]slog.Attr{traceID, spanID})
	for _, op := range h.ops {
		next = op(next)
	}
	return next.Handle(ctx, line)
}

// WithAttrs implements slog.Handler.
func (h *traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.with(h.grouped, func(next slog.Handler) slog.Handler { return next.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (h *traceHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.with(true, func(next slog.Handler) slog.Handler { return next.WithGroup(name) })
}

func (h *traceHandler) with(grouped bool, op func(slog.Handler) slog.Handler) *traceHandler {
	ops := append(slices.Clip(h.ops), op)
	return &traceHandler{next: op(h.next), root: h.root, ops: ops, grouped: grouped}
}

// leveledHandler holds a handler without a level of its own to one.
type leveledHandler struct {
	slog.Handler
	level slog.Leveler
}

// Enabled implements slog.Handler.
func (h leveledHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= h.level.Level() && h.Handler.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h leveledHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return leveledHandler{h.Handler.WithAttrs(attrs), h.level}
}

// WithGroup implements slog.Handler.
func (h leveledHandler) WithGroup(name string) slog.Handler {
	return leveledHandler{h.Handler.WithGroup(name), h.level}
}
