package deliver

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/schemas"
)

// span starts the span of an attempt. The first one is a child of fan-out's
// span; a later one is the root of a trace of its own, linked to the one before.
func (w *Worker) span(e *entry, t *target) (context.Context, trace.Span) {
	d := &e.delivery
	opts := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient)}
	ctx := w.life
	if d.Attempt == 1 {
		if sc := telemetry.SpanContextFrom(d.Event.TraceParent, d.Event.TraceState); sc.IsValid() {
			ctx = trace.ContextWithRemoteSpanContext(ctx, sc)
		}
	} else {
		opts = append(opts, trace.WithNewRoot())
		if sc := telemetry.SpanContextFrom(d.LastTrace, ""); sc.IsValid() {
			opts = append(opts, trace.WithLinks(trace.Link{SpanContext: sc}))
		}
	}
	method := t.httpMethod()
	ctx, span := w.deps.Tracer.Start(ctx, method, opts...)
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("http.request.method", method),
			attribute.String("server.address", t.url.Hostname()),
			attribute.Int("http.request.resend_count", d.Attempt-1),
			attribute.String("cloudevents.event_id", d.Event.ID),
			attribute.String("cloudevents.event_type", d.Event.Type),
			attribute.String("cloudevents.event_source", d.Event.Source),
			attribute.String("postrider.event_id", d.EventID),
			attribute.String("postrider.delivery_id", d.ID),
			telemetry.EndpointKey.String(d.Endpoint),
			telemetry.TenantKey.String(d.Event.Tenant),
		)
	}
	return ctx, span
}

// endSpan closes an attempt's span. Only an exhausted delivery is an error: a
// failed attempt that will be repeated is not.
func endSpan(span trace.Span, res *egress.Result, v *verdict) {
	if span.IsRecording() {
		if res.Status != 0 {
			span.SetAttributes(attribute.Int("http.response.status_code", res.Status))
		}
		if v.class != "" {
			span.SetAttributes(attribute.String("error.type", v.class))
		}
		span.SetAttributes(attribute.String("postrider.outcome", string(v.outcome)))
		if v.outcome == schemas.OutcomeExhausted {
			span.SetStatus(codes.Error, "exhausted")
		}
	}
	span.End()
}
