package deliver

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/schemas"
)

// meters are the role's instruments. Labels are closed sets, unless ids are asked
// for.
type meters struct {
	attempts metric.Int64Counter
	duration metric.Float64Histogram
	parked   metric.Int64Counter
	failures metric.Int64Counter
	breakers metric.Int64Counter
	cancels  metric.Int64Counter
	losses   metric.Int64Counter
	known    *sync.Map // [2]string of outcome and error → metric.MeasurementOption
	detailed bool      // labels have the ids of tenant and endpoint, too
}

func newMeters(m metric.Meter, detailed bool) (meters, error) {
	out := meters{known: &sync.Map{}, detailed: detailed}
	var errs [7]error
	out.attempts, errs[0] = m.Int64Counter("postrider.deliver.outcomes", metric.WithDescription("Outcomes of attempts and deliveries, by outcome and error."))
	out.duration, errs[1] = m.Float64Histogram("postrider.deliver.attempt.duration", metric.WithUnit("s"),
		metric.WithDescription("Duration of one attempt's whole exchange."))
	out.parked, errs[2] = m.Int64Counter("postrider.deliver.parked.total", metric.WithDescription("Records that were parked."))
	out.failures, errs[3] = m.Int64Counter("postrider.deliver.write.failures", metric.WithDescription("Outcomes that Kafka refused; they are written again."))
	out.breakers, errs[4] = m.Int64Counter("postrider.deliver.breaker.changes", metric.WithDescription("Breakers that opened or closed, by state."))
	out.cancels, errs[5] = m.Int64Counter("postrider.deliver.cancels.dropped", metric.WithDescription("Cancels that were dropped because too many are open."))
	out.losses, errs[6] = m.Int64Counter("postrider.deliver.lost", metric.WithDescription("Offsets that Kafka deleted before they were delivered."))
	return out, errors.Join(errs[:]...)
}

func (m *meters) lose(ctx context.Context, n int64) { m.losses.Add(ctx, n) }

func (m *meters) attempt(ctx context.Context, a *schemas.Attempt) {
	labels := m.labelsOf(a)
	m.attempts.Add(ctx, 1, labels)
	if a.Duration > 0 {
		m.duration.Record(ctx, a.Duration/1000, labels)
	}
}

// labelsOf returns the labels of an outcome. Ids are no closed set: labels with them
// are made anew each time, and bounded by what the meter provider keeps.
func (m *meters) labelsOf(a *schemas.Attempt) metric.MeasurementOption {
	if !m.detailed {
		return m.labels(string(a.Outcome), a.Error)
	}
	return metric.WithAttributes(append(outcomeLabels(string(a.Outcome), a.Error),
		telemetry.TenantKey.String(a.Tenant), telemetry.EndpointKey.String(a.Endpoint))...)
}

// labels returns the labels of an outcome, made once: both are closed sets.
func (m *meters) labels(outcome, class string) metric.MeasurementOption {
	key := [2]string{outcome, class}
	if known, ok := m.known.Load(key); ok {
		return known.(metric.MeasurementOption) //nolint:forcetypeassert // nothing else is stored
	}
	labels := metric.WithAttributeSet(attribute.NewSet(outcomeLabels(outcome, class)...))
	m.known.Store(key, labels)
	return labels
}

func outcomeLabels(outcome, class string) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.String("postrider.outcome", outcome), attribute.String("error.type", class)}
}

func (m *meters) park(ctx context.Context) { m.parked.Add(ctx, 1) }

func (m *meters) breaker(ctx context.Context, open bool) {
	state := "closed"
	if open {
		state = "open"
	}
	m.breakers.Add(ctx, 1, metric.WithAttributes(attribute.String("postrider.breaker.state", state)))
}

func (m *meters) cancelsDropped(ctx context.Context, n int) { m.cancels.Add(ctx, int64(n)) }

func (m *meters) failed(ctx context.Context) { m.failures.Add(ctx, 1) }

// observe registers the gauges that are read at each scrape.
func (w *Worker) observe(m metric.Meter) error {
	inflight, err1 := m.Int64ObservableGauge("postrider.deliver.in_flight", metric.WithDescription("Attempts under way."))
	lanes, err2 := m.Int64ObservableGauge("postrider.deliver.lanes", metric.WithDescription("Endpoints in memory."))
	waiting, err3 := m.Int64ObservableGauge("postrider.deliver.waiting", metric.WithUnit("By"), metric.WithDescription("Bytes of records that wait in memory."))
	parked, err4 := m.Int64ObservableGauge("postrider.deliver.parked", metric.WithDescription("Records parked now."))
	oldest, err5 := m.Float64ObservableGauge("postrider.deliver.parked.oldest", metric.WithUnit("s"), metric.WithDescription("Age of the oldest parked record."))
	open, err6 := m.Int64ObservableGauge("postrider.deliver.breakers.open", metric.WithDescription("Lanes whose breaker is open."))
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return err
	}
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		s := w.census()
		o.ObserveInt64(inflight, int64(len(w.running)))
		o.ObserveInt64(lanes, int64(s.lanes))
		o.ObserveInt64(waiting, int64(w.waiting))
		o.ObserveInt64(parked, int64(s.parked))
		o.ObserveFloat64(oldest, s.oldest.Seconds())
		o.ObserveInt64(open, int64(s.open))
		return nil
	}, inflight, lanes, waiting, parked, oldest, open)
	return err
}

// OldestParked returns the age of the oldest record that is parked in this process, 0
// without one.
func (w *Worker) OldestParked() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.census().oldest
}

// census counts what the worker holds.
type census struct {
	lanes, parked, open int
	oldest              time.Duration
}

func (w *Worker) census() census {
	var s census
	now := time.Now().UnixMilli()
	for _, h := range w.homes {
		s.lanes += len(h.lanes)
		for _, l := range h.lanes {
			if l.breaker.isOpen() {
				s.open++
			}
			s.parked += len(l.pending) + l.flushing
			for _, c := range l.chunks {
				s.parked += c.count - c.done
			}
			if len(l.chunks) > 0 {
				s.oldest = max(s.oldest, time.Duration(now-l.chunks[0].firstAt)*time.Millisecond)
			}
		}
	}
	return s
}
