package main

import (
	"context"
	"strconv"
	"time"
)

// Names of the scenarios that are not in the list of scenarios: limit has no
// gateway, crash has one process after the other.
const (
	limitName = "limit"
	crashName = "crash"
)

// shape is how a gateway of its own runs.
type shape struct {
	split bool // one process for each role, where the backend has that
	args  []string
}

// scenario is one measurement of a running gateway.
type scenario struct {
	name string
	run  func(*stage, context.Context) (values, error)
	// own is the gateway that the scenario has to itself; nil: it shares one.
	own *shape
	// only is the one backend that it runs on; "": all.
	only string
}

// scenarios are all of them in their order: those that share a gateway first,
// the quiet ones before the loud ones.
func scenarios(o *options) []scenario {
	var out []scenario
	for _, rate := range o.rates {
		out = append(out, scenario{name: latencyName(rate), run: func(s *stage, ctx context.Context) (values, error) { return s.latency(ctx, rate) }})
	}
	for _, share := range hangShares() {
		out = append(out, scenario{name: isolationName(share), run: func(s *stage, ctx context.Context) (values, error) { return s.isolation(ctx, share) }})
	}
	return append(
		out,
		scenario{name: "throughput", run: (*stage).throughput},
		scenario{name: "fanout", run: (*stage).fanout},
		scenario{name: "fanout10k", run: (*stage).wide},
		scenario{name: recoveryName, run: (*stage).recovery},
		scenario{name: "ingest", run: (*stage).ingest},
		scenario{name: endpointsName, run: (*stage).manyEndpoints, own: &shape{split: true}},
		// The embedded broker drops what is too much for it, parked or not.
		scenario{name: parkedName, run: (*stage).manyParked, own: &shape{split: true}, only: kafka},
		// A claim of each event is kept for the window: without a short one the
		// embedded Redis would grow for an hour.
		scenario{name: "soak", run: (*stage).soak, own: &shape{args: []string{"--claim-window", "1m"}}},
	)
}

func scenarioNames(o *options) []string {
	names := []string{limitName}
	for _, s := range scenarios(o) {
		names = append(names, s.name)
	}
	return append(names, crashName)
}

// stage is what a scenario works with.
type stage struct {
	*options
	setup   *setup
	sink    *sinkProcess
	gateway *gateway
	name    string // of the scenario
	id      int    // of the run: tenant, paths in the sink, ids of events
	// fresh makes a stage with an id of its own and the same of all else.
	fresh func() *stage
	// limit is the plain client's rate as it was last measured; 0: not yet.
	limit  float64
	curves *curves
	// detail is what the result's line has beside its values.
	detail any
	// endpoints is how many prepare made.
	endpoints int64
	// patience is how long nothing may arrive before what is missing counts as
	// lost; 0: settlePatience.
	patience time.Duration
}

// Runs of the sink beside the stage's own: their ids are this much above it.
const (
	probeRuns = 1_000_000 // events that go ahead
	otherRuns = 2_000_000 // endpoints that are told apart
	limitRuns = 3_000_000 // the plain client
)

func (s *stage) tenant() string { return "bench" + strconv.Itoa(s.id) }

func eventType(n int64) string { return "bench." + strconv.FormatInt(n, 10) }

// prepare makes the tenant and n endpoints. Each has an event type of its own,
// bench.0, bench.1, …, or, if shared, all have bench.0.
func (s *stage) prepare(ctx context.Context, n int, shared, traced bool) error {
	s.endpoints = int64(n)
	api := s.gateway.api()
	if err := api.newTenant(ctx, s.tenant()); err != nil {
		return err
	}
	for i := range n {
		name := eventType(int64(i))
		if shared {
			name = eventType(0)
		}
		if _, err := api.newEndpoint(ctx, s.tenant(), name, map[string]any{"url": s.sink.url(place{run: s.id, endpoint: i, traced: traced})}); err != nil {
			return err
		}
	}
	return nil
}

// spread gives every event one of n types in turn.
func (s *stage) spread(n int64) *events {
	return newEvents(s.tenant(), s.id, func(i int64) string { return eventType(i % n) })
}

// settlePatience is the patience of most stages.
const settlePatience = 20 * time.Second
