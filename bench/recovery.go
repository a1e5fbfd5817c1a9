package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	recoveryName = "recovery"
	// recoveryDelay is how long the endpoint takes to answer, in milliseconds.
	recoveryDelay = 5
	recoveryRetry = "5s"
	// bystanderRate is the load on other endpoints meanwhile.
	bystanderRate      = 100
	bystanderEndpoints = 8
	// bystanderLead is how long it runs before the endpoint is back.
	bystanderLead  = 3 * time.Second
	bystanderLimit = 10 * time.Minute
	// breakerShare of the records are parked when the endpoint comes back that
	// answers 503: some were attempted before, and wait for their own retry.
	breakerShare = 0.9
	// breakerPatience is twice the longest pause between two probes by default.
	breakerPatience = 2 * time.Minute
)

// recovery has records wait for an endpoint that is down, brings it back, and
// says how fast they came and how that began. Meanwhile others go on.
func (s *stage) recovery(ctx context.Context) (values, error) {
	pause, err := s.pauses(ctx)
	if err != nil {
		return nil, err
	}
	id, err := s.down(ctx, pause)
	if err != nil {
		return nil, err
	}
	share := 1.0
	if !pause {
		share, s.patience = breakerShare, breakerPatience
	}
	parked, err := s.fill(ctx, s.sizes.waiting, share)
	if err != nil {
		return nil, err
	}
	refused, err := s.sink.counts(ctx, s.id)
	if err != nil {
		return nil, err
	}
	others := s.fresh()
	if err := others.prepare(ctx, bystanderEndpoints, false, true); err != nil {
		return nil, err
	}
	load := &schedule{sender: s.gateway.sender(), events: others.spread(bystanderEndpoints), rate: bystanderRate}
	var back time.Time
	var repeats int64
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return load.run(running, stop, bystanderLimit) })
	group.Go(func() (err error) {
		defer cancel()
		back, repeats, err = s.bringBack(running, id, pause)
		return err
	})
	if err := group.Wait(); err != nil {
		return values{keyParked: parked, keyRefused: float64(refused.Refused)}, err
	}
	out := values{keyParked: parked, keyRefused: float64(refused.Refused), keyRepeats: float64(repeats)}
	return out, errors.Join(s.recovered(ctx, back, out), others.beside(ctx, load, back, out))
}

// pauses reports whether pausing is what makes the records wait.
func (s *stage) pauses(ctx context.Context) (bool, error) {
	switch s.sizes.park {
	case parkPause:
		return true, nil
	case parkBreaker:
		return false, nil
	}
	breaker, err := s.gateway.api().hasBreaker(ctx)
	return !breaker, err
}

// down makes the endpoint, which is paused or answers 503.
func (s *stage) down(ctx context.Context, pause bool) (id string, err error) {
	api := s.gateway.api()
	if err := api.newTenant(ctx, s.tenant()); err != nil {
		return "", err
	}
	id, err = api.newEndpoint(ctx, s.tenant(), eventType(0), map[string]any{
		"url":   s.sink.url(place{run: s.id, traced: true}),
		"retry": map[string]any{"schedule": slices.Repeat([]string{recoveryRetry}, 20)},
	})
	if err != nil {
		return "", err
	}
	if pause {
		return id, api.verb(ctx, s.tenant(), id, "pause")
	}
	return id, s.sink.behave(ctx, s.id, conduct{Status: http.StatusServiceUnavailable, DelayMS: recoveryDelay})
}

// fill sends the events and waits until that share of them is parked, or no more
// of them gets parked. It returns how many are.
func (s *stage) fill(ctx context.Context, records int64, share float64) (parked float64, err error) {
	st := &stream{
		sender: s.gateway.sender(), events: s.spread(1).padded(smallPad), workers: 8, batch: batchSize, fan: 1, total: records,
	}
	if err := st.run(ctx, ctx); err != nil {
		return 0, err
	}
	moved := time.Now()
	err = poll(ctx, 5*time.Minute, func() (bool, error) {
		m, err := s.gateway.metrics(ctx)
		if err = errors.Join(err, s.gateway.ended()); err != nil {
			return false, err
		}
		if m[metricParked] > parked {
			parked, moved = m[metricParked], time.Now()
		}
		return parked >= share*float64(st.accepted.Load()) || time.Since(moved) > 10*time.Second, nil
	})
	return parked, err
}

