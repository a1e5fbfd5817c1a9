package fanout

import (
	"context"
	"time"
)

// backoff is a wait that doubles up to a limit. It belongs to one goroutine.
type backoff struct {
	first, limit, next time.Duration
}

func newBackoff(first, limit time.Duration) *backoff {
	return &backoff{first: first, limit: limit, next: first}
}

// wait sleeps for the next step, or until ctx ends.
func (b *backoff) wait(ctx context.Context) {
	timer := time.NewTimer(b.next)
	defer timer.Stop()
	b.next = min(2*b.next, b.limit)
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// reset begins again at the first step.
func (b *backoff) reset() { b.next = b.first }
