package control

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postrider/postrider/internal/registry"
)

// verb is one change of an endpoint's state (DESIGN 4.3). Each is idempotent:
// where the endpoint is already as asked, nothing is written. An endpoint that is
// left alone for now is not as enable asks.
type verb struct {
	name, summary, description string
	step                       func(st *registry.TenantState, next *registry.Endpoint) (bool, error)
}

func verbs() []verb {
	return []verb{
		{"pause", "Pause an endpoint", "Its deliveries wait, in order; nothing is dropped.", pauseStep},
		{"resume", "Resume a paused endpoint", "What waited is delivered in order.", resumeStep},
		{"disable", "Disable an endpoint", "No further deliveries are made for it; those that are there wait.", disableStep},
		{"enable", "Enable a disabled endpoint", "What waited is delivered, whether it was disabled by hand or by the gateway. " +
			"An enabled endpoint whose breaker is open, or that is held, is probed at once.", enableStep},
	}
}

func (s *Server) registerVerbs(api huma.API) {
	const tag, one = "endpoints", endpointsPath + "/{endpoint}"
	for _, v := range verbs() {
		handle(s, api, operation{
			method: http.MethodPost, path: one + "/" + v.name, id: v.name + "-endpoint", tag: tag, status: http.StatusOK,
			summary: v.summary, description: v.description,
		}, func(ctx context.Context, in *endpointInput) (*answer[endpoint], error) {
			c := endpointChange{at: in.EndpointPath, ifMatch: in.IfMatch, action: "endpoint." + v.name, always: true, step: v.step}
			if v.name == "enable" {
				if err := s.enableAnew(ctx, &c); err != nil {
					return nil, err
				}
			}
			return s.changeEndpoint(ctx, c)
		})
	}
	handle(s, api, operation{
		method: http.MethodPost, path: one + "/rotate-secret", id: "rotate-secret", tag: tag, status: http.StatusOK,
		summary:     "Give an endpoint a new signing secret",
		description: "Until the old secrets end, requests carry a signature of each. A repeat makes another secret: send If-Match, or bring the secret, to make it safe.",
	}, s.rotateSecret)
	handle(s, api, operation{
		method: http.MethodGet, path: one + "/secret", id: "get-secret", tag: tag, status: http.StatusOK,
		summary: "Read an endpoint's newest signing secret", description: "Of an ed25519 secret the public key is shown, never the private one.",
	}, s.readSecret)
	handle(s, api, operation{
		method: http.MethodPost, path: one + "/test", id: "test-endpoint", tag: tag, status: http.StatusAccepted,
		summary: "Send a test event to one endpoint", description: "The event has the type postrider.test and goes to this endpoint alone, whatever its subscriptions.",
	}, s.testEndpoint)
}

func wrongState(verb string, is registry.State, hint string) error {
	return refuse(http.StatusConflict, codeInvalidState, "%s: the endpoint is %s; %s", verb, is, hint)
}

func pauseStep(st *registry.TenantState, next *registry.Endpoint) (bool, error) {
	switch next.Effective(st.Health[next.ID]) {
	case registry.StatePaused:
		return false, nil
	case registry.StateDisabled:
		return false, wrongState("pause", registry.StateDisabled, "it gets no deliveries that could wait")
	default:
		next.State = registry.StatePaused
		return true, nil
	}
}

func resumeStep(st *registry.TenantState, next *registry.Endpoint) (bool, error) {
	switch next.Effective(st.Health[next.ID]) {
	case registry.StateEnabled:
		return false, nil
	case registry.StateDisabled:
		return false, wrongState("resume", registry.StateDisabled, "enable it")
	default:
		next.State = registry.StateEnabled
		return true, nil
	}
}

func disableStep(_ *registry.TenantState, next *registry.Endpoint) (bool, error) {
	if next.State == registry.StateDisabled {
		return false, nil
	}
	next.State = registry.StateDisabled
	return true, nil
}

// enableStep makes every health record void that judged the version it replaces,
// or an older one.
func enableStep(st *registry.TenantState, next *registry.Endpoint) (bool, error) {
	switch next.Effective(st.Health[next.ID]) {
	case registry.StateEnabled:
		return false, nil
	case registry.StatePaused:
		return false, wrongState("enable", registry.StatePaused, "resume it")
	default:
		next.State, next.EnabledAfter = registry.StateEnabled, st.Offsets[next.ID]
		return true, nil
	}
}

// enableAnew has the step of enable write a version for an enabled endpoint, too,
// if its owner in deliver told last that it is left alone for now: at an enable it
// begins anew.
func (s *Server) enableAnew(ctx context.Context, c *endpointChange) error {
	shown, err := s.readEndpoint(ctx, &c.at)
	if err != nil {
		return err
	}
	if h := shown.Body.Health; h == nil || h.Breaker == nil && h.Hold == nil {
		return nil
	}
	step := c.step
	c.step = func(st *registry.TenantState, next *registry.Endpoint) (bool, error) {
		write, err := step(st, next)
		if err != nil || write {
			return write, err
		}
		next.EnabledAfter = st.Offsets[next.ID]
		return true, nil
	}
	return nil
}
