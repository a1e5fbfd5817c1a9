package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// How long a partition of ours may deliver nothing before the worker is not ready.
const (
	takeOverLimit = 30 * time.Second
	commitLimit   = 15 * time.Second
)

// maxTold is how many partitions one answer names.
const maxTold = 3

// standstill returns why partitions of ours deliver nothing: their take-over goes
// on and on, or the group has not taken a commit for so long that there is no lease.
func (w *Worker) standstill(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	var still []*home
	for _, h := range w.homes {
		if h.still(now) {
			still = append(still, h)
		}
	}
	slices.SortFunc(still, func(a, b *home) int { return cmp.Compare(a.partition, b.partition) })
	var errs []error
	for i, h := range still {
		if i == maxTold {
			errs = append(errs, fmt.Errorf("and %d more", len(still)-i))
			break
		}
		errs = append(errs, h.describe(now))
	}
	return errors.Join(errs...)
}

// still reports whether a home should deliver and can't.
func (h *home) still(now time.Time) bool {
	switch h.phase {
	case phaseLoading:
		return now.Sub(h.assignedAt) > takeOverLimit
	case phaseReady:
		return now.Sub(h.committedAt) > commitLimit
	default:
		return false
	}
}

// failed notes why a take-over failed.
func (w *Worker) failed(h *home, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h.failure = err
}

func (h *home) describe(now time.Time) error {
	what, since := "is being taken over for", h.assignedAt
	if h.phase == phaseReady {
		what, since = "has no accepted commit for", h.committedAt
	}
	text := fmt.Sprintf("partition %d %s %s", h.partition, what, now.Sub(since).Round(time.Second))
	if h.failure == nil {
		return errors.New(text)
	}
	return fmt.Errorf("%s: %w", text, h.failure)
}
