package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	endpointsName = "endpoints100k"
	parkedName    = "parked1m"
	// endpointTenants share the endpoints of endpoints100k.
	endpointTenants = 10
	// drainWindow is how long the drain of parked1m is watched at most.
	drainWindow = 2 * time.Minute
)

// manyEndpoints gives very many endpoints one delivery each and says what the
// worker takes for them, then what endpoints cost it that never had one.
func (s *stage) manyEndpoints(ctx context.Context) (values, error) {
	deliver := s.gateway.role("deliver")
	each := s.sizes.endpoints / endpointTenants
	before, err := weigh(ctx, deliver)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	tenants := make([]*stage, endpointTenants)
	for i := range tenants {
		tenants[i] = s.fresh()
		if err := tenants[i].populate(ctx, each); err != nil {
			return nil, err
		}
	}
	out := values{keyEndpoints: float64(s.sizes.endpoints), keyCreate: time.Since(start).Seconds(), keyBefore: megabytes(before.rss)}
	if err := deliver.child.resetPeak(); err != nil {
		return nil, err
	}
	start = time.Now()
	for _, t := range tenants {
		if err := s.gateway.sender().post(ctx, jsonType, t.spread(1).append(nil, 0)); err != nil {
			return nil, err
		}
	}
	for i, t := range tenants {
		if _, _, err := t.settle(ctx, int64(each)); err != nil {
			return nil, err
		}
		if i == 0 && s.profiles != "" { // the others are under way
			if err := deliver.heapProfile(ctx, filepath.Join(s.profiles, s.gateway.backend+"-"+deliver.name+"-"+s.name+".heap.pprof")); err != nil {
				return nil, err
			}
		}
	}
	out[keyAlone] = milliseconds(time.Since(start))
	used, err := deliver.child.usage()
	if err != nil {
		return nil, err
	}
	out[keyRSS], out[keyPeak] = megabytes(used.rss), megabytes(used.peak)
	after, err := weigh(ctx, deliver)
	if err != nil {
		return nil, err
	}
	out[keyRest] = megabytes(after.rss)
	out[keyUsedCost] = float64(after.heap-before.heap) / float64(s.sizes.endpoints)
	return out, s.idleCost(ctx, deliver, each, out)
}

// idleCost adds as many endpoints again as a tenant had, which get nothing.
func (s *stage) idleCost(ctx context.Context, deliver *role, n int, out values) error {
	before, err := weigh(ctx, deliver)
	if err != nil {
		return err
	}
	if err := s.fresh().populate(ctx, n); err != nil {
		return err
	}
	after, err := weigh(ctx, deliver)
	out[keyIdleCost] = float64(after.heap-before.heap) / float64(n)
	return err
}

// weight is what a process takes when it rests.
type weight struct{ rss, heap int64 }

// weigh waits until the live heap hardly changes, for 15 s at most.
func weigh(ctx context.Context, r *role) (w weight, err error) {
	for range 15 {
		last := w.heap
		if w.heap, err = r.heap(ctx); err != nil {
			return w, err
		}
		if change := w.heap - last; max(change, -change) < w.heap/500 {
			break
		}
		if err := wait(ctx, time.Second); err != nil {
			return w, err
		}
	}
	u, err := r.child.usage()
	w.rss = u.rss
	return w, err
}

// manyParked parks very many records of one paused endpoint and counts what
// that writes to the index, then has them drain and counts again.
func (s *stage) manyParked(ctx context.Context) (out values, err error) {
	if err := s.settleIn(ctx); err != nil {
		return nil, fmt.Errorf("before: %w", err)
	}
	id, err := s.down(ctx, true)
	if err != nil {
		return nil, err
	}
	lanes, err := newIndexReader(s.gateway)
	if err != nil {
		return nil, err
	}
	defer lanes.client.Close()
	group, running := errgroup.WithContext(ctx)
	stop, cancel := context.WithCancel(running)
	defer cancel()
	group.Go(func() error { return lanes.run(stop) })
	group.Go(func() (err error) {
		defer cancel()
		if out, err = s.parkMany(running, lanes); err == nil {
			err = s.drainMany(running, lanes, id, out)
		}
		return err
	})
	err = group.Wait()
	return out, err
}

