package deliver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/backoff"
	"github.com/postrider/postrider/internal/broker"
)

// lossEnds is how a loss stops failing readiness.
const lossEnds = "look at what is gone (docs/operations.md), then restart this process"

// losses are the records that Kafka lost before they were delivered, as far as this
// process met it. They fail readiness for as long as it lives: it goes on working.
type losses struct {
	mu    sync.Mutex
	texts map[string]string // by what was lost, at most two for each partition
}

// note takes the place of what was noted under the key before.
func (l *losses) note(key, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.texts == nil {
		l.texts = map[string]string{}
	}
	l.texts[key] = text
}

// err names the losses, a few of many.
func (l *losses) err() error {
	const shown = 5
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.texts) == 0 {
		return nil
	}
	keys := slices.Sorted(maps.Keys(l.texts))
	var out []string
	for _, key := range keys[:min(len(keys), shown)] {
		out = append(out, l.texts[key])
	}
	if more := len(keys) - len(out); more > 0 {
		out = append(out, fmt.Sprintf("and %d more", more))
	}
	return errors.New(strings.Join(append(out, lossEnds), "; "))
}

// lostRecords handles a partition of which Kafka lost records. What retention deleted
// before it was read is skipped, and the rest is delivered. A log that was cut at
// its end begins again at offsets that attempts and chunks name already, so nothing
// more of it is taken up, here or by another owner.
func (w *Worker) lostRecords(ctx context.Context, partition int32, cause error) {
	start, err := broker.StartOffset(ctx, w.producer, w.topics.Deliveries, partition)
	var end int64
	if err == nil {
		end, err = w.bounds.End(ctx, w.topics.Deliveries, partition)
	}
	if err != nil {
		w.log.WarnContext(ctx, "find what is lost", "partition", partition, "error", err)
		backoff.Pause(ctx, time.Second)
		return // the consumer tells of it again
	}
	loss, truncated := errors.AsType[*kgo.ErrDataLoss](cause)
	if truncated {
		end = loss.ResetTo // others may have written since
	}
	from, found := w.step(partition, start, end, truncated)
	at := fmt.Sprintf("%s/%d", w.topics.Deliveries, partition)
	switch found {
	case gapAbove:
		w.losses.note(at, fmt.Sprintf("%s: Kafka lost records at the end of its log, which is at offset %d, where %d was read; the partition stands still until its offset is set", at, end, from))
		w.log.ErrorContext(ctx, "records lost by truncation", "partition", partition, "offset", from, "end", end, "error", cause)
		w.pauseFetching(partition)
	case gapBelow:
		w.meters.lose(ctx, start-from)
		w.losses.note(at, fmt.Sprintf("%s: offsets %d to %d were deleted before they were read (lost_by_retention); it went on at %d", at, from, start-1, start))
		w.log.ErrorContext(ctx, "records lost by retention", "partition", partition, "first_offset", from, "last_offset", start-1)
		w.fetchFrom(partition, start)
	case gapWaits:
		backoff.Pause(ctx, 100*time.Millisecond)
	default:
	}
}

// gap says what a partition lacks.
type gap int

const (
	noGap    gap = iota
	gapBelow     // what was next is below the log's start
	gapAbove     // what was next is above the log's end
	gapWaits     // gapBelow, too wide for what is still under way
)

// step has a home go on at the log's start, or hold still, and returns where it was.
func (w *Worker) step(partition int32, start, end int64, truncated bool) (from int64, found gap) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.homes[partition]
	if h == nil || h.phase != phaseReady || h.held {
		return 0, noGap
	}
	switch from = h.seen; {
	case truncated, from > end:
		h.held = true
		return from, gapAbove
	case from >= start:
		return from, noGap // it moved on since
	case h.tracker.open > 0 && !h.tracker.room(start):
		return from, gapWaits
	}
	h.begun = true // what comes next lies behind the gap
	h.tracker.skip(start)
	maps.DeleteFunc(h.known, func(o int64, _ bool) bool { return o < start })
	w.see(h, start)
	return from, gapBelow
}

// loseParked notes a parked record whose payload is gone. The caller holds the lock.
func (w *Worker) loseParked(h *home, offset int64) {
	if h.lostParked == 0 {
		h.firstLost = offset
	}
	h.lostParked++
	h.firstLost, h.lastLost = min(h.firstLost, offset), max(h.lastLost, offset)
	w.meters.lose(h.ctx, 1)
	at := fmt.Sprintf("%s/%d", w.topics.Deliveries, h.partition)
	w.losses.note(at+" parked", fmt.Sprintf("%s: %d parked records between offsets %d and %d were deleted before they were delivered (lost_by_retention); attempts has one record for each",
		at, h.lostParked, h.firstLost, h.lastLost))
}

// isLoss reports whether an error of the consumer tells of lost records.
func isLoss(err error) bool {
	_, truncated := errors.AsType[*kgo.ErrDataLoss](err)
	return truncated || errors.Is(err, kerr.OffsetOutOfRange)
}
