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
			of[i].addReport(r)
		}
	}
	return nil
}

// addReport adds the report of one lane. Of several the worst counts.
func (e *endpoint) addReport(r *registry.Report) {
	if e.Health == nil {
		e.Health = &health{}
	}
	h := e.Health
	if !r.OpenSince.IsZero() {
		if h.Breaker == nil {
			h.Breaker = &breakerState{State: "open", Since: r.OpenSince, Reason: r.OpenReason}
		}
		if e.lanes > 1 { // a former shard may have something left
			h.Breaker.Shards++
		}
		if r.OpenSince.Before(h.Breaker.Since) {
			h.Breaker.Since, h.Breaker.Reason = r.OpenSince, r.OpenReason
		}
	}
	if r.FailingSince.IsZero() || h.FailingSince != nil && h.FailingSince.Before(r.FailingSince) {
		return
	}
	h.FailingSince, h.DisableAt, h.WarningPercent = &r.FailingSince, optionalTime(r.DisableAt), r.Warning
}

// reportTombstones takes back what was told of an endpoint that goes.
func reportTombstones(ep *registry.Endpoint) (changes []registry.Change) {
	for shard := range max(ep.MostShards, 1) {
		changes = append(changes, registry.Change{Tenant: ep.Tenant, Entity: schemas.LaneName(ep.ID, shard) + registry.ReportSuffix})
	}
	return changes
}
