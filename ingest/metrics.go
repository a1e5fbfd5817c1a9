package ingest

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postrider/postrider/internal/httpd"
)

// Labels of requests besides the codes of problems.
const (
	codePartial = "partial" // a batch of which some events were accepted
	codeRefused = "refused" // a batch of which none was, for several reasons
	codeOther   = "other"
)

// instruments are ingest's metrics. Their only label is the outcome: a code out
// of a closed set.
type instruments struct {
	events   metric.Int64Counter
	bytes    metric.Int64Counter
	duration metric.Float64Histogram
	labels   map[string]metric.MeasurementOption
}

func newInstruments(meter metric.Meter) (*instruments, error) {
	m := &instruments{labels: make(map[string]metric.MeasurementOption)}
	for _, code := range []string{
		codeAccepted, codePartial, codeRefused, codeOther, httpd.CodeTooLarge, httpd.CodeTimeout, httpd.CodeMalformedRequest,
		CodeMissingKey, CodeInvalidKey, CodeForbidden, CodeTenantMismatch, CodeTenantDeleted, CodeUnknownTenant,
		CodeInvalidEvent, CodeMalformedJSON, CodeMalformedEncoding, CodeMalformedHops, CodeEmptyBody,
		CodeUnsupportedType, CodeUnsupportedEncoding, CodeEventTooLarge, CodeBatchTooLarge, CodeLoop, CodeQuota,
		CodeOverloaded, CodeKafkaUnavailable, CodeOutcomeUnknown, CodeRegistryUnavailable,
	} {
		m.labels[code] = metric.WithAttributeSet(attribute.NewSet(attribute.String("outcome", code)))
	}
	var errs [3]error
	m.events, errs[0] = meter.Int64Counter("postrider.ingest.events", metric.WithUnit("{event}"),
		metric.WithDescription("Events that were sent, by outcome. A request refused whole counts as one."))
	m.bytes, errs[1] = meter.Int64Counter("postrider.ingest.bytes", metric.WithUnit("By"),
		metric.WithDescription("Payload of the events that were sent, by outcome."))
	m.duration, errs[2] = meter.Float64Histogram("postrider.ingest.duration", metric.WithUnit("s"),
		metric.WithDescription("Time from the request's arrival to its answer, without the time in which its body arrives, by outcome."),
		metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10))
	return m, errors.Join(errs[:]...)
}

func (m *instruments) label(code string) metric.MeasurementOption {
	if o, ok := m.labels[code]; ok {
		return o
	}
	return m.labels[codeOther]
}

// refused counts a request that was refused whole.
func (m *instruments) refused(ctx context.Context, err error, took time.Duration) {
	code := codeOther
	if p, ok := errors.AsType[*httpd.Problem](err); ok {
		code = p.Code
	}
	m.events.Add(ctx, 1, m.label(code))
	m.duration.Record(ctx, took.Seconds(), m.label(code))
}

// answered counts the events of a request.
func (m *instruments) answered(ctx context.Context, in *intake, took time.Duration) {
	type sum struct{ events, bytes int64 }
	sums := make(map[string]sum, 1)
	for i := range in.items {
		code := in.items[i].code()
		s := sums[code]
		sums[code] = sum{s.events + 1, s.bytes + int64(len(in.items[i].event.Data))}
	}
	whole := codeAccepted
	for code, s := range sums {
		m.events.Add(ctx, s.events, m.label(code))
		m.bytes.Add(ctx, s.bytes, m.label(code))
		whole = code
	}
	if len(sums) > 1 {
		whole = codeRefused
		if _, some := sums[codeAccepted]; some {
			whole = codePartial
		}
	}
	m.duration.Record(ctx, took.Seconds(), m.label(whole))
}

func (it *item) code() string {
	if it.problem != nil {
		return it.problem.Code
	}
	return codeAccepted
}
