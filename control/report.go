package control

import (
	"context"
	"time"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// breakerState is an endpoint's breaker while it is open.
type breakerState struct {
	State  string    `json:"state" enum:"open" doc:"open: deliveries wait, single attempts probe."`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason" enum:"consecutive_failures,failure_share"`
	Shards int       `json:"shards,omitempty" doc:"How many of several shards are open."`
}

// holdState is a hold while it is in force.
type holdState struct {
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until" doc:"Nothing is sent before, unless the endpoint is enabled or its url changed."`
	Reason string    `json:"reason" enum:"too_many_requests,unavailable" doc:"The answer that asked for it: 429 or 503, with Retry-After."`
	Shards int       `json:"shards,omitempty" doc:"How many of several shards are held."`
}

// addReports adds to endpoints what their owners in deliver told last. A report
// that can't be understood is left out: it decides nothing.
func (s *Server) addReports(ctx context.Context, shown []*endpoint) error {
	var refs []registry.Ref
	var of []*endpoint
	for _, e := range shown {
		for shard := range e.lanes {
			refs = append(refs, registry.ReportRef(schemas.LaneName(e.ID, shard)))
			of = append(of, e)
		}
	}
	found, err := s.deps.View.Entities(ctx, refs)
	if err != nil {
		return unavailable(err)
	}
	for i, f := range found {
		if !f.OK {
			continue
		}
		if r, err := registry.Decode[registry.Report](f.Value); err == nil {
			of[i].addReport(r, s.now())
		}
	}
	return nil
}

// addReport adds the report of one lane. Of several the worst counts. A hold that is
// over counts no more, though its report may not have been taken back yet.
func (e *endpoint) addReport(r *registry.Report, now time.Time) {
	held := r.HoldUntil.After(now)
	if r.OpenSince.IsZero() && r.FailingSince.IsZero() && !held {
		return
	}
	if e.Health == nil {
		e.Health = &health{}
	}
	h := e.Health
	if !r.OpenSince.IsZero() {
		h.addBreaker(r, e.lanes > 1)
	}
	if held {
		h.addHold(r, e.lanes > 1)
	}
	if r.FailingSince.IsZero() || h.FailingSince != nil && h.FailingSince.Before(r.FailingSince) {
		return
	}
	h.FailingSince, h.DisableAt, h.WarningPercent = &r.FailingSince, optionalTime(r.DisableAt), r.Warning
}

func (h *health) addBreaker(r *registry.Report, sharded bool) {
	if h.Breaker == nil {
		h.Breaker = &breakerState{State: "open", Since: r.OpenSince, Reason: r.OpenReason}
	}
	if sharded {
		h.Breaker.Shards++
	}
	if r.OpenSince.Before(h.Breaker.Since) {
		h.Breaker.Since, h.Breaker.Reason = r.OpenSince, r.OpenReason
	}
}

func (h *health) addHold(r *registry.Report, sharded bool) {
	if h.Hold == nil {
		h.Hold = &holdState{}
	}
	if sharded {
		h.Hold.Shards++
	}
	if r.HoldUntil.After(h.Hold.Until) {
		h.Hold.Since, h.Hold.Until, h.Hold.Reason = r.HoldSince, r.HoldUntil, r.HoldReason
	}
}

// reportTombstones takes back what was told of an endpoint that goes.
func reportTombstones(ep *registry.Endpoint) (changes []registry.Change) {
	for shard := range max(ep.MostShards, 1) {
		changes = append(changes, registry.Change{Tenant: ep.Tenant, Entity: schemas.LaneName(ep.ID, shard) + registry.ReportSuffix})
	}
	return changes
}
