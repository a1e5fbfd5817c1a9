package telemetry

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// check is a readiness check that runs at most once at a time, so that one that
// hangs costs one goroutine and not one per probe.
type check struct {
	name string
	test func(context.Context) error

	mu      sync.Mutex
	running *checkRun
}

type checkRun struct {
	done chan struct{}
	err  error // valid once done is closed
}

// begin returns the run that is under way, else starts one. Nobody owns a run:
// its deadline ends it, and a probe that gave up leaves it to the next.
func (c *check) begin(ctx context.Context) *checkRun {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		c.running = &checkRun{done: make(chan struct{})}
		go c.run(context.WithoutCancel(ctx), c.running)
	}
	return c.running
}

func (c *check) run(ctx context.Context, run *checkRun) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			run.err = fmt.Errorf("check panicked: %v", p)
		}
		c.mu.Lock()
		c.running = nil
		c.mu.Unlock()
		close(run.done)
	}()
	run.err = c.test(ctx)
}

func (r *checkRun) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return r.err
	default:
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("no answer yet: %w", ctx.Err())
	}
}

// Beat is the sign of life of one loop.
type Beat struct {
	name   string
	limit  time.Duration
	health *Health
	start  time.Time
	last   atomic.Int64 // nanoseconds from start to the last tick, monotonic
}

// Tick says that the loop is going round. It is cheap enough for every round
// and does nothing on a nil Beat.
func (b *Beat) Tick() {
	if b != nil {
		b.last.Store(int64(time.Since(b.start)))
	}
}

// Stop ends the watch: the loop ended on purpose. It does nothing on a nil
// Beat, or when another loop has taken the name since.
func (b *Beat) Stop() {
	if b == nil {
		return
	}
	b.health.mu.Lock()
	defer b.health.mu.Unlock()
	b.health.beats = slices.DeleteFunc(b.health.beats, func(other *Beat) bool { return other == b })
}

// late returns an error if the last tick is longer ago than allowed.
func (b *Beat) late(allowed time.Duration) error {
	silent := time.Since(b.start) - time.Duration(b.last.Load())
	if silent <= allowed {
		return nil
	}
	return fmt.Errorf("loop %s has not ticked for %s, its limit is %s", b.name, silent.Round(time.Millisecond), b.limit)
}
