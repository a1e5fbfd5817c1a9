package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// Names of the scenarios; limit has no gateway, crash has gateways of its own.
const (
	limitName = "limit"
	crashName = "crash"
)

// scenario is one measurement of a running gateway.
type scenario struct {
	name string
	run  func(*stage, context.Context) (values, error)
}

// scenarios are those that share a gateway, in their order: the quiet one first.
func scenarios() []scenario {
	return []scenario{
		{"latency", (*stage).latency},
		{"throughput", (*stage).throughput},
		{"fanout", (*stage).fanout},
		{"ingest", (*stage).ingest},
	}
}

func scenarioNames() []string {
	names := []string{limitName}
	for _, s := range scenarios() {
		names = append(names, s.name)
	}
	return append(names, crashName)
}

// stage is what a scenario works with.
type stage struct {
	*options
	sink    *sinkProcess
	gateway *gateway
	name    string // of the scenario
	id      int    // of the run: tenant, paths in the sink, ids of events
	// endpoints is how many prepare made.
	endpoints int64
}

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
		if err := api.newEndpoint(ctx, s.tenant(), s.sink.url(place{run: s.id, endpoint: i, traced: traced}), name); err != nil {
			return err
		}
	}
	return nil
}

// spread gives every event one of n types in turn.
func (s *stage) spread(n int64) *events {
	return newEvents(s.tenant(), s.id, func(i int64) string { return eventType(i % n) })
}

// measured is what happened between two points of a stream.
type measured struct {
	rate      float64 // deliveries/s
	accepted  float64 // events/s
	cpu       float64 // CPU-seconds per 1,000 deliveries
	rss, peak int64
	backlog   int64   // deliveries under way at the end
	drained   int64   // deliveries that arrived after the last event was sent
	drain     float64 // of these, per second
	repeats   int64
}

// measure runs a stream through warm-up, window and drain, and makes sure that
// everything accepted arrived.
func (s *stage) measure(ctx context.Context, st *stream) (m measured, err error) {
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return st.run(running, stop) })
	group.Go(func() error {
		defer cancel()
		return s.window(running, st, &m)
	})
	group.Go(func() error { return s.follow(running, stop, st) })
	if err := group.Wait(); err != nil {
		return m, err
	}
	return m, s.drain(ctx, st, &m)
}

// follow tells the stream how much has been received.
func (s *stage) follow(ctx, stop context.Context, st *stream) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop.Done():
			return nil
		case <-tick.C:
		}
		c, err := s.sink.counts(ctx, s.id)
		if err != nil {
			return err
		}
		st.received.Store(c.Distinct)
	}
}

// window measures the steady state.
func (s *stage) window(ctx context.Context, st *stream, m *measured) error {
	if err := wait(ctx, max(2*time.Second, s.options.window/4)); err != nil {
		return err
	}
	if err := s.gateway.resetPeak(); err != nil {
		return err
	}
	from, usedFrom, err := s.look(ctx, st)
	if err != nil {
		return err
	}
	profiles := make(chan error, 1)
	go func() { profiles <- s.profile(ctx) }() // received below
	err = wait(ctx, s.options.window)
	if err = errors.Join(err, <-profiles); err != nil {
		return err
	}
	to, usedTo, err := s.look(ctx, st)
	if err != nil {
		return err
	}
	m.rate, m.accepted = rate(from.received, to.received), rate(from.accepted, to.accepted)
	m.cpu = perThousand(usedTo.cpu-usedFrom.cpu, to.received.count-from.received.count)
	m.rss, m.peak = usedTo.rss, usedTo.peak
	m.backlog = to.accepted.count*st.fan - to.received.count
	return nil
}

func (s *stage) profile(ctx context.Context) error {
	if s.profiles == "" {
		return nil
	}
	return s.gateway.profile(ctx, s.profiles, s.name, s.options.window)
}

// look is both counters at a time.
type look struct{ accepted, received sample }

func (s *stage) look(ctx context.Context, st *stream) (l look, u usage, err error) {
	c, err := s.sink.counts(ctx, s.id)
	if err != nil {
		return l, u, err
	}
	now := time.Now()
	l = look{accepted: sample{now, st.accepted.Load()}, received: sample{now, c.Distinct}}
	u, err = s.gateway.usage()
	return l, u, err
}

// drain waits until everything accepted arrived and measures how fast.
func (s *stage) drain(ctx context.Context, st *stream, m *measured) error {
	c, err := s.sink.counts(ctx, s.id)
	if err != nil {
		return err
	}
	from := sample{time.Now(), c.Distinct}
	to, repeats, err := s.settle(ctx, st.accepted.Load()*st.fan)
	if err != nil {
		return err
	}
	m.drain, m.drained, m.repeats = rate(from, to), to.count-from.count, repeats
	return nil
}

// settle waits until want deliveries have arrived and returns when they had, and
// the repeats among all. It gives up when nothing arrives for 20 s.
func (s *stage) settle(ctx context.Context, want int64) (done sample, repeats int64, err error) {
	last, moved := int64(-1), time.Now()
	err = poll(ctx, 3*time.Minute, func() (bool, error) {
		c, err := s.sink.counts(ctx, s.id)
		if err = errors.Join(err, s.gateway.ended()); err != nil {
			return false, err
		}
		done, repeats = sample{time.Now(), c.Distinct}, c.Received-c.Distinct-c.Unreadable
		switch {
		case c.Distinct > want:
			return false, fmt.Errorf("%d deliveries arrived, only %d were made", c.Distinct, want)
		case c.Unreadable > 0:
			return false, fmt.Errorf("%d requests without a number arrived", c.Unreadable)
		case c.Distinct == want:
			return true, nil
		case c.Distinct != last:
			last, moved = c.Distinct, time.Now()
		case time.Since(moved) > 20*time.Second:
			return false, fmt.Errorf("%d of %d deliveries did not arrive", want-c.Distinct, want)
		}
		return false, nil
	})
	return done, repeats, err
}

// wait returns after d, or earlier with the error of ctx.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
