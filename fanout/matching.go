package fanout

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/postrider/postrider/internal/match"
	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/schemas"
)

// errTooCostly says that a batch of several events asks for more than a transaction
// may take, of the filters of a tenant, of deliveries that have an order, or of memory
// for its tenants: smaller polls can do better.
var errTooCostly = errors.New("the batch is too costly")

// matcher is the match step. It belongs to the loop and is reused.
type matcher struct {
	tracer  trace.Tracer
	budget  uint64
	budgets map[string]*tenantBudget
	input   match.Input
	result  match.Result
	// endpoints get a delivery, disabled ones a decision. The lanes are those of
	// the endpoints, the ordered ones first.
	endpoints, disabled, lanes []string
}

// tenantBudget is what is left to a tenant's filters in this batch.
type tenantBudget struct {
	*match.Budget
	events int
}

func newMatcher(tracer trace.Tracer, budget uint64) *matcher {
	return &matcher{tracer: tracer, budget: budget, budgets: map[string]*tenantBudget{}}
}

// begin forgets the batch before.
func (m *matcher) begin() { clear(m.budgets) }

// emit appends to out what becomes of one event. It returns errTooCostly if the
// batch should be polled in smaller parts.
func (m *matcher) emit(ctx context.Context, it *item, out *outbox) error {
	var err error
	if it.reject == nil {
		before := out.mark()
		guard(&it.reject, func() { err = m.tryEmit(ctx, it, out) })
		if it.reject != nil {
			out.rollback(before)
		}
	}
	if it.reject != nil {
		out.reject(it.rec, it.reject)
		return nil
	}
	return err
}

func (m *matcher) tryEmit(ctx context.Context, it *item, out *outbox) error {
	switch {
	case it.tenant.deleting:
		return out.decideDeleted(it)
	case it.claim.state != claimWon:
		return out.decideRepeat(it)
	}
	m.startSpan(ctx, it)
	if m.match(it) { //nolint:contextcheck // filters have limits of their own
		return errTooCostly
	}
	result, reject, err := m.write(it, out)
	if reject != nil || err != nil {
		it.reject = reject
		return err
	}
	out.results[result]++
	return out.decideMatch(it, &m.result, m.endpoints, m.disabled)
}

// write appends the event's deliveries, or its pages if it is wide or the
// transaction has no room left. Its error is errTooCostly.
func (m *matcher) write(it *item, out *outbox) (result string, reject *rejection, err error) {
	n := len(m.endpoints)
	if n == 0 {
		return string(schemas.ReasonUnmatched), nil, nil
	}
	t := newTemplate(it.rec, schemas.Delivery{
		Event: it.event, EventID: it.id, Position: it.position(), Registry: it.tenant.registry, MadeAt: out.now,
	})
	if t.size > out.maxSize {
		return "", &rejection{reason: schemas.RejectOversized, detail: fmt.Sprintf("a delivery would take %d bytes, at most %d are possible", t.size, out.maxSize)}, nil
	}
	out.wanted.deliveries += n
	out.wanted.bytes += n * t.size
	ordered := m.findLanes(it)
	if n == 1 || n <= schemas.MaxPageEndpoints && out.fits(n, t.size) {
		out.deliver(&t, m.lanes)
		return string(schemas.ReasonMatched), nil, nil
	}
	// A delivery out of a page comes later than those of the next events: what
	// has an order goes out now.
	if !out.admits(ordered, t.size) {
		return "", nil, errTooCostly
	}
	out.ordered.deliveries += ordered
	out.ordered.bytes += ordered * t.size
	out.deliver(&t, m.lanes[:ordered])
	d := &t.delivery
	return resultPaged, out.page(it.rec, schemas.Page{
		Event: d.Event, EventID: d.EventID, Position: d.Position, Registry: d.Registry, MadeAt: d.MadeAt,
	}, m.lanes[ordered:]), nil
}

// findLanes fills in the lanes of the endpoints: those of ordered endpoints come
// first, and it returns how many they are.
func (m *matcher) findLanes(it *item) (ordered int) {
	m.lanes = m.lanes[:0]
	for _, ep := range m.endpoints {
		lane := schemas.LaneName(ep, schemas.ShardOf(it.id, it.tenant.shards[ep]))
		m.lanes = append(m.lanes, lane)
		if it.tenant.ordered[ep] {
			last := len(m.lanes) - 1
			m.lanes[ordered], m.lanes[last] = m.lanes[last], m.lanes[ordered]
			ordered++
		}
	}
	return ordered
}

// match fills in endpoints and disabled. It reports whether the tenant's budget
// ran out while smaller polls could still help.
func (m *matcher) match(it *item) (tooCostly bool) {
	budget := m.budgets[it.event.Tenant]
	if budget == nil {
		budget = &tenantBudget{Budget: match.NewBudget(m.budget)}
		m.budgets[it.event.Tenant] = budget
	}
	budget.events++
	ev := &it.event
	m.input = match.Input{
		Type: ev.Type, Source: ev.Source, Subject: ev.Subject, ID: ev.ID, Time: ev.Time,
		DataContentType: ev.DataContentType, Tenant: ev.Tenant, PartitionKey: ev.PartitionKey,
		Extensions: ev.Extensions, Data: ev.Data,
	}
	m.endpoints, m.disabled = m.endpoints[:0], m.disabled[:0]
	it.tenant.set.Match(&m.input, budget.Budget, &m.result)
	for _, found := range m.result.Matches {
		if it.tenant.disabled[found.EndpointID] {
			m.disabled = append(m.disabled, found.EndpointID)
		} else {
			m.endpoints = append(m.endpoints, found.EndpointID)
		}
	}
	return m.result.Counts.FilterBudget > 0 && budget.events > 1
}

// startSpan begins the event's span if its producer's trace is sampled; the
// deliveries then continue from it. Other events keep the context they came with.
func (m *matcher) startSpan(ctx context.Context, it *item) {
	parent := telemetry.SpanContextFrom(it.event.TraceParent, it.event.TraceState)
	if !parent.IsSampled() {
		return
	}
	_, it.span = m.tracer.Start(trace.ContextWithRemoteSpanContext(ctx, parent), "process events", //nolint:spancheck // batch.endSpans ends it
		trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(
			attribute.String("messaging.system", "kafka"),
			attribute.String("messaging.operation.name", "fanout"),
			attribute.String("messaging.destination.name", it.rec.Topic),
			attribute.Int64("messaging.kafka.offset", it.rec.Offset),
			attribute.String("cloudevents.event_id", it.event.ID),
			attribute.String("cloudevents.event_source", it.event.Source),
			attribute.String("cloudevents.event_type", it.event.Type),
		))
	if sc := it.span.SpanContext(); sc.IsSampled() && sc.SpanID() != parent.SpanID() {
		it.event.TraceParent = telemetry.Traceparent(sc)
		it.event.TraceState = sc.TraceState().String()
	}
}
