package deliver

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

// followLanes reads what others write to lanes of the owned partitions: a
// higher owner, at which we stop at once, and cancels.
func (w *Worker) followLanes(ctx context.Context) error {
	beat := w.beat("deliver.follow", 30*time.Second)
	defer beat.Stop()
	for {
		beat.Tick()
		poll, cancel := context.WithTimeout(ctx, 5*time.Second)
		fetches := w.tailer.PollFetches(poll)
		cancel()
		if ctx.Err() != nil || fetches.IsClientClosed() {
			return nil
		}
		fetches.EachError(func(_ string, partition int32, err error) {
			if !errors.Is(err, context.DeadlineExceeded) && !kerr.IsRetriable(err) {
				w.log.WarnContext(ctx, "follow lanes", "partition", partition, "error", err)
			}
		})
		w.mu.Lock()
		fetches.EachRecord(w.followed)
		w.mu.Unlock()
	}
}

// followed takes up one record of lanes behind our owner record.
func (w *Worker) followed(r *kgo.Record) {
	h := w.homes[r.Partition]
	if h == nil || h.phase == phaseLoading || r.Offset <= h.epoch {
		return
	}
	switch kind, endpoint, delivery := laneKind(string(r.Key)); kind {
	case kindOwner:
		w.log.Warn("partition has another owner", "partition", h.partition, "epoch", h.epoch, "newer", r.Offset)
		w.overtaken(h)
	case kindCancel:
		if r.Value == nil {
			h.cancels.remove(endpoint, delivery)
			return
		}
		w.cancelAsked(h, endpoint, delivery, r.Timestamp)
	case kindChunk, kindReady, kindState: // only an owner writes these
	}
}

// cancelWaiting ends a delivery that waits in memory; a parked or scheduled one
// ends when it is met.
func (w *Worker) cancelWaiting(h *home, endpoint, delivery string) {
	for shard := range w.shards {
		if l := h.lanes[schemas.LaneName(endpoint, shard)]; l != nil {
			w.cancelInLane(l, delivery)
		}
	}
}

func (w *Worker) cancelInLane(l *lane, delivery string) {
	now := time.Now()
	if l.order != nil {
		w.cancelHead(l, delivery)
	}
	for _, f := range []*fifo{&l.queue, &l.drained} {
		keep := f.items[f.head:]
		f.items, f.head, f.bytes = nil, 0, 0
		for _, e := range keep {
			if e.delivery.ID == delivery && w.over(e, now) {
				w.freed(e.size())
				continue
			}
			f.push(e)
		}
	}
	if l.queue.len() == 0 {
		delete(w.queued, l)
	}
	w.resume(l, now) // what was read ahead may all be gone
}

// cancelHead ends a delivery that failed and keeps its place in an ordered lane, so
// that its key need not wait for the retry.
func (w *Worker) cancelHead(l *lane, delivery string) {
	for _, one := range l.order.lines {
		if one.delivery == delivery {
			w.cancelIfAsked(l, one)
			return
		}
	}
}

// cancelIfAsked ends the head of a line if it is parked and was cancelled, maybe
// while it was in flight or on its way into a chunk.
func (w *Worker) cancelIfAsked(l *lane, one *line) {
	if one.delivery == "" || one.place != headWanted && one.place != headWaiting {
		return
	}
	if !l.home.cancels.has(l.endpoint, one.delivery) {
		return
	}
	l.order.take(one)
	n := one.head()
	e := w.unread(l, n.chunk, n.index, n.offset)
	e.line, e.delivery.ID, e.delivery.Attempt, e.asked = one, one.delivery, one.retry.attempt, true
	w.end(e, schemas.OutcomeCancelled, endedByHand)
}
