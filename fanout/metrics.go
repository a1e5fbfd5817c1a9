package fanout

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postrider/postrider/schemas"
)

// instruments are the metrics of the stage. Label values are closed sets.
type instruments struct {
	events, deliveries, pages   metric.Int64Counter
	aborts, drops, restarts     metric.Int64Counter
	withheld                    metric.Int64Counter
	batch                       metric.Int64Histogram
	barrier, claim              metric.Float64Histogram
	results                     map[string]metric.AddOption
	disabled, filtered, refused metric.AddOption
}

// Results of an event besides the reasons of decisions.
const (
	resultRejected = "rejected"
	resultPaged    = "paged"
)

func newInstruments(m metric.Meter, unread func() time.Duration) (*instruments, error) {
	var errs [11]error
	i := &instruments{results: map[string]metric.AddOption{}}
	i.events, errs[0] = m.Int64Counter("postrider.fanout.events", metric.WithDescription("Events by what became of them."), metric.WithUnit("{event}"))
	i.deliveries, errs[1] = m.Int64Counter("postrider.fanout.deliveries", metric.WithDescription("Deliveries made."), metric.WithUnit("{delivery}"))
	i.pages, errs[2] = m.Int64Counter("postrider.fanout.pages", metric.WithDescription("Pages of wide events written."), metric.WithUnit("{page}"))
	i.aborts, errs[3] = m.Int64Counter("postrider.fanout.aborts", metric.WithDescription("Transactions that were aborted."), metric.WithUnit("{transaction}"))
	i.drops, errs[4] = m.Int64Counter("postrider.fanout.drops", metric.WithDescription("Batches dropped before their transaction: revoked, or too costly at once."), metric.WithUnit("{batch}"))
	i.restarts, errs[5] = m.Int64Counter("postrider.fanout.restarts", metric.WithDescription("Kafka sessions that broke and were replaced."), metric.WithUnit("{session}"))
	i.batch, errs[6] = m.Int64Histogram("postrider.fanout.batch", metric.WithDescription("Records of one transaction."), metric.WithUnit("{record}"))
	i.barrier, errs[7] = m.Float64Histogram("postrider.fanout.barrier", metric.WithDescription("Wait for the view to have what the registry has."), metric.WithUnit("s"))
	i.claim, errs[8] = m.Float64Histogram("postrider.fanout.claim", metric.WithDescription("Time to claim a batch in Redis."), metric.WithUnit("s"))
	_, errs[9] = m.Float64ObservableGauge("postrider.fanout.batch_age", metric.WithDescription("Age of the oldest record of the batch at work; 0 without one."), metric.WithUnit("s"),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			o.Observe(unread().Seconds())
			return nil
		}))
	i.withheld, errs[10] = m.Int64Counter("postrider.fanout.withheld", metric.WithDescription("What did not become a delivery although its type matched, by reason: endpoints that are disabled, subscriptions whose filter said no or failed."))
	reason := func(r schemas.Reason) metric.AddOption {
		return metric.WithAttributeSet(attribute.NewSet(attribute.String("reason", string(r))))
	}
	i.disabled, i.filtered, i.refused = reason(schemas.ReasonDisabled), reason(schemas.ReasonFiltered), reason(schemas.ReasonFilterError)
	for _, r := range []string{
		resultRejected, resultPaged, string(schemas.ReasonMatched), string(schemas.ReasonUnmatched),
		string(schemas.ReasonDuplicate), string(schemas.ReasonConflict), string(schemas.ReasonTenantDeleted),
	} {
		i.results[r] = metric.WithAttributeSet(attribute.NewSet(attribute.String("result", r)))
	}
	return i, errors.Join(errs[:]...)
}

// committed counts what a transaction made.
func (i *instruments) committed(ctx context.Context, records int, out *outbox) {
	i.batch.Record(ctx, int64(records))
	i.deliveries.Add(ctx, int64(out.deliveries))
	i.pages.Add(ctx, int64(out.pages))
	for result, n := range out.results {
		i.events.Add(ctx, int64(n), i.results[result])
	}
	for _, w := range []struct {
		n      int
		reason metric.AddOption
	}{{out.withheld.disabled, i.disabled}, {out.withheld.filtered, i.filtered}, {out.withheld.failed, i.refused}} {
		if w.n > 0 {
			i.withheld.Add(ctx, int64(w.n), w.reason)
		}
	}
}
