package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

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
// the repeats among all. It gives up when nothing arrives for a while.
func (s *stage) settle(ctx context.Context, want int64) (done sample, repeats int64, err error) {
	last, moved, patience := int64(-1), time.Now(), cmp.Or(s.patience, settlePatience)
	err = poll(ctx, 10*time.Minute, func() (bool, error) {
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
		case time.Since(moved) > patience:
			return false, fmt.Errorf("%d of %d deliveries did not arrive", want-c.Distinct, want)
		}
		return false, nil
	})
	return done, repeats, err
}
