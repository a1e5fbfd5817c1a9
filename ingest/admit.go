package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"

	"github.com/postrider/postrider/internal/auth"
	"github.com/postrider/postrider/internal/httpd"
	"github.com/postrider/postrider/internal/registry"
)

// timeFormat is how a time that the producer did not give is written.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// tenancy is one tenant of a request.
type tenancy struct {
	tenant  *registry.Tenant
	problem *httpd.Problem
	events  int
	bytes   int
}

// admit decides about each event: whose it is, whether it is valid, whether the
// tenant may still send. What is refused gets its problem.
//
// A platform's key may name as many tenants as events, so one deadline holds for
// all look-ups together.
func (s *Server) admit(ctx context.Context, in *intake) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.AckTimeout)
	defer cancel()
	tenants := make(map[string]*tenancy, 1)
	if !in.who.Platform() {
		tenants[in.who.Tenant] = s.tenancy(ctx, in.who.Tenant)
	}
	for i := range in.items {
		it := &in.items[i]
		if it.problem != nil {
			continue
		}
		it.event.Hops = in.hops
		if it.problem = in.assign(it); it.problem != nil {
			continue
		}
		if it.plain {
			s.complete(it, in.started)
		}
		if err := it.event.Validate(); err != nil {
			it.problem = it.invalid(err)
			continue
		}
		it.id = it.event.EventID()
		t, ok := tenants[it.event.Tenant]
		if !ok {
			t = s.tenancy(ctx, it.event.Tenant)
			tenants[it.event.Tenant] = t
		}
		t.events++
		t.bytes += len(it.event.Data)
	}
	s.charge(in, tenants)
	for i := range in.items {
		it := &in.items[i]
		if it.problem != nil {
			continue
		}
		if p := tenants[it.event.Tenant].problem; p != nil {
			it.problem = in.tenantProblem(it, p)
		}
	}
}

// assign gives the event its tenant: the key's, or, for platform keys, the one
// it names.
func (in *intake) assign(it *item) *httpd.Problem {
	switch {
	case in.who.Platform():
	case it.event.Tenant == "":
		it.event.Tenant = in.who.Tenant
	case it.event.Tenant != in.who.Tenant:
		return at(fiber.StatusForbidden, CodeTenantMismatch, it.pointerTo("tenant"), "the API key belongs to another tenant")
	}
	return nil
}

// complete fills in what a plain JSON event may leave out. A made-up id goes
// into the answer, whatever that is, so that a repeat can name it.
func (s *Server) complete(it *item, now time.Time) {
	e := &it.event
	if e.ID == "" {
		e.ID = uuid.Must(uuid.NewV7()).String()
	}
	if e.Source == "" {
		e.Source = "/" + e.Tenant
	}
	if e.Time == "" {
		e.Time = now.UTC().Format(timeFormat)
	}
}

// tenancy looks a tenant up.
func (s *Server) tenancy(ctx context.Context, id string) *tenancy {
	if ctx.Err() != nil { // not even a question is asked
		return &tenancy{problem: s.unavailable(CodeRegistryUnavailable, "there was no time left to look the tenant up")}
	}
	t, err := s.deps.Keys.Tenant(ctx, id)
	switch {
	case errors.Is(err, auth.ErrUnknownTenant):
		return &tenancy{problem: &httpd.Problem{
			Status: fiber.StatusUnprocessableEntity, Code: CodeUnknownTenant, Detail: "there is no such tenant",
		}}
	case err != nil:
		return &tenancy{problem: s.unavailable(CodeRegistryUnavailable, "the tenant can't be looked up now")}
	case t.Deleting:
		return &tenancy{problem: problem(fiber.StatusForbidden, CodeTenantDeleted, "the tenant is being deleted")}
	}
	return &tenancy{tenant: t}
}

// charge takes what the request has from each tenant's quota. A tenant key pays
// for the whole body, also for what was refused.
func (s *Server) charge(in *intake, tenants map[string]*tenancy) {
	for _, t := range tenants {
		if t.problem != nil {
			continue
		}
		if !in.who.Platform() {
			t.events, t.bytes = len(in.items), len(in.body)
		}
		wait := s.quotas.take(t.tenant, t.events, t.bytes, s.cfg.Clock())
		if wait > 0 {
			t.problem = problem(fiber.StatusTooManyRequests, CodeQuota, "the tenant sends more than its quota")
			t.problem.RetryAfter = wait
		}
	}
}

// tenantProblem words a tenant's problem for one of its events.
func (in *intake) tenantProblem(it *item, of *httpd.Problem) *httpd.Problem {
	p := *of
	switch {
	case p.Code == CodeUnknownTenant && !in.who.Platform():
		// The key was read before its tenant was deleted.
		p = httpd.Problem{Status: fiber.StatusForbidden, Code: CodeTenantDeleted, Detail: "the tenant is deleted"}
	case p.Code == CodeUnknownTenant || p.Code == CodeTenantDeleted:
		p.Errors = []httpd.FieldError{{Pointer: it.pointerTo("tenant"), Detail: p.Detail}}
	}
	return &p
}
