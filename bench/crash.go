package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// The load of the scenario crash and its times around the kill.
const (
	crashRate     = 200
	crashBefore   = 3 * time.Second
	crashAfter    = 4 * time.Second // behind the moment when the role is ready again
	crashLimit    = 2 * time.Minute
	crashEndpoint = 4
)

// crash kills one process with kill -9 under load and starts it again at once,
// as an orchestrator would. The sender repeats what was not accepted.
func (s *stage) crash(ctx context.Context, r *role) (values, error) {
	if err := s.warmUp(ctx); err != nil {
		return nil, fmt.Errorf("before the kill: %w", err)
	}
	load := &schedule{sender: s.gateway.sender(), events: s.spread(crashEndpoint), rate: crashRate}
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	var killed, back time.Time
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return load.run(running, stop, crashLimit) })
	group.Go(func() (err error) {
		defer cancel()
		killed, back, err = s.killAndRestart(running, r)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	done, repeats, err := s.settle(ctx, int64(len(load.acked)))
	if err != nil {
		return values{keyLost: float64(int64(len(load.acked)) - done.count), keyRepeats: float64(repeats)}, err
	}
	trace, err := s.sink.trace(ctx, s.id)
	if err != nil {
		return nil, err
	}
	times := make([]int64, 0, len(trace))
	for _, a := range trace {
		times = append(times, a.At)
	}
	first, err := s.firstArrivals(ctx)
	if err != nil {
		return nil, err
	}
	gap, at := longestGap(times, killed.Add(-time.Second).UnixNano(), back.Add(crashAfter).UnixNano())
	late, _ := latencies(load.acked, first)
	return values{
		keyGap: milliseconds(gap), keyGapAt: milliseconds(time.Duration(at - killed.UnixNano())),
		keyReady: milliseconds(back.Sub(killed)), keyMax: milliseconds(percentile(late, 100)),
		keyLost: 0, keyRepeats: float64(repeats), keySent: float64(len(load.acked)), keyResent: float64(load.sender.repeats.Load()),
	}, nil
}

// warmUp makes the endpoints and waits until events of every partition get
// through: at the start the groups may still wait for members that are gone.
func (s *stage) warmUp(ctx context.Context) error {
	if err := s.prepare(ctx, crashEndpoint, false, true); err != nil {
		return err
	}
	probe := *s
	probe.id += probeRuns
	if err := probe.prepare(ctx, crashEndpoint, false, false); err != nil {
		return err
	}
	return probe.catchUp(ctx, 0)
}

// killAndRestart returns when the process was killed and when it was ready
// again, and waits for some load on both sides.
func (s *stage) killAndRestart(ctx context.Context, r *role) (killed, back time.Time, err error) {
	if err := wait(ctx, crashBefore); err != nil {
		return killed, back, err
	}
	killed = time.Now()
	if err := r.child.kill(); err != nil {
		return killed, back, err
	}
	if r.child, err = r.start(ctx); err != nil {
		return killed, back, err
	}
	err = r.await(ctx)
	back = time.Now()
	return killed, back, errors.Join(err, wait(ctx, crashAfter))
}
