package control

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/signature"
	"github.com/postrider/postrider/schemas"
)

// endpoint is an endpoint as the API shows it.
type endpoint struct {
	ID     string `json:"id"`
	Tenant string `json:"tenant"`
	EndpointSettings
	State          string        `json:"state" enum:"enabled,paused,disabled" doc:"The state that the endpoint was given."`
	EffectiveState string        `json:"effective_state" enum:"enabled,paused,disabled" doc:"state, or disabled if the gateway disabled the endpoint, see health."`
	Health         *health       `json:"health,omitempty" doc:"What the gateway found out; absent if nothing, or nothing since the endpoint was enabled."`
	Secrets        []secret      `json:"secrets" nullable:"false" doc:"The signing secrets without what is secret, newest first."`
	Certificates   *certificates `json:"certificates,omitempty" doc:"When the certificates in tls end."`
	CreatedAt      time.Time     `json:"created_at"`
	UpdatedAt      time.Time     `json:"updated_at"`
	ETag           string        `json:"etag"`
	lanes          int           // of which deliver may have told something
}

// health is what the gateway found out about an endpoint.
type health struct {
	Disabled       bool          `json:"disabled"`
	Reason         string        `json:"reason,omitempty"`
	Since          *time.Time    `json:"since,omitempty"`
	Breaker        *breakerState `json:"breaker,omitempty" doc:"The breaker while it is open; absent while it is closed."`
	Hold           *holdState    `json:"hold,omitempty" doc:"While nothing is sent because the receiver asked for that (Retry-After), for 10 s or longer."`
	FailingSince   *time.Time    `json:"failing_since,omitempty" doc:"Since when the endpoint did nothing but fail, once that has lasted 12 hours."`
	DisableAt      *time.Time    `json:"disable_at,omitempty" doc:"When it is disabled if it goes on failing."`
	WarningPercent int           `json:"warning_percent,omitempty" enum:"50,70,90" doc:"How much of the time until then has passed, in steps."`
}

