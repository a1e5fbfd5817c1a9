package main

import (
	"context"
	"fmt"
	"time"
)

const (
	// throughputEndpoints share the events of throughput, one delivery each.
	throughputEndpoints = 8
	fanoutEndpoints     = 100
	wideEndpoints       = 10_000 // as many as a tenant may have
	batchSize           = 100
	// minDrained is the least backlog whose working off says anything.
	minDrained = 5000
)

// throughput streams events that become one delivery each. The limit is measured
// right before and right after, since the machine may not stay the same.
func (s *stage) throughput(ctx context.Context) (values, error) {
	if err := s.prepare(ctx, throughputEndpoints, false, false); err != nil {
		return nil, err
	}
	before, err := s.plainRate(ctx)
	if err != nil {
		return nil, err
	}
	m, err := s.measure(ctx, &stream{
		sender: s.gateway.sender(), events: s.spread(throughputEndpoints), workers: 8, batch: batchSize, fan: 1, backlog: s.backlog,
	})
	if err != nil {
		return m.values(), err
	}
	after, err := s.plainRate(ctx)
	if err != nil {
		return nil, err
	}
	s.limit = (before + after) / 2
	out := m.values()
	out[keyLimitBefore], out[keyLimitAfter] = before, after
	return out, nil
}

// plainRate is what the plain client reaches now.
func (s *stage) plainRate(ctx context.Context) (float64, error) {
	v, err := measureLimit(ctx, s.sink, s.id+limitRuns, s.limitWindow())
	return v[keyRate], err
}

// limitWindow is how long the limit is measured.
func (o *options) limitWindow() time.Duration { return min(o.window, 5*time.Second) }

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

// wide streams events that become 10,000 deliveries each, which fan-out writes
// by way of pages. Before that, one such event has the gateway to itself.
func (s *stage) wide(ctx context.Context) (values, error) {
	made := time.Now()
	if err := s.populate(ctx, wideEndpoints); err != nil {
		return nil, err
	}
	took := time.Since(made)
	st := &stream{
		sender: s.gateway.sender(), events: s.spread(1), workers: 2, batch: 1, fan: wideEndpoints, backlog: max(s.backlog, 2*wideEndpoints),
	}
	start := time.Now()
	if err := st.sender.post(ctx, jsonType, st.events.append(nil, 0)); err != nil {
		return nil, err
	}
	alone, _, err := s.settle(ctx, wideEndpoints)
	if err != nil {
		return nil, fmt.Errorf("one event: %w", err)
	}
	st.next.Store(1)
	st.accepted.Store(1)
	m, err := s.measure(ctx, st)
	out := m.values()
	out[keyAlone], out[keyCreate] = milliseconds(alone.at.Sub(start)), took.Seconds()
	return out, err
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
