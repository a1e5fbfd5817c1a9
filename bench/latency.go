package main

import (
	"context"
	"errors"
	"strconv"
	"time"
)

// warmUp is how long an open loop runs before its latencies count.
const warmUp = 2 * time.Second

func latencyName(rate int) string { return "latency/" + strconv.Itoa(rate) }

// latency sends at a fixed rate and compares the times of the same event.
func (s *stage) latency(ctx context.Context, rate int) (values, error) {
	if err := s.prepare(ctx, throughputEndpoints, false, true); err != nil {
		return nil, err
	}
	load := &schedule{sender: s.gateway.sender(), events: s.spread(throughputEndpoints), rate: rate}
	from, err := s.gateway.usage()
	if err != nil {
		return nil, err
	}
	profiles := make(chan error, 1)
	go func() { profiles <- s.profile(ctx) }() // received below
	err = load.run(ctx, ctx, warmUp+s.options.window)
	if err = errors.Join(err, <-profiles); err != nil {
		return nil, err
	}
	_, repeats, err := s.settle(ctx, int64(len(load.acked)))
	if err != nil {
		return nil, err
	}
	to, err := s.gateway.usage()
	if err != nil {
		return nil, err
	}
	arrivals, err := s.firstArrivals(ctx)
	if err != nil {
		return nil, err
	}
	load.forgetWarmUp(arrivals)
	acked, _ := latencies(load.acked, arrivals)
	due, _ := latencies(load.due, arrivals)
	return values{
		keyRate: float64(rate),
		keyP50:  milliseconds(percentile(acked, 50)), keyP90: milliseconds(percentile(acked, 90)),
		keyP99: milliseconds(percentile(acked, 99)), keyMax: milliseconds(percentile(acked, 100)),
		keyDueP50: milliseconds(percentile(due, 50)), keyDueP90: milliseconds(percentile(due, 90)),
		keyDueP99: milliseconds(percentile(due, 99)), keyDueMax: milliseconds(percentile(due, 100)),
		keyCPU: perThousand(to.cpu-from.cpu, int64(len(load.acked))), keyRSS: megabytes(to.rss), keyRepeats: float64(repeats),
	}, nil
}

// forgetWarmUp removes the arrivals of events that were sent in the warm-up.
func (s *schedule) forgetWarmUp(arrivals map[int64]int64) {
	for n := range int64(warmUp.Seconds() * float64(s.rate)) {
		delete(arrivals, n)
	}
}

// firstArrivals returns when each event first arrived, by its number.
func (s *stage) firstArrivals(ctx context.Context) (map[int64]int64, error) {
	trace, err := s.sink.trace(ctx, s.id)
	if err != nil {
		return nil, err
	}
	first := make(map[int64]int64, len(trace))
	for _, a := range trace {
		if at, ok := first[a.Number]; !ok || a.At < at {
			first[a.Number] = a.At
		}
	}
	return first, nil
}
