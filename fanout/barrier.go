package fanout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postrider/postrider/internal/backoff"
	"github.com/postrider/postrider/internal/registry"
)

// loadChunk is how many tenants are loaded by one call, a bound for memory: each may
// have registry.MaxBytes.
const loadChunk = 4

// batchWeight is what the tenants of one batch may weigh together, as a multiple of
// what may be kept of all. Beyond that the batch is polled again in smaller parts.
const batchWeight = 2

// errBehind says that the view does not have all of the registry yet.
var errBehind = errors.New("the registry's view is behind or incomplete")

// barrier makes sure that a batch is matched against a view that has everything
// the registry held when the batch was polled.
type barrier struct {
	view  view
	cache *tenantCache
	// end returns the last stable offset of the registry.
	end func(ctx context.Context) (int64, error)
	// waiting is called before each wait with its reason.
	waiting func(reason error)
	// beat is called before each tenant that is compiled.
	beat func()
}

// judged is a tenant and the newest registry offset that its state takes into
// account.
type judged struct {
	*tenant
	registry int64
}

// pass returns the named tenants once the view has caught up. It waits as long as
// it takes; it returns an error when ctx ends, and errTooCostly if the tenants are too
// many to be held in memory at once.
func (b *barrier) pass(ctx context.Context, names []string) (map[string]judged, error) {
	found := make(map[string]judged, len(names))
	if len(names) == 0 {
		return found, nil
	}
	end, versions, err := b.begin(ctx, names)
	pause := &backoff.Backoff{First: time.Millisecond, Limit: 50 * time.Millisecond}
	for {
		if err == nil {
			names, err = b.resolve(ctx, end, names, versions, found)
		}
		if err == nil && len(names) == 0 {
			return found, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if errors.Is(err, errTooCostly) {
			return nil, err
		}
		if err == nil {
			err = fmt.Errorf("%w: offset %d of the registry is awaited", errBehind, end)
		} else {
			pause.Limit = time.Second // Redis or Kafka is away
		}
		b.waiting(err)
		pause.Wait(ctx)
		if end < 0 {
			end, versions, err = b.begin(ctx, names)
		} else {
			versions, err = b.view.Versions(ctx, names)
		}
	}
}

// begin asks for the registry's end and the tenants' versions at the same time.
// The end is -1 if it could not be had.
func (b *barrier) begin(ctx context.Context, names []string) (int64, []registry.Version, error) {
	end, endErr := int64(-1), error(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if end, endErr = b.end(ctx); endErr != nil {
			end = -1
		}
	}()
	versions, err := b.view.Versions(ctx, names)
	<-done
	if err != nil {
		err = fmt.Errorf("read view: %w", err)
	}
	if endErr != nil {
		endErr = fmt.Errorf("read the registry's end: %w", endErr)
	}
	return end, versions, errors.Join(err, endErr)
}

// resolve enters the tenants whose version has passed the barrier into found,
// loading those that changed, and returns the names that have to be asked again.
func (b *barrier) resolve(ctx context.Context, end int64, names []string, versions []registry.Version, found map[string]judged) ([]string, error) {
	var behind, changed []string
	for i, name := range names {
		v := versions[i]
		if !v.Reached(end) {
			behind = append(behind, name)
			continue
		}
		if t, ok := b.cache.lookup(name, v); ok {
			found[name] = judged{t, v.Next - 1}
			continue
		}
		changed = append(changed, name)
	}
	for len(changed) > 0 {
		n := min(len(changed), loadChunk)
		snaps, err := b.view.Load(ctx, changed[:n])
		if err != nil {
			return append(behind, changed...), fmt.Errorf("load view: %w", err)
		}
		for _, snap := range snaps {
			if !snap.Reached(end) {
				behind = append(behind, snap.Tenant) // void: the view was rebuilt meanwhile
				continue
			}
			b.beat() // a large one takes a while to compile
			found[snap.Tenant] = judged{b.cache.store(snap), snap.Next - 1}
		}
		changed = changed[n:]
		if b.tooHeavy(found) {
			return nil, errTooCostly
		}
	}
	return behind, nil
}

// tooHeavy reports whether several tenants together take too much memory. One alone
// is let through: the registry bounds it.
func (b *barrier) tooHeavy(found map[string]judged) bool {
	weight := 0
	for _, t := range found {
		weight += t.weight
	}
	return weight > batchWeight*b.cache.limit && len(found) > 1
}