// settleIn runs the worker for a while, so that its buffers have their size.
func (s *stage) settleIn(ctx context.Context) error {
	first := s.fresh()
	if err := first.prepare(ctx, throughputEndpoints, false, false); err != nil {
		return err
	}
	st := &stream{
		sender: s.gateway.sender(), events: first.spread(throughputEndpoints).padded(smallPad), workers: 8, batch: batchSize, fan: 1,
		total: max(s.sizes.parked/20, 1000),
	}
	if err := st.run(ctx, ctx); err != nil {
		return err
	}
	_, _, err := first.settle(ctx, st.accepted.Load())
	return err
}

// parkMany parks all, and says what it took.
func (s *stage) parkMany(ctx context.Context, lanes *indexReader) (values, error) {
	deliver := s.gateway.role("deliver")
	before, err := weigh(ctx, deliver)
	if err != nil {
		return nil, err
	}
	from, start := lanes.count(), time.Now()
	st := &stream{
		sender: s.gateway.sender(), events: s.spread(1).padded(smallPad), workers: 8, batch: batchSize, fan: 1, total: s.sizes.parked,
	}
	if err := st.run(ctx, ctx); err != nil {
		return nil, err
	}
	if err := s.awaitParked(ctx, st.accepted.Load()); err != nil {
		return nil, err
	}
	took := time.Since(start)
	if err := wait(ctx, 2*time.Second); err != nil { // the last flush, and what it merges
		return nil, err
	}
	used, err := deliver.child.usage()
	if err != nil {
		return nil, err
	}
	after, err := weigh(ctx, deliver)
	wrote := lanes.count().minus(from)
	s.detail = map[string]index{"parking": wrote}
	return values{
		keyParked: float64(st.accepted.Load()), keyRate: float64(st.accepted.Load()) / took.Seconds(),
		keyBefore: megabytes(before.rss), keyRSS: megabytes(used.rss), keyRest: megabytes(after.rss), keyRSSGrowth: megabytes(after.rss - before.rss),
		keyHeapGrowth: megabytes(after.heap - before.heap), keyIndexRecords: float64(wrote.records()), keyIndexMB: megabytes(wrote.Bytes),
	}, err
}

func (s *stage) awaitParked(ctx context.Context, want int64) error {
	var parked float64
	moved := time.Now()
	return poll(ctx, 20*time.Minute, func() (bool, error) {
		m, err := s.gateway.metrics(ctx)
		if err = errors.Join(err, s.gateway.ended()); err != nil {
			return false, err
		}
		if m[metricParked] > parked {
			parked, moved = m[metricParked], time.Now()
		}
		if time.Since(moved) > settlePatience {
			return false, fmt.Errorf("only %.0f of %d records are parked", parked, want)
		}
		return parked >= float64(want), nil
	})
}

// drainMany resumes the endpoint and counts what the drain writes, for two
// minutes at most; then it pauses it again, and checks that no record is missing.
func (s *stage) drainMany(ctx context.Context, lanes *indexReader, id string, out values) error {
	api, want := s.gateway.api(), int64(out[keyParked])
	from, start := lanes.count(), time.Now()
	if err := api.verb(ctx, s.tenant(), id, "resume"); err != nil {
		return err
	}
	var c counts
	err := poll(ctx, 2*drainWindow, func() (_ bool, err error) {
		if c, err = s.sink.counts(ctx, s.id); err != nil {
			return false, err
		}
		return c.Distinct >= want || time.Since(start) > drainWindow, s.gateway.ended()
	})
	if err != nil {
		return err
	}
	took, wrote := time.Since(start), lanes.count().minus(from)
	out[keyDrain], out[keyDrained], out[keyDrainTime] = float64(c.Distinct)/took.Seconds(), float64(c.Distinct), took.Seconds()
	begun := math.Ceil(took.Minutes())
	out[keyRewrites], out[keyTombstones] = float64(wrote.Chunks)/begun, float64(wrote.Tombstones)/took.Minutes()
	s.detail.(map[string]index)["draining"] = wrote //nolint:forcetypeassert // parkMany made it
	if err := api.verb(ctx, s.tenant(), id, "pause"); err != nil {
		return err
	}
	var parked int64
	err = poll(ctx, settlePatience, func() (bool, error) {
		m, err := s.gateway.metrics(ctx)
		if err != nil {
			return false, err
		}
		c, err = s.sink.counts(ctx, s.id)
		parked = int64(m[metricParked])
		return parked+c.Distinct == want && m[metricInFlight] == 0, err
	})
	if err != nil {
		return fmt.Errorf("%d delivered and %d parked of %d: %w", c.Distinct, parked, want, err)
	}
	out[keyRepeats] = float64(c.Received - c.Distinct)
	return nil
}
