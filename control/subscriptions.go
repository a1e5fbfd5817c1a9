package control

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// subscription is a subscription as the API shows it.
type subscription struct {
	ID        string    `json:"id"`
	Tenant    string    `json:"tenant"`
	Endpoint  string    `json:"endpoint_id"`
	Types     []string  `json:"types" nullable:"false"`
	Filter    string    `json:"filter,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	ETag      string    `json:"etag"`
}

type endpointSubscription struct {
	Endpoint string `json:"endpoint_id" maxLength:"64" doc:"An endpoint of the tenant."`
	NewSubscription
}

type subscriptionPatch struct {
	Types  []string `json:"types,omitempty" nullable:"true" maxItems:"100" doc:"null: all."`
	Filter string   `json:"filter,omitempty" nullable:"true" doc:"null: none."`
}

type postSubscriptionInput struct {
	TenantPath
	Creation
	Body endpointSubscription
}

// SubscriptionPath has the parameters of a subscription.
type SubscriptionPath struct {
	TenantPath
	Subscription string `path:"subscription" maxLength:"64"`
}

type subscriptionInput struct {
	SubscriptionPath
	Precondition
}

type patchSubscriptionInput struct {
	SubscriptionPath
	Precondition
	RawBody []byte
	Body    subscriptionPatch
}

type listSubscriptionsInput struct {
	ListInput
	Endpoint string `query:"endpoint" maxLength:"64" doc:"Only those of this endpoint."`
}

const subscriptionsPath = "/v1/tenants/{tenant}/subscriptions"

func (s *Server) registerSubscriptions(api huma.API) {
	const tag, one = "subscriptions", subscriptionsPath + "/{subscription}"
	handle(s, api, operation{
		method: http.MethodPost, path: subscriptionsPath, id: "create-subscription", tag: tag, status: http.StatusCreated,
		summary: "Subscribe an endpoint to events", description: "Every event sent after the answer is matched.",
		check: s.newSubscriptionFaults,
	}, s.createSubscription)
	handle(s, api, operation{
		method: http.MethodGet, path: subscriptionsPath, id: "list-subscriptions", tag: tag, status: http.StatusOK,
		summary: "List the subscriptions",
	}, s.listSubscriptions)
	handle(s, api, operation{
		method: http.MethodPost, path: subscriptionsPath + "/match", id: "match-subscriptions", tag: tag, status: http.StatusOK,
		summary: "Say which subscriptions an event would match", description: "Nothing is sent.",
	}, s.matchSubscriptions)
	handle(s, api, operation{
		method: http.MethodGet, path: one, id: "get-subscription", tag: tag, status: http.StatusOK, summary: "Read a subscription",
	}, s.readSubscription)
	handle(s, api, operation{
		method: http.MethodPatch, path: one, id: "patch-subscription", tag: tag, status: http.StatusOK,
		summary: "Change a subscription", description: "The body is a JSON merge patch (RFC 7396): what is absent stays, null means the default.",
	}, s.patchSubscription)
	handle(s, api, operation{
		method: http.MethodDelete, path: one, id: "delete-subscription", tag: tag, status: http.StatusNoContent,
		summary: "Delete a subscription",
	}, s.deleteSubscription)
}

func showSubscription(sub *registry.Subscription, offset int64) subscription {
	return subscription{
		ID: sub.ID, Tenant: sub.Tenant, Endpoint: sub.Endpoint, Types: sub.Types, Filter: sub.Filter,
		CreatedAt: sub.CreatedAt, UpdatedAt: sub.UpdatedAt, ETag: etag(offset),
	}
}

func answerSubscription(status int, sub *registry.Subscription, offset int64) *answer[subscription] {
	return &answer[subscription]{Status: status, ETag: etag(offset), Body: showSubscription(sub, offset)}
}

func subscriptionMeta(sub *registry.Subscription) *registry.Meta { return &sub.Meta }

func (s *Server) createSubscription(ctx context.Context, in *postSubscriptionInput) (*answer[subscription], error) {
	sub := &registry.Subscription{
		Meta: s.newMeta(s.idempotency(in.IdempotencyKey, "subscriptions", in.RawBody)),
		ID:   schemas.NewID(schemas.PrefixSubscription), Tenant: in.Tenant, Endpoint: in.Body.Endpoint,
		Types: in.Body.types(), Filter: in.Body.Filter,
	}
	if faults := s.checkSubscription("", sub.Types, sub.Filter); len(faults) > 0 {
		return nil, invalid(faults...)
	}
	made, kept := sub, int64(-1)
	offset, err := s.update(ctx, change{tenant: in.Tenant, action: "subscription.create", fn: func(st *registry.TenantState) ([]registry.Change, error) {
		made, kept = sub, -1
		if err := writable(st); err != nil {
			return nil, err
		}
		earlier, err := repeated(s, st.Subscriptions, sub.Idempotency, subscriptionMeta)
		if err != nil {
			return nil, err
		}
		if earlier != nil {
			made, kept = earlier, st.Offsets[earlier.ID]
			return nil, nil
		}
		if st.Endpoints[sub.Endpoint] == nil {
			return nil, invalid(fault{pointer: "/endpoint_id", detail: "the tenant has no such endpoint"})
		}
		if err := withinQuota("subscriptions", len(st.Subscriptions), 1, registry.MaxSubscriptions); err != nil {
			return nil, err
		}
		return []registry.Change{{Tenant: in.Tenant, Entity: sub.ID, Value: sub}}, nil
	}})
	if err != nil {
		return nil, err
	}
	out := answerSubscription(http.StatusCreated, made, max(offset, kept))
	out.Location = "/v1/tenants/" + in.Tenant + "/subscriptions/" + made.ID
	return out, nil
}

// newSubscriptionFaults is the bodyCheck of a new subscription.
func (s *Server) newSubscriptionFaults(body []byte) []fault {
	var read NewSubscription
	_ = json.Unmarshal(body, &read) // it goes on after a member of the wrong type
	return s.checkSubscription("", read.types(), read.Filter)
}

func (s *Server) listSubscriptions(ctx context.Context, in *listSubscriptionsInput) (*answer[page[subscription]], error) {
	st, err := s.existing(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	keep := func(sub *registry.Subscription) bool { return in.Endpoint == "" || sub.Endpoint == in.Endpoint }
	return paged(in.PageQuery, st.Subscriptions, keep, func(sub *registry.Subscription) subscription {
		return showSubscription(sub, st.Offsets[sub.ID])
	})
}

func (s *Server) readSubscription(ctx context.Context, in *SubscriptionPath) (*answer[subscription], error) {
	st, err := s.existing(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	sub := st.Subscriptions[in.Subscription]
	if sub == nil {
		return nil, notFound("subscription")
	}
	return answerSubscription(http.StatusOK, sub, st.Offsets[sub.ID]), nil
}

func writableSubscription(st *registry.TenantState, id, ifMatch string) (*registry.Subscription, error) {
	if err := writable(st); err != nil {
		return nil, err
	}
	sub := st.Subscriptions[id]
	if sub == nil {
		return nil, notFound("subscription")
	}
	return sub, checkMatch(ifMatch, st, id)
}

func (s *Server) patchSubscription(ctx context.Context, in *patchSubscriptionInput) (*answer[subscription], error) {
	patch := slices.Clone(in.RawBody)
	var after *registry.Subscription
	offset, err := s.update(ctx, change{tenant: in.Tenant, action: "subscription.patch", fn: func(st *registry.TenantState) ([]registry.Change, error) {
		sub, err := writableSubscription(st, in.Subscription, in.IfMatch)
		if err != nil {
			return nil, err
		}
		set, err := mergePatch(NewSubscription{Types: sub.Types, Filter: sub.Filter}, patch, names{"types": nil, "filter": nil})
		if err != nil {
			return nil, err
		}
		if faults := s.checkSubscription("", set.types(), set.Filter); len(faults) > 0 {
			return nil, invalid(faults...)
		}
		next := *sub
		next.Meta, next.Types, next.Filter = s.touch(sub.Meta), set.types(), set.Filter
		after = &next
		return []registry.Change{{Tenant: in.Tenant, Entity: sub.ID, Value: after}}, nil
	}})
	if err != nil {
		return nil, err
	}
	return answerSubscription(http.StatusOK, after, offset), nil
}

func (s *Server) deleteSubscription(ctx context.Context, in *subscriptionInput) (*empty, error) {
	_, err := s.update(ctx, change{tenant: in.Tenant, action: "subscription.delete", fn: func(st *registry.TenantState) ([]registry.Change, error) {
		sub, err := writableSubscription(st, in.Subscription, in.IfMatch)
		if err != nil {
			return nil, err
		}
		return []registry.Change{{Tenant: in.Tenant, Entity: sub.ID}}, nil
	}})
	return nil, err
}
