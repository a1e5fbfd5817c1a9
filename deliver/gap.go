package deliver

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
)

// takeUp takes up what was polled of a partition. A marker of a transaction is nothing
// to deliver, but the commit must not stay below it: were the log emptied later, it
// would be below its start, and look like a loss.
func (w *Worker) takeUp(ctx context.Context, partition int32, polled []*kgo.Record) {
	if len(polled) == 0 {
		return
	}
	records := slices.DeleteFunc(slices.Clone(polled), func(r *kgo.Record) bool { return r.Attrs.IsControl() })
	w.receive(ctx, partition, records)
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.homes[partition]
	if h == nil || h.phase != phaseReady {
		return
	}
	if h.begun = h.begun || polled[0].Offset == h.tracker.watermark(); h.begun {
		last := polled[len(polled)-1]
		h.tracker.jump(last.Offset+1, last.LeaderEpoch)
	}
}

// outOfRange deals with a home whose log does not have what is to be read next. Where
// the log begins above that, the home goes on at its start. Where it ends below, the
// home tries again with each commit.
func (w *Worker) outOfRange(ctx context.Context, partition int32) {
	h, at := w.position(partition)
	if h == nil {
		return
	}
	gap, err := broker.FindGap(ctx, w.producer, w.topics.Deliveries, partition, at)
	switch {
	case err != nil:
		w.log.WarnContext(ctx, "find the log", "topic", w.topics.Deliveries, "partition", partition, "error", err)
		w.strand(h)
	case gap == nil:
	default:
		w.losses.Tell(ctx, w.log, w.topics.Deliveries, partition, gap)
		if !gap.Deleted() || !w.skip(h, gap.Start) {
			w.strand(h)
			return
		}
		w.meters.lose(ctx, gap.Start-at)
		w.fetchFrom(partition, gap.Start) // without the lock: callbacks of the group take it
	}
}

// strand stops fetching a home until the next commit.
func (w *Worker) strand(h *home) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.phase == phaseReady {
		h.astray = true
		w.pauseFetching(h.partition)
	}
}

// skip sets a home to the start of its log, and reports whether it could.
func (w *Worker) skip(h *home, start int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.phase != phaseReady || !h.tracker.jump(start, -1) {
		return false
	}
	maps.DeleteFunc(h.known, func(o int64, _ bool) bool { return o < start })
	maps.DeleteFunc(h.failed, func(o int64, _ retry) bool { return o < start })
	h.begun = true // what comes next lies behind the gap
	w.see(h, start)
	w.commitSoon()
	return true
}

// position returns the home of a partition that is ready, and which offset it reads
// next. A partition without one is not fetched until it has one.
func (w *Worker) position(partition int32) (*home, int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.homes[partition]
	if h == nil || h.phase != phaseReady {
		w.pauseFetching(partition)
		return nil, 0
	}
	return h, h.tracker.next
}

// cutOff deals with a log whose end was cut off below what was read. Other records
// have the offsets from there on, or will have them, so nothing that is known of
// these counts: the home is taken over again, from the cut or the commit below it.
func (w *Worker) cutOff(ctx context.Context, lost *kgo.ErrDataLoss) {
	w.losses.Tell(ctx, w.log, w.topics.Deliveries, lost.Partition, fmt.Errorf("truncated: %w", lost))
	w.mu.Lock()
	defer w.mu.Unlock()
	h, serial := w.homes[lost.Partition], w.assignment[lost.Partition]
	if h == nil || h.phase == phaseDraining {
		return // whoever owns it next is told, too
	}
	w.closeHome(h)
	w.pauseFetching(lost.Partition)
	w.tasks.Go(func() { w.reclaim(lost.Partition, serial, lost) }) //nolint:contextcheck // outlives the poll
}