// bringBack lets the endpoint answer and waits until all has arrived.
func (s *stage) bringBack(ctx context.Context, id string, pause bool) (back time.Time, repeats int64, err error) {
	if err := wait(ctx, bystanderLead); err != nil {
		return back, 0, err
	}
	back = time.Now()
	err = s.sink.behave(ctx, s.id, conduct{DelayMS: recoveryDelay})
	if err == nil && pause {
		err = s.gateway.api().verb(ctx, s.tenant(), id, "resume")
	}
	if err != nil {
		return back, 0, err
	}
	_, repeats, err = s.settle(ctx, s.sizes.waiting/batchSize*batchSize)
	return back, repeats, err
}

// recovered adds what the endpoint saw.
func (s *stage) recovered(ctx context.Context, back time.Time, out values) error {
	trace, err := s.sink.trace(ctx, s.id)
	if err != nil {
		return err
	}
	times := make([]time.Duration, 0, len(trace))
	var flight int64
	for _, a := range trace {
		times = append(times, time.Duration(a.At-back.UnixNano()))
		flight = max(flight, a.Flight)
	}
	if len(times) == 0 {
		return errors.New("nothing arrived")
	}
	first, last := slices.Min(times), slices.Max(times)
	narrow, wide := perWindow(times, 100*time.Millisecond), perWindow(times, time.Second)
	out[keyFirst], out[keyDrainTime] = milliseconds(first), last.Seconds()
	out[keyRate] = float64(len(times)) / max(last-first, time.Millisecond).Seconds()
	out[keyPeak100], out[keyPeakSecond], out[keyPeakFlight] = highest(narrow), highest(wide), float64(flight)
	out[keyBegin100], out[keyRamp] = narrow[0].y, rampTime(times)*1000
	out[keyBeginFlight] = float64(beginFlight(trace))
	s.curves.addRecovery(s.gateway.backend, narrow)
	return nil
}

// rampTime is how long after the first arrival, in seconds, the rate in windows of
// 10 ms first reaches nine tenths of its median where anything arrived.
func rampTime(times []time.Duration) float64 {
	windows := perWindow(times, 10*time.Millisecond)
	rates := make([]float64, 0, len(windows))
	for _, w := range windows {
		if w.y > 0 {
			rates = append(rates, w.y)
		}
	}
	usual := median(rates)
	for _, w := range windows {
		if w.y >= 0.9*usual {
			return w.x - windows[0].x
		}
	}
	return 0
}

// beginFlight is how many requests were under way at most among the first eight
// that arrived: a flood would have them all.
func beginFlight(trace []arrival) (most int64) {
	slices.SortFunc(trace, func(a, b arrival) int { return int(a.At - b.At) })
	for _, a := range trace[:min(8, len(trace))] {
		most = max(most, a.Flight)
	}
	return most
}

// beside adds the latency of the other endpoints before and after.
func (s *stage) beside(ctx context.Context, load *schedule, back time.Time, out values) error {
	if _, _, err := s.settle(ctx, int64(len(load.acked))); err != nil {
		return fmt.Errorf("other endpoints: %w", err)
	}
	arrivals, err := s.firstArrivals(ctx)
	if err != nil {
		return err
	}
	var before, after []point
	for n, at := range arrivals {
		p := point{time.Duration(load.due[n] - back.UnixNano()).Seconds(), milliseconds(max(0, time.Duration(at-load.acked[n])))}
		switch {
		case p.x >= 0:
			after = append(after, p)
		case p.x > (warmUp/2 - bystanderLead).Seconds():
			before = append(before, p)
		}
	}
	out[keyOthersBefore], out[keyOthersAfter] = pointPercentile(before, 99), pointPercentile(after, 99)
	s.curves.addBystanders(s.gateway.backend, append(before, after...))
	return nil
}
