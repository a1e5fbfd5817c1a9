package fanout

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/match"
	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/schemas"
)

// decision begins the decision record of an event.
func (o *outbox) decision(it *item) schemas.Decision {
	d := schemas.Decision{
		Tenant: it.event.Tenant, Event: it.id, Type: it.event.Type,
		Position: it.position(), Registry: it.tenant.registry, At: o.now.UTC(),
		Reasons: make(map[schemas.Reason]schemas.ReasonCount, 2),
	}
	if sc := telemetry.SpanContextFrom(it.event.TraceParent, ""); sc.IsValid() {
		d.TraceID = sc.TraceID().String()
	}
	return d
}

// decide appends a decision.
func (o *outbox) decide(origin *kgo.Record, d *schemas.Decision) error {
	value, err := schemas.EncodeDecision(d)
	if err != nil {
		return err
	}
	rec := &kgo.Record{Topic: o.topics.Decisions, Partition: o.turn, Key: []byte(d.Event), Value: value}
	o.add(rec, origin, recordSize(rec.Key, rec.Value, nil))
	return nil
}

// decideRepeat records that the event was at another position before.
func (o *outbox) decideRepeat(it *item) error {
	reason := schemas.ReasonDuplicate
	if it.claim.state == claimConflict {
		reason = schemas.ReasonConflict
	}
	d := o.decision(it)
	d.First = &it.claim.first
	d.Reasons[reason] = schemas.ReasonCount{Count: 1}
	o.results[string(reason)]++
	return o.decide(it.rec, &d)
}

// decideDeleted records that the event's tenant is being deleted.
func (o *outbox) decideDeleted(it *item) error {
	d := o.decision(it)
	d.Reasons[schemas.ReasonTenantDeleted] = schemas.ReasonCount{Count: 1}
	o.results[string(schemas.ReasonTenantDeleted)]++
	return o.decide(it.rec, &d)
}

// decideMatch records what did not simply become a delivery: endpoints that are
// disabled, filters that said no, or nobody who asked for the type. An event with
// nothing but deliveries leaves no decision.
func (o *outbox) decideMatch(it *item, res *match.Result, endpoints, disabled []string) error {
	if len(disabled) == 0 && len(res.Rejections) == 0 && len(endpoints) > 0 {
		return nil
	}
	d := o.decision(it)
	count := func(reason schemas.Reason, n int, ids []string) {
		if n > 0 {
			d.Reasons[reason] = schemas.ReasonCount{Count: n, IDs: ids[:min(len(ids), schemas.MaxDecisionIDs)]}
		}
	}
	var filtered, failed []string
	for _, r := range res.Rejections {
		if r.Reason == match.ReasonFiltered {
			filtered = append(filtered, r.SubscriptionID)
		} else {
			failed = append(failed, r.SubscriptionID)
		}
	}
	count(schemas.ReasonMatched, len(endpoints), endpoints)
	count(schemas.ReasonDisabled, len(disabled), disabled)
	count(schemas.ReasonFiltered, res.Counts.Filtered, filtered)
	count(schemas.ReasonFilterError, res.Counts.FilterError+res.Counts.FilterBudget, failed)
	o.withheld.disabled += len(disabled)
	o.withheld.filtered += res.Counts.Filtered
	o.withheld.failed += res.Counts.FilterError + res.Counts.FilterBudget
	if len(d.Reasons) == 0 {
		count(schemas.ReasonUnmatched, 1, nil)
	}
	return o.decide(it.rec, &d)
}
