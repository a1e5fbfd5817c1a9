package main

import (
	"context"
	"errors"
	"time"
)

const (
	// throughputEndpoints share the events of throughput, one delivery each.
	throughputEndpoints = 8
	fanoutEndpoints     = 100
	batchSize           = 100
	// minDrained is the least backlog whose working off says anything.
	minDrained = 5000
)

// throughput streams events that become one delivery each.
func (s *stage) throughput(ctx context.Context) (values, error) {
	if err := s.prepare(ctx, throughputEndpoints, false, false); err != nil {
		return nil, err
	}
	m, err := s.measure(ctx, &stream{
		sender: s.gateway.sender(), events: s.spread(throughputEndpoints), workers: 8, batch: batchSize, fan: 1, backlog: s.backlog,
	})
	return m.values(), err
}

// fanout streams events that become 100 deliveries each.
func (s *stage) fanout(ctx context.Context) (values, error) {
	if err := s.prepare(ctx, fanoutEndpoints, true, false); err != nil {
		return nil, err
	}
	m, err := s.measure(ctx, &stream{
		sender: s.gateway.sender(), events: s.spread(1), workers: 4, batch: 10, fan: fanoutEndpoints, backlog: s.backlog,
	})
	return m.values(), err
}

func (m measured) values() values {
	out := values{
		keyRate: m.rate, keyAccepted: m.accepted, keyCPU: m.cpu, keyRSS: megabytes(m.rss), keyPeak: megabytes(m.peak),
		keyBacklog: float64(m.backlog), keyDrained: float64(m.drained), keyRepeats: float64(m.repeats),
	}
	if m.drained >= minDrained {
		out[keyDrain] = m.drain
	}
	return out
}

func megabytes(bytes int64) float64 { return float64(bytes) / 1e6 }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// ingest sends events that nobody subscribed to, in batches and one by one.
func (s *stage) ingest(ctx context.Context) (values, error) {
	if err := s.prepare(ctx, 1, false, false); err != nil {
		return nil, err
	}
	out, first := values{}, int64(0)
	for _, form := range []struct {
		key     string
		batch   int64
		workers int
	}{{keyBatches, batchSize, 8}, {keySingles, 1, 64}} {
		st := &stream{
			sender: s.gateway.sender(), workers: form.workers, batch: form.batch, fan: 1,
			events: newEvents(s.tenant(), s.id, func(int64) string { return "nobody.listens" }),
		}
		st.next.Store(first)
		got, err := s.accept(ctx, st)
		if err != nil {
			return nil, err
		}
		out[form.key] = got
		first = st.next.Load()
	}
	return out, s.catchUp(ctx, first)
}

// accept runs a stream for half a window, warmed up, and returns what was
// accepted per second.
func (s *stage) accept(ctx context.Context, st *stream) (float64, error) {
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- st.run(ctx, stop) }() // received below
	err := wait(ctx, s.options.window/10+time.Second/2)
	from := sample{time.Now(), st.accepted.Load()}
	if err == nil {
		err = wait(ctx, s.options.window/2)
	}
	to := sample{time.Now(), st.accepted.Load()}
	cancel()
	if sent := <-done; sent != nil {
		return 0, sent
	}
	return rate(from, to), err
}

// catchUp waits until fan-out has gone through all that was sent: the events
// that it sends now, enough of them to reach every partition, come last.
func (s *stage) catchUp(ctx context.Context, first int64) error {
	const probes = 512
	e := s.spread(s.endpoints)
	sender := s.gateway.sender()
	if err := sender.post(ctx, linesType, e.lines(nil, first, probes)); err != nil {
		return err
	}
	_, _, err := s.settle(ctx, probes)
	return err
}

// latency sends at a fixed rate and compares the times of the same event.
func (s *stage) latency(ctx context.Context) (values, error) {
	if err := s.prepare(ctx, throughputEndpoints, false, true); err != nil {
		return nil, err
	}
	const warmUp = 2 * time.Second
	load := &schedule{sender: s.gateway.sender(), events: s.spread(throughputEndpoints), rate: s.rate}
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
	cold := int64(warmUp.Seconds() * float64(s.rate))
	for n := range cold {
		delete(arrivals, n)
	}
	acked, _ := latencies(load.acked, arrivals)
	due, _ := latencies(load.due, arrivals)
	return values{
		keyRate: float64(s.rate),
		keyP50:  milliseconds(percentile(acked, 50)), keyP99: milliseconds(percentile(acked, 99)), keyMax: milliseconds(percentile(acked, 100)),
		keyDueP50: milliseconds(percentile(due, 50)), keyDueP99: milliseconds(percentile(due, 99)),
		keyCPU: perThousand(to.cpu-from.cpu, int64(len(load.acked))), keyRSS: megabytes(to.rss), keyRepeats: float64(repeats),
	}, nil
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