// secret is what a signing secret shows: its kind, when it was made and when it
// ends, and what verifies it if that is no secret.
type secret struct {
	Kind      string     `json:"kind" enum:"hmac,ed25519"`
	PublicKey string     `json:"public_key,omitempty" doc:"The public key of an ed25519 secret (whpk_…)."`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

type newEndpoint struct {
	EndpointSettings
	Secret        string            `json:"secret,omitempty" maxLength:"128" doc:"The secret to sign with: whsec_… or whsk_… of Standard Webhooks, any text of 8 to 128 bytes for other schemes. Absent: one is made."`
	SecretKind    string            `json:"secret_kind,omitempty" enum:"hmac,ed25519" doc:"The kind of secret: hmac signs v1, ed25519 v1a. Default hmac, or what the given secret is."`
	Subscriptions []NewSubscription `json:"subscriptions,omitempty" nullable:"false" maxItems:"100" doc:"What the endpoint gets. Absent: all events of the tenant; an empty list: none."`
}

// NewSubscription is what can be set of a subscription.
type NewSubscription struct {
	Types  []string `json:"types,omitempty" nullable:"false" maxItems:"100" doc:"Exact types, prefixes (order.*) or *. Absent: all."`
	Filter string   `json:"filter,omitempty" doc:"A CEL expression over the event."`
}

type postEndpointInput struct {
	TenantPath
	Creation
	Body newEndpoint
}

// EndpointPath has the parameters of an endpoint.
type EndpointPath struct {
	TenantPath
	Endpoint string `path:"endpoint" maxLength:"64"`
}

type endpointInput struct {
	EndpointPath
	Precondition
}

type patchEndpointInput struct {
	EndpointPath
	Precondition
	RawBody []byte
	Body    endpointPatch
}

const endpointsPath = "/v1/tenants/{tenant}/endpoints"

func (s *Server) registerEndpoints(api huma.API) {
	const tag, one = "endpoints", endpointsPath + "/{endpoint}"
	handle(s, api, operation{
		method: http.MethodPost, path: endpointsPath, id: "create-endpoint", tag: tag, status: http.StatusCreated,
		summary: "Create an endpoint, and subscriptions to it", check: s.newEndpointFaults,
	}, s.createEndpoint)
	handle(s, api, operation{
		method: http.MethodGet, path: endpointsPath, id: "list-endpoints", tag: tag, status: http.StatusOK, summary: "List the endpoints",
	}, s.listEndpoints)
	handle(s, api, operation{
		method: http.MethodGet, path: one, id: "get-endpoint", tag: tag, status: http.StatusOK, summary: "Read an endpoint",
	}, s.readEndpoint)
	handle(s, api, operation{
		method: http.MethodPatch, path: one, id: "patch-endpoint", tag: tag, status: http.StatusOK,
		summary: "Change an endpoint's settings", description: "The body is a JSON merge patch (RFC 7396): what is absent stays, null means the default.",
	}, s.patchEndpoint)
	handle(s, api, operation{
		method: http.MethodDelete, path: one, id: "delete-endpoint", tag: tag, status: http.StatusNoContent,
		summary: "Delete an endpoint with its subscriptions", description: "Deliveries that wait for it end as cancelled.",
	}, s.deleteEndpoint)
}

func showEndpoint(e *registry.Endpoint, h *registry.Health, offset int64) endpoint {
	out := endpoint{
		ID: e.ID, Tenant: e.Tenant, EndpointSettings: settingsOf(e),
		State: string(e.State), EffectiveState: string(e.Effective(h)), Secrets: []secret{},
		CreatedAt: e.CreatedAt, UpdatedAt: e.UpdatedAt, ETag: etag(offset), Certificates: certificatesOf(e), lanes: max(e.MostShards, 1),
	}
	if h != nil && h.Judged > e.EnabledAfter { // an older record was made void by an enable
		out.Health = &health{Disabled: h.Disabled, Reason: h.Reason, Since: optionalTime(h.Since)}
	}
	for _, sec := range e.Secrets {
		out.Secrets = append(out.Secrets, secret{
			Kind: kindOf(sec), PublicKey: sec.Public, CreatedAt: sec.CreatedAt, ExpiresAt: optionalTime(sec.ExpiresAt),
		})
	}
	return out
}

func optionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func answerEndpoint(status int, e *registry.Endpoint, h *registry.Health, offset int64) *answer[endpoint] {
	return &answer[endpoint]{Status: status, ETag: etag(offset), Body: showEndpoint(e, h, offset)}
}

func endpointMeta(e *registry.Endpoint) *registry.Meta { return &e.Meta }

func (s *Server) createEndpoint(ctx context.Context, in *postEndpointInput) (*answer[endpoint], error) {
	ep := &registry.Endpoint{
		ID: schemas.NewID(schemas.PrefixEndpoint), Tenant: in.Tenant, State: registry.StateEnabled,
		Meta: s.newMeta(s.idempotency(in.IdempotencyKey, "endpoints", in.RawBody)),
	}
	if err := s.checkNew(ctx, in, ep); err != nil {
		return nil, err
	}
	sealed, err := s.newSecret(ep, in.Body.Secret, signature.Kind(in.Body.SecretKind))
	if err != nil {
		return nil, err
	}
	ep.Secrets = []registry.Secret{sealed}
	subs := s.newSubscriptions(ep, in.Body.Subscriptions)

	made, kept, health := ep, int64(-1), (*registry.Health)(nil)
	offset, err := s.update(ctx, change{tenant: in.Tenant, action: "endpoint.create", fn: func(st *registry.TenantState) ([]registry.Change, error) {
		made, kept, health = ep, -1, nil
		if err := writable(st); err != nil {
			return nil, err
		}
		earlier, err := repeated(s, st.Endpoints, ep.Idempotency, endpointMeta)
		if err != nil {
			return nil, err
		}
		if earlier != nil {
			made, kept, health = earlier, st.Offsets[earlier.ID], st.Health[earlier.ID]
			return nil, nil
		}
		if err := withinQuota("endpoints", len(st.Endpoints), 1, registry.MaxEndpoints); err != nil {
			return nil, err
		}
		if err := withinOrdered(st, ep); err != nil {
			return nil, err
		}
		if err := withinQuota("subscriptions", len(st.Subscriptions), len(subs), registry.MaxSubscriptions); err != nil {
			return nil, err
		}
		return append(subs, registry.Change{Tenant: in.Tenant, Entity: ep.ID, Value: ep}), nil
	}})
	if err != nil {
		return nil, err
	}
	out := answerEndpoint(http.StatusCreated, made, health, max(offset, kept))
	out.Location = "/v1/tenants/" + in.Tenant + "/endpoints/" + made.ID
	return out, nil
}

// checkNew sets the settings on the new endpoint, or says all that is wrong with
// the request.
func (s *Server) checkNew(ctx context.Context, in *postEndpointInput, ep *registry.Endpoint) error {
	faults := append(s.applyNew(&in.Body, ep), s.checkHost(ctx, in.Body.URL)...)
	faults = append(faults, s.checkTokenHost(ctx, in.Body.tokenURL())...)
	if len(faults) > 0 {
		return invalid(faults...)
	}
	return nil
}

// applyNew is checkNew without a look-up.
func (s *Server) applyNew(body *newEndpoint, ep *registry.Endpoint) []fault {
	faults := s.apply(body.EndpointSettings, ep)
	faults = append(faults, checkSecret(ep, body.Secret, signature.Kind(body.SecretKind))...)
	for i, sub := range body.Subscriptions {
		faults = append(faults, s.checkSubscription("/subscriptions/"+strconv.Itoa(i), sub.types(), sub.Filter)...)
	}
	return faults
}

// newEndpointFaults is the bodyCheck of a new endpoint.
func (s *Server) newEndpointFaults(body []byte) []fault {
	var read newEndpoint
	_ = json.Unmarshal(body, &read) // it goes on after a member of the wrong type
	return s.applyNew(&read, new(registry.Endpoint))
}

func (n NewSubscription) types() []string {
	if n.Types == nil {
		return []string{"*"}
	}
	return n.Types
}

func (s *Server) newSubscriptions(ep *registry.Endpoint, wanted []NewSubscription) []registry.Change {
	if wanted == nil {
		wanted = []NewSubscription{{}}
	}
	changes := make([]registry.Change, 0, len(wanted)+1)
	for _, w := range wanted {
		sub := &registry.Subscription{
			Meta: s.newMeta(nil), ID: schemas.NewID(schemas.PrefixSubscription),
			Tenant: ep.Tenant, Endpoint: ep.ID, Types: w.types(), Filter: w.Filter,
		}
		changes = append(changes, registry.Change{Tenant: ep.Tenant, Entity: sub.ID, Value: sub})
	}
	return changes
}

func (s *Server) listEndpoints(ctx context.Context, in *ListInput) (*answer[page[endpoint]], error) {
	st, err := s.existing(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	out, err := paged(in.PageQuery, st.Endpoints, nil, func(e *registry.Endpoint) endpoint {
		return showEndpoint(e, st.Health[e.ID], st.Offsets[e.ID])
	})
	if err != nil {
		return nil, err
	}
	shown := make([]*endpoint, len(out.Body.Data))
	for i := range out.Body.Data {
		shown[i] = &out.Body.Data[i]
	}
	return out, s.addReports(ctx, shown)
}

// findEndpoint returns a tenant's endpoint for reading.
func (s *Server) findEndpoint(ctx context.Context, at EndpointPath) (*registry.TenantState, *registry.Endpoint, error) {
	st, err := s.existing(ctx, at.Tenant)
	if err != nil {
		return nil, nil, err
	}
	ep := st.Endpoints[at.Endpoint]
	if ep == nil {
		return nil, nil, notFound("endpoint")
	}
	return st, ep, nil
}

func (s *Server) readEndpoint(ctx context.Context, in *EndpointPath) (*answer[endpoint], error) {
	st, ep, err := s.findEndpoint(ctx, *in)
	if err != nil {
		return nil, err
	}
	out := answerEndpoint(http.StatusOK, ep, st.Health[ep.ID], st.Offsets[ep.ID])
	return out, s.addReports(ctx, []*endpoint{&out.Body})
}

// endpointChange is one step of an endpoint: next is a copy that it may change;
// it reports whether there is anything to write.
type endpointChange struct {
	at      EndpointPath
	ifMatch string
	action  string
	always  bool
	step    func(st *registry.TenantState, next *registry.Endpoint) (bool, error)
}

// changeEndpoint makes the step under the tenant's lock and answers the endpoint.
func (s *Server) changeEndpoint(ctx context.Context, c endpointChange) (*answer[endpoint], error) {
	var after *registry.Endpoint
	var health *registry.Health
	var kept int64
	offset, err := s.update(ctx, change{tenant: c.at.Tenant, action: c.action, always: c.always, fn: func(st *registry.TenantState) ([]registry.Change, error) {
		ep, err := writableEndpoint(st, c.at.Endpoint, c.ifMatch)
		if err != nil {
			return nil, err
		}
		next := *ep
		after, health, kept = ep, st.Health[ep.ID], st.Offsets[ep.ID]
		if write, err := c.step(st, &next); err != nil || !write {
			return nil, err
		}
		_, _ = s.deps.Sealer.SealAgain(&next) // what can't be opened stays as it is
		next.Meta = s.touch(next.Meta)
		after = &next
		return []registry.Change{{Tenant: c.at.Tenant, Entity: next.ID, Value: after}}, nil
	}})
	if err != nil {
		return nil, err
	}
	out := answerEndpoint(http.StatusOK, after, health, max(offset, kept))
	if err := s.addReports(ctx, []*endpoint{&out.Body}); err != nil { // the change is made, and the answer says so
		s.log.WarnContext(ctx, "read what deliver told of an endpoint", slog.String("endpoint_id", after.ID), slog.Any("error", err))
	}
	return out, nil
}

func writableEndpoint(st *registry.TenantState, id, ifMatch string) (*registry.Endpoint, error) {
	if err := writable(st); err != nil {
		return nil, err
	}
	ep := st.Endpoints[id]
	if ep == nil {
		return nil, notFound("endpoint")
	}
	return ep, checkMatch(ifMatch, st, id)
}

func (s *Server) patchEndpoint(ctx context.Context, in *patchEndpointInput) (*answer[endpoint], error) {
	if in.Body.URL != "" {
		if faults := s.checkHost(ctx, in.Body.URL); len(faults) > 0 {
			return nil, invalid(faults...)
		}
	}
	if faults := s.checkTokenHost(ctx, in.Body.tokenURL()); len(faults) > 0 {
		return nil, invalid(faults...)
	}
	patch := append([]byte(nil), in.RawBody...)
	return s.changeEndpoint(ctx, endpointChange{
		at: in.EndpointPath, ifMatch: in.IfMatch, action: "endpoint.patch",
		step: func(st *registry.TenantState, next *registry.Endpoint) (bool, error) {
			set, err := mergePatch(settingsOf(next), patch, endpointNames())
			if err != nil {
				return false, err
			}
			before := next.Signing
			if faults := s.apply(set, next); len(faults) > 0 {
				return false, invalid(faults...)
			}
			if err := withinOrdered(st, next); err != nil {
				return false, err
			}
			return true, s.changeSigning(before, next)
		},
	})
}

func endpointNames() names {
	return receiverNames(limitNames(names{
		"url": nil, "description": nil, "metadata": nil, "timeout": nil, "max_in_flight": nil, "trace_context": nil,
		"retry": {"schedule": nil, "max_age": nil}, "signing": signingNames(),
	}))
}

func (s *Server) deleteEndpoint(ctx context.Context, in *endpointInput) (*empty, error) {
	_, err := s.update(ctx, change{tenant: in.Tenant, action: "endpoint.delete", fn: func(st *registry.TenantState) ([]registry.Change, error) {
		ep, err := writableEndpoint(st, in.Endpoint, in.IfMatch)
		if err != nil {
			return nil, err
		}
		var changes []registry.Change
		for id, sub := range st.Subscriptions {
			if sub.Endpoint == ep.ID {
				changes = append(changes, registry.Change{Tenant: in.Tenant, Entity: id})
			}
		}
		if health := ep.ID + registry.HealthSuffix; st.Health[ep.ID] != nil {
			changes = append(changes, registry.Change{Tenant: in.Tenant, Entity: health})
		}
		changes = append(changes, reportTombstones(ep)...)
		return append(changes, registry.Change{Tenant: in.Tenant, Entity: ep.ID}), nil
	}})
	return nil, err
}
