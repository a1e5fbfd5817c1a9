package control

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// tenant is a tenant as the API shows it.
type tenant struct {
	ID        string            `json:"id"`
	Name      string            `json:"name,omitempty"`
	Metadata  map[string]string `json:"metadata,omitempty"`
	Quota     *quota            `json:"quota,omitempty" doc:"What the tenant may send; absent: the gateway's default."`
	Deleting  bool              `json:"deleting,omitempty" doc:"The tenant is being deleted and takes no events."`
	CreatedAt time.Time         `json:"created_at"`
	UpdatedAt time.Time         `json:"updated_at"`
	ETag      string            `json:"etag"`
}

// quota bounds a tenant's intake, in each ingest process.
type quota struct {
	EventsPerSecond float64 `json:"events_per_second,omitempty" minimum:"0" maximum:"1000000000" doc:"0 means the gateway's default."`
	BytesPerSecond  float64 `json:"bytes_per_second,omitempty" minimum:"0" maximum:"1000000000000" doc:"0 means the gateway's default."`
}

// tenantSettings is what can be set of a tenant.
type tenantSettings struct {
	Name     string            `json:"name,omitempty" maxLength:"255"`
	Metadata map[string]string `json:"metadata,omitempty" maxProperties:"50" doc:"At most 50 of up to 1,024 bytes each; names up to 64 bytes."`
	Quota    quota             `json:"quota,omitzero"`
}

// TenantPath has the parameter of everything under a tenant. (This type, like the
// others that are embedded, is exported because huma only looks into those.)
type TenantPath struct {
	Tenant string `path:"tenant" maxLength:"64" doc:"The tenant's id; _ for the platform's own keys."`
}

// Precondition has the header that makes a change depend on the version.
type Precondition struct {
	IfMatch string `header:"If-Match" maxLength:"1024" doc:"ETags; the change is made only to one of these versions."`
}

type putTenantInput struct {
	TenantPath
	Precondition
	IfNoneMatch string `header:"If-None-Match" enum:"*" doc:"With *, the tenant is only created, never changed."`
	Body        tenantSettings
}

type tenantInput struct {
	TenantPath
	Precondition
}

func (s *Server) registerTenants(api huma.API) {
	const tag = "tenants"
	handle(s, api, operation{
		method: http.MethodGet, path: "/v1/tenants", id: "list-tenants", tag: tag, status: http.StatusOK,
		summary: "List the tenants", access: platformAdmin,
	}, s.listTenants)
	handle(s, api, operation{
		method: http.MethodPut, path: "/v1/tenants/{tenant}", id: "put-tenant", tag: tag, status: http.StatusOK,
		summary: "Create a tenant or replace its settings", access: platformAdmin, check: tenantFaults,
	}, s.putTenant)
	handle(s, api, operation{
		method: http.MethodGet, path: "/v1/tenants/{tenant}", id: "get-tenant", tag: tag, status: http.StatusOK,
		summary: "Read a tenant",
	}, s.readTenant)
	handle(s, api, operation{
		method: http.MethodDelete, path: "/v1/tenants/{tenant}", id: "delete-tenant", tag: tag, status: http.StatusAccepted,
		summary: "Delete a tenant with all that belongs to it", access: platformAdmin,
		description: "The tenant takes no events from the answer on. Its parts are removed in the background; until then it is shown as deleting.",
	}, s.deleteTenant)
}

// tenantFaults is the bodyCheck of a tenant.
func tenantFaults(body []byte) []fault {
	var read tenantSettings
	_ = json.Unmarshal(body, &read) // it goes on after a member of the wrong type
	return checkMetadata("/metadata", read.Metadata)
}

func showTenant(t *registry.Tenant, offset int64) tenant {
	out := tenant{
		ID: t.ID, Name: t.Name, Metadata: t.Metadata, Deleting: t.Deleting,
		CreatedAt: t.CreatedAt, UpdatedAt: t.UpdatedAt, ETag: etag(offset),
	}
	if t.Quota != (registry.Quota{}) {
		q := quota(t.Quota)
		out.Quota = &q
	}
	return out
}

func answerTenant(status int, t *registry.Tenant, offset int64) *answer[tenant] {
	return &answer[tenant]{Status: status, ETag: etag(offset), Body: showTenant(t, offset)}
}

