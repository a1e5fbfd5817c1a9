// Package backoff waits between the tries of a loop.
//
// In: a context and how long. Out: whether the wait ended by itself. A wait never
// outlives its context.
package backoff

import (
	"context"
	"time"
)

// Backoff is a wait that doubles from First up to Limit. It belongs to one
// goroutine.
type Backoff struct {
	First, Limit time.Duration
	last         time.Duration // 0: none yet
}

// Wait pauses for the next step, and reports false if ctx ended before it did.
func (b *Backoff) Wait(ctx context.Context) bool { return Pause(ctx, b.Next()) }

// Next returns the next step, for those that wait for something else, too.
func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, b.First), b.Limit)
	return b.last
}

// Reset makes the next wait the first step again.
func (b *Backoff) Reset() { b.last = 0 }

// Full reports whether the last wait was the longest one.
func (b *Backoff) Full() bool { return b.last >= b.Limit }

// Pause waits for d, and reports false if ctx ended before.
func Pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
