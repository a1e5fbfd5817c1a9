package deliver

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// When an endpoint that only fails is disabled: DisableAfter its first failure,
// if between that and the last one lie at least disableSpan, and there were at
// least disableAttempts.
const (
	// DefaultDisableAfter is how long an endpoint may do nothing but fail.
	DefaultDisableAfter = 5 * 24 * time.Hour
	// MinDisableAfter bounds what an operator may set.
	MinDisableAfter = disableSpan
	disableSpan     = 12 * time.Hour
	disableAttempts = 20
)

// Bounds of the reports to the registry: of one lane, and of a worker.
const (
	reportEvery  = 5 * time.Second
	reportRate   = 100 // per second
	failingWorth = 12 * time.Hour
)

// judgeEndpoint disables an endpoint that wants no more, or that only failed for
// long. What an attempt of an earlier version met says nothing about this one.
func (w *Worker) judgeEndpoint(l *lane, t *target, v *verdict, now time.Time) {
	switch {
	case l.home.phase == phaseClosed, l.know.target != t:
	case registry.StateEnabled.Effective(t.endpoint.EnabledAfter, l.know.health) == registry.StateDisabled:
	case v.disable:
		w.disable(l, t, disabledGone)
	case v.outcome != schemas.OutcomeDelivered && w.outlived(l, now):
		w.disable(l, t, disabledFailing)
	}
}

// outlived reports whether the endpoint has failed for so long, and so often,
// that it is disabled.
func (w *Worker) outlived(l *lane, now time.Time) bool {
	if w.cfg.DisableAfter < 0 || l.failingSince.IsZero() || l.failures < disableAttempts {
		return false
	}
	return now.Sub(l.failingSince) >= max(w.cfg.DisableAfter, disableSpan)
}

// warning returns how much of the time until an endpoint is disabled has passed,
// in the steps at which its owner is warned.
func (w *Worker) warning(l *lane, now time.Time) int {
	if w.cfg.DisableAfter < 0 || l.failingSince.IsZero() {
		return 0
	}
	passed := 100 * float64(now.Sub(l.failingSince)) / float64(w.cfg.DisableAfter)
	for _, step := range []int{90, 70, 50} {
		if passed >= float64(step) {
			return step
		}
	}
	return 0
}

// lasting reports whether an endpoint fails for so long that its owner is told: for
// half a day, or half of the time after which it is disabled.
func (w *Worker) lasting(l *lane, now time.Time) bool {
	worth := failingWorth
	if w.cfg.DisableAfter > 0 {
		worth = min(worth, w.cfg.DisableAfter/2)
	}
	return !l.failingSince.IsZero() && now.Sub(l.failingSince) >= worth
}

// report returns what is to be told of a lane now.
func (w *Worker) report(l *lane, now time.Time) registry.Report {
	r := registry.Report{Endpoint: l.endpoint, Tenant: l.tenant, Shard: int(l.shard)}
	if l.know.readAt > 0 && l.know.target == nil && !l.know.broken {
		return r // deleted
	}
	if l.breaker.isOpen() {
		r.OpenSince, r.OpenReason = l.breaker.opened.UTC().Truncate(time.Millisecond), l.breaker.reason
	}
	if h := l.hold; h.worth(now) {
		r.HoldSince, r.HoldUntil = h.since.UTC().Truncate(time.Millisecond), h.until.UTC().Truncate(time.Millisecond)
		r.HoldReason = h.reason
	}
	if w.lasting(l, now) {
		r.FailingSince = l.failingSince.UTC().Truncate(time.Millisecond)
		if r.Warning = w.warning(l, now); w.cfg.DisableAfter > 0 {
			r.DisableAt = r.FailingSince.Add(w.cfg.DisableAfter)
		}
	}
	return r
}

// reported is what the registry was told of a lane last, and when.
type reported struct {
	registry.Report
	at time.Time
}

// toldSince stands for a report that is not known: an open breaker.
func toldSince(now time.Time) *reported {
	return &reported{Report: registry.Report{OpenSince: now}}
}

// lastReport returns what the registry was told of the lane, nothing by default.
func (l *lane) lastReport() *reported {
	if l.reported == nil {
		return &reported{}
	}
	return l.reported
}

// isTold reports whether the registry was told more than that all is well.
func (l *lane) isTold() bool { return l.reported != nil && told(&l.reported.Report) }

// told reports whether a report says more than that all is well.
func told(r *registry.Report) bool {
	return !r.OpenSince.IsZero() || !r.HoldUntil.IsZero() || !r.FailingSince.IsZero()
}

// tell writes the reports of the lanes of which something new is to be told, as
// many as the bounds allow; the others follow.
func (w *Worker) tell(ctx context.Context, now time.Time) {
	for l := range w.unreported {
		last := l.lastReport()
		if now.Sub(last.at) < reportEvery || l.home.phase != phaseReady || l.tenant == "" {
			continue
		}
		r := w.report(l, now)
		if r == last.Report || !told(&r) && !told(&last.Report) {
			delete(w.unreported, l)
			continue
		}
		if !w.reports.AllowN(now, 1) {
			return
		}
		delete(w.unreported, l)
		w.warn(ctx, l, &r)
		l.reported = &reported{r, now}
		w.writeReport(l, r, now)
		w.saveState(l, now)
	}
}

// warn says in the log what an operator should know in time.
func (w *Worker) warn(ctx context.Context, l *lane, r *registry.Report) {
	if r.Warning > l.lastReport().Warning {
		w.log.WarnContext(ctx, "endpoint only fails and will be disabled", "endpoint_id", l.endpoint, "tenant", l.tenant,
			"failing_since", r.FailingSince, "disable_at", r.DisableAt, "passed_percent", r.Warning)
	}
}

// writeReport writes a report, or takes it back where there is nothing to tell.
func (w *Worker) writeReport(l *lane, r registry.Report, now time.Time) {
	rec := &kgo.Record{
		Topic: w.topics.Registry, Partition: 0, Key: registry.EncodeKey(l.tenant, l.name+registry.ReportSuffix),
	}
	if told(&r) {
		r.Version, r.CreatedAt, r.UpdatedAt = schemas.Version, now.UTC(), now.UTC()
		rec.Value = mustJSON(r)
	}
	w.produce(l.home, rec, func(*kgo.Record) {})
}
