package deliver

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Times of the lease: attempts start only within leaseTime of sending the last
// commit that the coordinator accepted.
const (
	commitEvery   = time.Second
	commitTimeout = 1500 * time.Millisecond
	leaseTime     = 2 * time.Second
)

// commitLoop commits each second, also when nothing moved: the accepted commit
// is what the lease rests on.
func (w *Worker) commitLoop(ctx context.Context) error {
	beat := w.beat("deliver.commit", 15*time.Second)
	defer beat.Stop()
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	for {
		beat.Tick()
		w.commit(ctx, nil)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-w.commits:
		}
	}
}

// commitSoon has the commit loop commit at once. The caller holds the lock.
func (w *Worker) commitSoon() {
	select {
	case w.commits <- struct{}{}:
	default:
	}
}

// commit commits the watermarks of the given homes (nil: of all that are ready)
// and renews the lease of those that the coordinator accepted. One commit is
// under way at a time.
func (w *Worker) commit(ctx context.Context, only []*home) {
	w.committing.Lock()
	defer w.committing.Unlock()
	offsets, marks, homes := w.watermarks(only)
	if len(homes) == 0 {
		return
	}
	sent := time.Now()
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		for i := range req.Topics {
			for j := range req.Topics[i].Partitions {
				p := &req.Topics[i].Partitions[j]
				text := marks[p.Partition].metadata()
				p.Metadata = &text
			}
		}
		return nil
	})
	w.consumer.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{w.topics.Deliveries: offsets},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
			if err != nil {
				w.log.WarnContext(ctx, "commit", "error", err)
				w.mu.Lock()
				for _, h := range homes {
					h.failure = err
				}
				w.mu.Unlock()
				return
			}
			w.renew(homes, resp, sent) //nolint:contextcheck // attempts outlive who starts them
		})
}

// watermarks collects what to commit: per partition the watermark with its
// leader epoch, and what goes with it.
func (w *Worker) watermarks(only []*home) (map[int32]kgo.EpochOffset, map[int32]committed, map[int32]*home) {
	w.mu.Lock()
	defer w.mu.Unlock()
	offsets, marks, homes := map[int32]kgo.EpochOffset{}, map[int32]committed{}, map[int32]*home{}
	add := func(h *home) {
		at := h.tracker.watermark()
		offsets[h.partition] = kgo.EpochOffset{Epoch: h.tracker.leaderEpoch(), Offset: at}
		marks[h.partition] = committed{offset: at, attempts: h.completions.settle(at, h.attemptsNext), epoch: h.epoch}
		homes[h.partition] = h
	}
	if only != nil {
		for _, h := range only {
			if h.tracker != nil && h.phase != phaseClosed {
				add(h)
			}
		}
		return offsets, marks, homes
	}
	for _, h := range w.homes {
		if h.phase == phaseReady {
			add(h)
		}
	}
	return offsets, marks, homes
}

// renew extends the lease of the homes whose commit was accepted and has them
// start what waited for it.
func (w *Worker) renew(homes map[int32]*home, resp *kmsg.OffsetCommitResponse, sent time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			h := homes[p.Partition]
			if h == nil || h.phase != phaseReady {
				continue
			}
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				w.log.Warn("commit refused", "partition", p.Partition, "error", err)
				h.failure = err
				continue
			}
			h.lease, h.committedAt, h.failure = sent.Add(leaseTime), now, nil
			w.goOn(h, now)
		}
	}
	w.pump()
}

// goOn has a home with a fresh lease do what waited for it.
func (w *Worker) goOn(h *home, now time.Time) {
	if litter := h.litter; litter != nil {
		h.litter = nil
		w.tasks.Go(func() { w.clean(h, litter) })
	}
	if h.paused && h.tracker.room(h.tracker.next+trackerWindow/2) {
		h.paused = false
		w.resumeFetching(h.partition)
	}
	if h.astray {
		if h.astray = false; !h.paused {
			w.resumeFetching(h.partition)
		}
	}
	if h.stalled {
		h.stalled = false
		for _, l := range h.lanes {
			w.offer(l, now)
		}
	}
}
