package ingest

import (
	"context"
	"strings"

	"github.com/gofiber/fiber/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/schemas"
)

// spanName is the name of ingest's spans, "<operation> <destination>" of the
// semantic conventions for messaging.
const spanName = "send events"

// requestTrace returns the producer's span from the request's headers.
func requestTrace(c *fiber.Ctx) trace.SpanContext {
	parent := c.Get("traceparent")
	if parent == "" {
		return trace.SpanContext{}
	}
	// The trace state keeps the string that it is parsed from.
	return telemetry.SpanContextFrom(parent, strings.Clone(c.Get("tracestate")))
}

func eventTrace(e *schemas.Event) trace.SpanContext {
	if e.TraceParent == "" {
		return trace.SpanContext{}
	}
	return telemetry.SpanContextFrom(e.TraceParent, e.TraceState)
}

// startSpan begins the request's span: a child of the trace in the HTTP headers
// or, for a single event without such, of the event's own.
func (s *Server) startSpan(ctx context.Context, in *intake) (context.Context, trace.Span) {
	if !in.parent.IsValid() && !in.many {
		in.parent = eventTrace(&in.items[0].event)
	}
	if in.parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, in.parent)
	}
	return s.tracer.Start(ctx, spanName, //nolint:spancheck // endSpan ends it
		trace.WithSpanKind(trace.SpanKindProducer), trace.WithTimestamp(in.started))
}

// setTrace gives the event the trace context that its record carries: that of
// the span, if one is recorded, else the producer's as it came.
func (s *Server) setTrace(ctx context.Context, in *intake, it *item) {
	span := trace.SpanFromContext(ctx)
	sc := span.SpanContext()
	own := eventTrace(&it.event)
	switch {
	case in.many && own.IsValid() && own.TraceID() != sc.TraceID():
		_, it.span = s.tracer.Start(trace.ContextWithRemoteSpanContext(ctx, own), spanName, //nolint:spancheck // endSpan ends it
			trace.WithSpanKind(trace.SpanKindProducer), trace.WithTimestamp(in.started),
			trace.WithLinks(trace.Link{SpanContext: sc}))
		sc = own
		if it.span.IsRecording() {
			sc = it.span.SpanContext()
		}
	case span.IsRecording():
	case in.parent.IsValid():
		sc = in.parent
	case own.IsValid():
		sc = own
	}
	it.event.TraceParent, it.event.TraceState = telemetry.Traceparent(sc), ""
	if sc.TraceState().Len() > 0 {
		it.event.TraceState = sc.TraceState().String()
	}
}

// endSpan says how it went and ends the request's span and those of its events.
func (s *Server) endSpan(span trace.Span, in *intake) {
	for i := range in.items {
		if it := &in.items[i]; it.span != nil {
			s.describe(it.span, it)
			it.span.End()
		}
	}
	if span.IsRecording() {
		if in.many {
			span.SetAttributes(s.messaging()...)
			span.SetAttributes(attribute.Int("messaging.batch.message_count", len(in.items)))
			if p := in.commonProblem(); p != nil {
				setError(span, p.Code, p.Status)
			}
		} else {
			s.describe(span, &in.items[0])
		}
	}
	span.End()
}

func (s *Server) messaging() []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("messaging.system", "kafka"),
		attribute.String("messaging.operation.name", "send"),
		attribute.String("messaging.operation.type", "send"),
		attribute.String("messaging.destination.name", s.cfg.Topic),
	}
}

func (s *Server) describe(span trace.Span, it *item) {
	if !span.IsRecording() {
		return
	}
	e := &it.event
	span.SetAttributes(s.messaging()...)
	span.SetAttributes(
		telemetry.TenantKey.String(e.Tenant),
		attribute.String("cloudevents.event_id", e.ID),
		attribute.String("cloudevents.event_source", e.Source),
		attribute.String("cloudevents.event_spec_version", "1.0"),
		attribute.String("cloudevents.event_type", e.Type),
		attribute.String("messaging.message.id", it.id),
		attribute.Int("messaging.message.body.size", len(e.Data)),
	)
	if e.Subject != "" {
		span.SetAttributes(attribute.String("cloudevents.event_subject", e.Subject))
	}
	if it.problem != nil {
		setError(span, it.problem.Code, it.problem.Status)
		return
	}
	span.SetAttributes(
		attribute.String("messaging.destination.partition.id", itoa(int64(it.position.Partition))),
		attribute.Int64("messaging.kafka.offset", it.position.Offset),
	)
}

// setError marks a span as failed where it is our failure.
func setError(span trace.Span, code string, status int) {
	span.SetAttributes(attribute.String("error.type", code))
	if status >= fiber.StatusInternalServerError && status != fiber.StatusLoopDetected {
		span.SetStatus(codes.Error, code)
	}
}
