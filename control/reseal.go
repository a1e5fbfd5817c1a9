package control

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/registry"
)

// Bounds of one request to seal again.
const (
	// resealChunk is how many endpoints one turn under a tenant's lock seals again.
	resealChunk = 100
	// resealTime is how long a request begins new turns: with the last one's time it
	// ends within requestTimeout.
	resealTime = 5 * time.Second
	// maxUnreadable bounds the endpoints that an answer names.
	maxUnreadable = 100
)

// sealKey is the state of the seal key in the process that answers.
type sealKey struct {
	Keys int `json:"keys" doc:"Keys in the keyset: more than one during a rotation."`
	Left int `json:"left" doc:"Endpoints with something that is sealed with an older key. 0 where the keyset has one key."`
}

// resealed is what one request has done.
type resealed struct {
	Resealed   int          `json:"resealed" doc:"Endpoints that were sealed again."`
	Left       int          `json:"left" doc:"Endpoints with something that is still sealed with an older key."`
	Unreadable []unreadable `json:"unreadable,omitempty" doc:"Endpoints with something that no key of the keyset opens, at most 100. They are among those left: set their secrets anew, or delete them."`
	NextCursor string       `json:"next_cursor,omitempty" doc:"Ask with it to go on; absent when every tenant had its turn."`
}

type unreadable struct {
	Tenant   string `json:"tenant"`
	Endpoint string `json:"endpoint_id"`
}

type resealInput struct {
	Cursor string `query:"cursor" maxLength:"256" doc:"next_cursor of the answer before; nothing to begin."`
}

func (s *Server) registerReseal(api huma.API) {
	const tag, path = "seal-key", "/v1/seal-key"
	handle(s, api, operation{
		method: http.MethodGet, path: path, id: "get-seal-key", tag: tag, status: http.StatusOK, access: platformAdmin,
		summary: "How far a rotation of the seal key is",
	}, s.readSealKey)
	handle(s, api, operation{
		method: http.MethodPost, path: path + "/reseal", id: "reseal", tag: tag, status: http.StatusOK, access: platformAdmin,
		summary: "Seal secrets again with the newest seal key",
		description: "Goes through the endpoints of all tenants for some seconds and answers how far it came; go on with next_cursor. " +
			"What is sealed with the newest key already is left alone, so it can be repeated and interrupted at any time.",
	}, s.reseal)
}

func (s *Server) readSealKey(ctx context.Context, _ *struct{}) (*answer[sealKey], error) {
	if err := s.indexed(ctx); err != nil {
		return nil, err
	}
	return &answer[sealKey]{Status: http.StatusOK, Body: sealKey{Keys: s.deps.Sealer.Keys(), Left: s.tenants.countOutdated()}}, nil
}

// indexed returns once the index of tenants has all that is in the registry now.
func (s *Server) indexed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	end, err := broker.LastStableOffset(ctx, s.kafka, s.topics.Registry, 0)
	if err == nil {
		err = s.tenants.reach(ctx, max(end, s.written.Load()))
	}
	if err != nil {
		return unavailable(err)
	}
	return nil
}

func (s *Server) reseal(ctx context.Context, in *resealInput) (*answer[resealed], error) {
	var at endpointPlace
	if raw, err := base64.RawURLEncoding.DecodeString(in.Cursor); err != nil || len(raw) > 0 && json.Unmarshal(raw, &at) != nil {
		return nil, refuse(http.StatusUnprocessableEntity, codeInvalidCursor, "query parameter cursor: use next_cursor of the answer before as it is")
	}
	if err := s.indexed(ctx); err != nil {
		return nil, err
	}
	out := &answer[resealed]{Status: http.StatusOK}
	for until := time.Now().Add(resealTime); ; {
		next := s.tenants.nextOutdated(at, resealChunk)
		if len(next) == 0 {
			break
		}
		if err := s.resealSome(ctx, next, &out.Body); err != nil {
			return nil, err
		}
		if at = next[len(next)-1]; !time.Now().Before(until) {
			raw, _ := json.Marshal(at) // two texts
			out.Body.NextCursor = base64.RawURLEncoding.EncodeToString(raw)
			break
		}
	}
	if err := s.indexed(ctx); err != nil {
		return nil, err
	}
	out.Body.Left = s.tenants.countOutdated()
	return out, nil
}

// resealSome seals endpoints of one tenant again, in one turn. A tenant that is busy,
// or being deleted, is left alone.
func (s *Server) resealSome(ctx context.Context, places []endpointPlace, out *resealed) error {
	var bad []unreadable
	var changes []registry.Change
	tenant := places[0].Tenant
	_, err := s.update(ctx, change{tenant: tenant, action: "endpoint.reseal", fn: func(st *registry.TenantState) ([]registry.Change, error) {
		if st.Tenant == nil || st.Tenant.Deleting {
			return nil, nil
		}
		for _, at := range places {
			ep := st.Endpoints[at.Endpoint]
			if ep == nil {
				continue // deleted meanwhile
			}
			next := *ep
			switch changed, err := s.deps.Sealer.SealAgain(&next); {
			case err != nil:
				bad = append(bad, unreadable(at))
			case changed:
				next.Meta = s.touch(next.Meta)
				changes = append(changes, registry.Change{Tenant: tenant, Entity: next.ID, Value: &next})
			}
		}
		return changes, nil
	}})
	if err != nil && !errors.Is(err, registry.ErrBusy) {
		return err
	}
	if err == nil {
		out.Resealed += len(changes)
	}
	for _, b := range bad[:min(len(bad), maxUnreadable-len(out.Unreadable))] {
		s.log.WarnContext(ctx, "a secret can't be sealed again", slog.String("tenant", b.Tenant), slog.String("endpoint_id", b.Endpoint))
		out.Unreadable = append(out.Unreadable, b)
	}
	return nil
}

// endpointPlace is an endpoint of a tenant; the order is that of tenants, then of
// endpoints.
type endpointPlace struct {
	Tenant   string `json:"t"`
	Endpoint string `json:"e"`
}

// outdated are the endpoints to be sealed again, by tenant. They are known to a
// process that was started with a keyset of several keys, about 100 bytes each.
type outdated map[string]map[string]bool

func (o outdated) add(tenant, endpoint string) {
	if o[tenant] == nil {
		o[tenant] = map[string]bool{}
	}
	o[tenant][endpoint] = true
}

func (o outdated) remove(tenant, endpoint string) {
	if delete(o[tenant], endpoint); len(o[tenant]) == 0 {
		delete(o, tenant)
	}
}

// nextOutdated returns the first endpoints behind a place, of one tenant.
func (x *tenantIndex) nextOutdated(after endpointPlace, limit int) (next []endpointPlace) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, tenant := range slices.Sorted(maps.Keys(x.outdated)) {
		if tenant < after.Tenant {
			continue
		}
		for _, id := range slices.Sorted(maps.Keys(x.outdated[tenant])) {
			if tenant == after.Tenant && id <= after.Endpoint {
				continue
			}
			if next = append(next, endpointPlace{tenant, id}); len(next) == limit {
				return next
			}
		}
		if len(next) > 0 {
			return next
		}
	}
	return nil
}

func (x *tenantIndex) countOutdated() (n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, endpoints := range x.outdated {
		n += len(endpoints)
	}
	return n
}
