package control

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/postrider/postrider/internal/match"
	"github.com/postrider/postrider/internal/registry"
)

// dryEvent is an event in plain JSON, as POST /v1/events takes it.
type dryEvent struct {
	Type            string            `json:"type" minLength:"1" maxLength:"255"`
	ID              string            `json:"id,omitempty" maxLength:"1024"`
	Source          string            `json:"source,omitempty" maxLength:"2048"`
	Subject         string            `json:"subject,omitempty" maxLength:"2048"`
	Time            string            `json:"time,omitempty" format:"date-time"`
	DataContentType string            `json:"datacontenttype,omitempty" maxLength:"255"`
	DataSchema      string            `json:"dataschema,omitempty" maxLength:"2048" doc:"No filter sees it."`
	Tenant          string            `json:"tenant,omitempty" maxLength:"64" doc:"That of the path, if it is given."`
	PartitionKey    string            `json:"partitionkey,omitempty" maxLength:"1024"`
	Extensions      map[string]string `json:"extensions,omitempty" maxProperties:"64"`
	Data            json.RawMessage   `json:"data,omitempty"`
}

type dryInput struct {
	TenantPath
	Body dryEvent
}

// verdict is what was found for one subscription.
type verdict struct {
	SubscriptionID string `json:"subscription_id"`
	EndpointID     string `json:"endpoint_id"`
	EndpointState  string `json:"endpoint_state" enum:"enabled,paused,disabled" doc:"What the endpoint is in effect: deliveries of a paused one wait."`
	Outcome        string `json:"outcome" enum:"matched,type_not_matched,disabled,filtered,filter_error,filter_budget"`
	Pattern        string `json:"pattern,omitempty" doc:"The type pattern that matched."`
	Detail         string `json:"detail,omitempty" doc:"Why the filter failed."`
}

type verdicts struct {
	Matched  int       `json:"matched" doc:"How many subscriptions match."`
	Verdicts []verdict `json:"verdicts" nullable:"false"`
}

// matchSubscriptions judges the event as fan-out would, with the subscriptions as
// they are now.
func (s *Server) matchSubscriptions(ctx context.Context, in *dryInput) (*answer[verdicts], error) {
	st, err := s.existing(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	if t := in.Body.Tenant; t != "" && t != in.Tenant {
		return nil, invalid(fault{pointer: "/tenant", detail: "is not the tenant of the path"})
	}
	subs := make([]match.Subscription, 0, len(st.Subscriptions))
	states := make(map[string]registry.State, len(st.Endpoints))
	for _, sub := range st.Subscriptions {
		ep := st.Endpoints[sub.Endpoint]
		if ep == nil {
			continue // is being deleted
		}
		states[ep.ID] = ep.Effective(st.Health[ep.ID])
		subs = append(subs, match.Subscription{
			ID: sub.ID, EndpointID: sub.Endpoint, Types: sub.Types, Filter: sub.Filter, Disabled: states[ep.ID] == registry.StateDisabled,
		})
	}
	set, _ := match.Compile(subs, s.programs) // what does not compile is a filter_error below
	ev := in.Body
	out := verdicts{Verdicts: []verdict{}}
	for _, v := range set.Explain(&match.Input{ //nolint:contextcheck // bounded by its own cost limit
		Type: ev.Type, Source: ev.Source, Subject: ev.Subject, ID: ev.ID, Time: ev.Time, DataContentType: ev.DataContentType,
		Tenant: in.Tenant, PartitionKey: ev.PartitionKey, Extensions: ev.Extensions, Data: ev.Data,
	}) {
		if v.Outcome == match.OutcomeMatched {
			out.Matched++
		}
		out.Verdicts = append(out.Verdicts, verdict{
			v.SubscriptionID, v.EndpointID, string(states[v.EndpointID]), string(v.Outcome), v.Pattern, v.Detail,
		})
	}
	return &answer[verdicts]{Status: http.StatusOK, Body: out}, nil
}
