package deliver

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/postrider/postrider/internal/backoff"
)

// reclaimAfter is how long a worker waits before it takes a partition over again
// that the group still gives it, while another worker wrote owner. Either one of
// the two learns meanwhile that the group has given it away.
const reclaimAfter = 3 * time.Second

// assigned makes a home of each partition that the group gives us. Fetching is
// paused until the home has taken over what its last owner left.
func (w *Worker) assigned(_ context.Context, cl *kgo.Client, parts map[string][]int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopping {
		return
	}
	for _, p := range parts[w.topics.Deliveries] {
		if old := w.homes[p]; old != nil {
			w.closeHome(old)
		}
		w.assignments++
		w.assignment[p] = w.assignments
		w.settleIn(p) //nolint:contextcheck // a home lives longer than the callback
	}
	cl.PauseFetchPartitions(parts) // last: closing a home resumes its partition
}

// settleIn makes a home of a partition and starts its take-over.
func (w *Worker) settleIn(partition int32) *home {
	h := newHome(w.life, partition)
	w.homes[partition] = h
	w.tasks.Go(func() { w.inhabit(h) })
	return h
}

// offsetsFetched hands each home the offset and the number that the coordinator
// holds for it.
func (w *Worker) offsetsFetched(_ context.Context, _ *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				w.handOffset(p.Partition, p.Offset, p.Metadata)
			}
		}
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			w.handOffset(p.Partition, p.Offset, p.Metadata)
		}
	}
	return nil
}

func (w *Worker) handOffset(partition int32, offset int64, metadata *string) {
	h := w.homes[partition]
	if h == nil || h.phase != phaseLoading {
		return
	}
	text := ""
	if metadata != nil {
		text = *metadata
	}
	select {
	case h.commit <- newCommitted(offset, text):
	default:
	}
}

// overtaken gives a home up because another worker wrote owner. Where the group
// still gives us the partition, as when the other one was asleep and wrote late,
// it is taken over again: else it would have no owner at all.
func (w *Worker) overtaken(h *home) {
	w.closeHome(h)
	if serial, ok := w.assignment[h.partition]; ok && !w.stopping {
		w.tasks.Go(func() { w.reclaim(h.partition, serial, nil) })
	}
}

// reclaim takes a partition over again after a while; lost says where its log was cut
// off, nil if it was not.
func (w *Worker) reclaim(partition int32, serial int, lost *kgo.ErrDataLoss) {
	for {
		backoff.Pause(w.life, reclaimAfter)
		if !w.reclaimable(partition, serial) {
			return
		}
		from, err := w.fetchCommit(partition)
		if err != nil {
			w.log.Warn("take over partition again", "partition", partition, "error", err)
			continue
		}
		if lost != nil {
			from.wasCut, from.cutAt, from.offset = true, lost.ResetTo, min(from.offset, lost.ResetTo)
		}
		w.mu.Lock()
		if w.reclaimableLocked(partition, serial) {
			w.pauseFetching(partition)
			h := w.settleIn(partition)
			h.rewind = true
			h.commit <- from
		}
		w.mu.Unlock()
		return
	}
}

func (w *Worker) reclaimable(partition int32, serial int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reclaimableLocked(partition, serial)
}

func (w *Worker) reclaimableLocked(partition int32, serial int) bool {
	return !w.stopping && w.life.Err() == nil && w.assignment[partition] == serial && w.homes[partition] == nil
}

// fetchCommit reads what the group has committed for a partition.
func (w *Worker) fetchCommit(partition int32) (committed, error) {
	ctx, cancel := context.WithTimeout(w.life, 10*time.Second)
	defer cancel()
	offsets, err := kadm.NewClient(w.producer).FetchOffsets(kadm.RequireStable(ctx), w.deps.Broker.Group(group))
	if err != nil {
		return committed{}, fmt.Errorf("read commits: %w", err)
	}
	o, ok := offsets.Lookup(w.topics.Deliveries, partition)
	if !ok || o.Err != nil {
		return committed{}, fmt.Errorf("read the commit of %s/%d: found %t: %w", w.topics.Deliveries, partition, ok, o.Err)
	}
	return newCommitted(o.At, o.Metadata), nil
}

