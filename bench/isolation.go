package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// The load of the scenarios isolation.
const (
	isolationRate      = 500
	isolationEndpoints = 100
	hangTimeout        = "5s"
	hangRetry          = "1s"
)

// hangShares are the percentages of endpoints that hang.
func hangShares() []int { return []int{20, 50} }

func isolationName(share int) string { return "isolation/" + strconv.Itoa(share) }

// hangPair is what the endpoints that never hang saw in two runs, one after the
// other: p99 in milliseconds.
type hangPair struct {
	Without float64 `json:"without_p99_ms"`
	With    float64 `json:"with_p99_ms"`
}

// isolation compares the latency of healthy endpoints while others hang and
// while those answer, in pairs, every other pair the other way round. Nothing of
// a run is left for the next one.
func (s *stage) isolation(ctx context.Context, share int) (values, error) {
	var pairs []hangPair
	var without, with []float64
	for i := range s.sizes.pairs {
		var pair hangPair
		for _, hang := range []bool{i%2 == 1, i%2 == 0} {
			points, err := s.fresh().healthy(ctx, share, hang)
			if err != nil {
				return nil, fmt.Errorf("pair %d, hanging %t: %w", i+1, hang, err)
			}
			p99 := &pair.Without
			if hang {
				p99 = &pair.With
			}
			*p99 = pointPercentile(points, 99)
			s.curves.addIsolation(s.gateway.backend, share, hang, points)
		}
		pairs, without, with = append(pairs, pair), append(without, pair.Without), append(with, pair.With)
	}
	s.detail = pairs
	out := values{keyWithout: median(without), keyWith: median(with), keyRate: isolationRate}
	out[keyAdded] = out[keyWith] - out[keyWithout]
	if out[keyWithout] > 0 {
		out[keyRatio] = out[keyWith] / out[keyWithout]
	}
	return out, nil
}

// healthy runs the load once and returns the latency (ms, from accepted to
// received) of each event for a healthy endpoint by when it was due.
func (s *stage) healthy(ctx context.Context, share int, hang bool) (points []point, err error) {
	if err := s.sink.behave(ctx, s.id+otherRuns, conduct{Hang: hang}); err != nil {
		return nil, err
	}
	first := int64(isolationEndpoints * (100 - share) / 100) // that may hang
	others, err := s.prepareSome(ctx, first)
	if err != nil {
		return nil, err
	}
	load := &schedule{sender: s.gateway.sender(), events: s.spread(isolationEndpoints), rate: isolationRate}
	if err := load.run(ctx, ctx, warmUp+s.options.window); err != nil {
		return nil, err
	}
	var want int64
	for n := range int64(len(load.acked)) {
		if n%isolationEndpoints < first {
			want++
		}
	}
	if _, _, err := s.settle(ctx, want); err != nil {
		return nil, fmt.Errorf("healthy endpoints: %w", err)
	}
	arrivals, err := s.firstArrivals(ctx)
	if err != nil {
		return nil, err
	}
	load.forgetWarmUp(arrivals)
	for n, at := range arrivals {
		late := max(0, time.Duration(at-load.acked[n]))
		points = append(points, point{time.Duration(load.due[n] - load.due[0]).Seconds(), milliseconds(late)})
	}
	return points, s.retire(ctx, others)
}

// prepareSome makes the endpoints; those from number first on belong to another
// run of the sink, and their ids are returned.
func (s *stage) prepareSome(ctx context.Context, first int64) (others []string, err error) {
	api := s.gateway.api()
	if err := api.newTenant(ctx, s.tenant()); err != nil {
		return nil, err
	}
	for i := range int64(isolationEndpoints) {
		at := place{run: s.id, endpoint: int(i), traced: true}
		if i >= first {
			at = place{run: s.id + otherRuns, endpoint: int(i)}
		}
		id, err := api.newEndpoint(ctx, s.tenant(), eventType(i), map[string]any{
			"url": s.sink.url(at), "timeout": hangTimeout,
			"retry": map[string]any{"schedule": slices.Repeat([]string{hangRetry}, 20)},
		})
		if err != nil {
			return nil, err
		}
		if i >= first {
			others = append(others, id)
		}
	}
	return others, nil
}

// retire deletes the endpoints that may have hung, has what hangs fail, and
// waits until no attempt and no parked record is left of them.
func (s *stage) retire(ctx context.Context, endpoints []string) error {
	for _, id := range endpoints {
		if err := s.gateway.api().deleteEndpoint(ctx, s.tenant(), id); err != nil {
			return err
		}
	}
	if err := s.sink.behave(ctx, s.id+otherRuns, conduct{}); err != nil {
		return err
	}
	err := poll(ctx, time.Minute, func() (bool, error) {
		m, err := s.gateway.metrics(ctx)
		return err == nil && m[metricParked] == 0 && m[metricInFlight] == 0, err
	})
	if err != nil {
		return fmt.Errorf("deleted endpoints are still at work: %w", err)
	}
	return nil
}