func (s *Server) listTenants(ctx context.Context, in *PageQuery) (*answer[page[tenant]], error) {
	rows, err := s.knownTenants(ctx)
	if err != nil {
		return nil, err
	}
	return paged(*in, rows, nil, func(row tenantRow) tenant { return showTenant(row.tenant, row.offset) })
}

func (s *Server) readTenant(ctx context.Context, in *TenantPath) (*answer[tenant], error) {
	st, err := s.existing(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	if st.Tenant == nil { // Platform has keys, but no record
		return nil, notFound("tenant")
	}
	return answerTenant(http.StatusOK, st.Tenant, st.TenantOffset), nil
}

func (s *Server) putTenant(ctx context.Context, in *putTenantInput) (*answer[tenant], error) {
	if err := schemas.CheckTenant(in.Tenant); err != nil {
		return nil, refuse(http.StatusUnprocessableEntity, codeValidation, "path parameter tenant: %s", err)
	}
	// The view keeps what stands under an id of its own where it keeps tenants.
	for _, prefix := range []string{schemas.PrefixKey, schemas.PrefixSource, schemas.PrefixEndpoint} {
		if schemas.CheckID(prefix, in.Tenant) == nil {
			return nil, refuse(http.StatusUnprocessableEntity, codeValidation, "path parameter tenant: %q has the form of another entity's id", in.Tenant)
		}
	}
	if faults := checkMetadata("/metadata", in.Body.Metadata); len(faults) > 0 {
		return nil, invalid(faults...)
	}
	var after *registry.Tenant
	var created bool
	var kept int64
	offset, err := s.update(ctx, change{tenant: in.Tenant, action: "tenant.put", fn: func(st *registry.TenantState) ([]registry.Change, error) {
		var err error
		created, kept = st.Tenant == nil, st.TenantOffset
		after, err = s.nextTenant(in, st)
		if err != nil || after == st.Tenant {
			return nil, err
		}
		return []registry.Change{{Tenant: in.Tenant, Entity: registry.TenantEntity, Value: after}}, nil
	}})
	if err != nil {
		return nil, err
	}
	if offset < 0 {
		offset = kept
	}
	if created {
		return answerTenant(http.StatusCreated, after, offset), nil
	}
	return answerTenant(http.StatusOK, after, offset), nil
}

// nextTenant returns the tenant as the request wants it, which may be the one
// that is there.
func (s *Server) nextTenant(in *putTenantInput, st *registry.TenantState) (*registry.Tenant, error) {
	if err := checkMatch(in.IfMatch, st, registry.TenantEntity); err != nil {
		return nil, err
	}
	next := registry.Tenant{
		ID: in.Tenant, Name: in.Body.Name, Metadata: in.Body.Metadata, Quota: registry.Quota(in.Body.Quota),
	}
	had := st.Tenant
	if had == nil {
		next.Meta = s.newMeta(nil)
		return &next, nil
	}
	switch {
	case in.IfNoneMatch != "":
		return nil, refuse(http.StatusPreconditionFailed, codePrecondition, "the tenant exists already")
	case had.Deleting:
		return nil, writable(st)
	case had.Name == next.Name && maps.Equal(had.Metadata, next.Metadata) && had.Quota == next.Quota:
		return had, nil
	}
	next.Meta = s.touch(had.Meta)
	return &next, nil
}

func (s *Server) deleteTenant(ctx context.Context, in *tenantInput) (*answer[tenant], error) {
	var after *registry.Tenant
	var kept int64
	offset, err := s.update(ctx, change{tenant: in.Tenant, action: "tenant.delete", always: true, fn: func(st *registry.TenantState) ([]registry.Change, error) {
		if st.Tenant == nil {
			return nil, notFound("tenant")
		}
		if err := checkMatch(in.IfMatch, st, registry.TenantEntity); err != nil {
			return nil, err
		}
		kept, after = st.TenantOffset, st.Tenant
		if after.Deleting {
			return nil, nil
		}
		next := *st.Tenant
		next.Meta, next.Deleting = s.touch(next.Meta), true
		after = &next
		return []registry.Change{{Tenant: in.Tenant, Entity: registry.TenantEntity, Value: after}}, nil
	}})
	if err != nil {
		return nil, err
	}
	if offset < 0 {
		offset = kept
	}
	return answerTenant(http.StatusAccepted, after, offset), nil
}