// revoked stops the homes that go to another worker: nothing more is started,
// what is under way finishes within the drain time, then the last commit tells
// the next owner where to go on.
func (w *Worker) revoked(ctx context.Context, _ *kgo.Client, parts map[string][]int32) {
	w.mu.Lock()
	var homes []*home
	for _, p := range parts[w.topics.Deliveries] {
		delete(w.assignment, p)
		if h := w.homes[p]; h != nil {
			homes = append(homes, h)
		}
	}
	w.mu.Unlock()
	if len(homes) > 0 {
		w.drainHomes(ctx, homes)
	}
}

// lost gives homes up at once: they may have another owner already.
func (w *Worker) lost(ctx context.Context, _ *kgo.Client, parts map[string][]int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range parts[w.topics.Deliveries] {
		delete(w.assignment, p)
		if h := w.homes[p]; h != nil {
			w.log.WarnContext(ctx, "partition lost", "partition", p)
			w.closeHome(h)
		}
	}
}

// drainAll stops every home, for the end of the worker.
func (w *Worker) drainAll() {
	w.mu.Lock()
	w.stopping = true
	homes := make([]*home, 0, len(w.homes))
	for _, h := range w.homes {
		homes = append(homes, h)
	}
	w.mu.Unlock()
	w.drainHomes(w.life, homes)
}

// drainHomes lets the homes' attempts finish and their outcomes be written,
// within the drain time, commits, and closes the homes.
func (w *Worker) drainHomes(ctx context.Context, homes []*home) {
	until := time.Now().Add(w.cfg.Drain)
	wake := time.AfterFunc(time.Until(until)+time.Millisecond, w.wakeWaiting)
	defer wake.Stop()
	defer context.AfterFunc(ctx, w.wakeWaiting)()
	w.mu.Lock()
	for _, h := range homes {
		if h.phase == phaseReady {
			for l := range w.queued {
				if l.home == h {
					w.parkQueue(l)
				}
			}
			h.phase = phaseDraining
		}
	}
	w.flushAll(homes)
	for _, h := range homes {
		for h.busy() && time.Now().Before(until) && ctx.Err() == nil {
			w.settled.Wait()
		}
	}
	w.mu.Unlock()
	w.commit(context.WithoutCancel(ctx), homes)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range homes {
		w.closeHome(h)
	}
}

// wakeWaiting has those look again who wait for attempts or outcomes.
func (w *Worker) wakeWaiting() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settled.Broadcast()
}

// busy reports whether a home that drains has something on its way.
func (h *home) busy() bool {
	return h.phase == phaseDraining && (h.inflight > 0 || h.unwritten > 0 || h.flushing())
}

// flushing reports whether parked offsets are on their way into chunks.
func (h *home) flushing() bool {
	for _, l := range h.lanes {
		if l.flushing > 0 {
			return true
		}
	}
	return false
}

// closeHome forgets a home. Attempts under way finish on their own; what they
// report is ignored. The caller holds the lock.
func (w *Worker) closeHome(h *home) {
	if h.phase == phaseClosed {
		return
	}
	h.phase = phaseClosed
	h.cancel()
	if w.homes[h.partition] == h {
		delete(w.homes, h.partition)
	}
	w.unwritten -= h.unwritten
	for e := range w.running {
		if e.lane.home == h {
			e.lost = true
		}
	}
	for _, l := range h.lanes {
		w.forget(l)
	}
	w.resumeFetching(h.partition) // a pause outlives an assignment
	w.unfollow(h.partition)
	w.settled.Broadcast()
}

// forget takes a lane out of every list of the worker.
func (w *Worker) forget(l *lane) {
	w.slots.withdraw(l)
	w.freed(l.queue.bytes + l.drained.bytes)
	delete(w.queued, l)
	delete(w.pending, l)
	delete(w.unreported, l)
	delete(w.ending, l)
	delete(l.home.unseen, l)
	w.alarms.drop(l)
	delete(w.behind, l)
}
