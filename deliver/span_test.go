package deliver

import (
	"net/http"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// The first attempt is a child of the event's span; a retry is a root of its own,
// linked to the attempt before; only the last failure is an error.
func TestSpans(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		recorder := tracetest.NewSpanRecorder()
		tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)).Tracer("test")
		s := newSink(t, func(int, *http.Request) int { return http.StatusInternalServerError })
		e, _ := r.endpoint(s.URL, quick(1), func(e *registry.Endpoint) { e.Method = http.MethodPut })
		r.worker("w1", func(_ *Config, d *Deps) { d.Tracer = tracer })
		d := r.delivery(e.ID)
		d.Event.TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		r.send(d)
		r.eventually("exhausted", func() bool { return r.outcomes()[schemas.OutcomeExhausted] == 1 })
		spans := recorder.Ended()
		if len(spans) != 2 {
			t.Fatalf("%d spans, want 2", len(spans))
		}
		first, second := spans[0], spans[1]
		if first.Parent().SpanID().String() != "b7ad6b7169203331" || first.SpanContext().TraceID().String() != "0af7651916cd43dd8448eb211c80319c" {
			t.Errorf("first attempt is a child of %v", first.Parent())
		}
		if second.Parent().IsValid() || second.SpanContext().TraceID() == first.SpanContext().TraceID() {
			t.Error("the retry is not a new root")
		}
		if links := second.Links(); len(links) != 1 || links[0].SpanContext.SpanID() != first.SpanContext().SpanID() {
			t.Errorf("links of the retry: %v", links)
		}
		if first.Status().Code == codes.Error || second.Status().Code != codes.Error {
			t.Errorf("status %v and %v, want an error for the last one alone", first.Status(), second.Status())
		}
		for i, span := range spans {
			got := map[string]string{}
			for _, a := range span.Attributes() {
				got[string(a.Key)] = a.Value.String()
			}
			want := map[string]string{
				"http.request.method": "PUT", "http.request.resend_count": []string{"0", "1"}[i], "http.response.status_code": "500", "error.type": "http_5xx",
				"postrider.delivery_id": d.ID, "postrider.outcome": []string{"retry", "exhausted"}[i],
			}
			if span.Name() != http.MethodPut {
				t.Errorf("attempt %d: the span is named %s", i+1, span.Name())
			}
			for k, v := range want {
				if got[k] != v {
					t.Errorf("attempt %d: %s is %q, want %q", i+1, k, got[k], v)
				}
			}
		}
	})
}
