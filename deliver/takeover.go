package deliver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/backoff"
	"github.com/postrider/postrider/schemas"
)

// inhabit takes a home over, again and again until it works or the home is
// lost, and then reads its parked records as long as it is ours.
func (w *Worker) inhabit(h *home) {
	var from committed
	select {
	case <-h.ctx.Done():
		return
	case from = <-h.commit:
	}
	for {
		err := w.takeOver(h, from)
		if err == nil {
			break
		}
		if h.ctx.Err() != nil {
			return
		}
		w.log.Warn("take over partition", "partition", h.partition, "error", err)
		w.failed(h, err)
		backoff.Pause(h.ctx, time.Second)
	}
	w.lift(h)
}

// estate is what the owners before have left for a home.
type estate struct {
	chunks   map[string]*parked // lane → what is parked
	states   map[string]laneState
	cancels  *cancels
	overfull bool     // there are more cancels than the bounds leave room for
	garbage  []string // keys of chunks that no longer count
	finished map[int64]struct{}
	failed   map[int64]retry            // failed and kept their place
	ranges   map[string][]finishedRange // endpoint → chunks that ended as a whole
	log      []completion               // finished records at or above the commit
	next     int64                      // end of attempts
	lanes    map[string]*lane           // of the chunks, rewritten under our epoch
}

// finishedRange says that all parked offsets of an endpoint from first to last
// are finished.
type finishedRange struct{ first, last int64 }

// takeOver makes this worker the owner of a partition (DESIGN.md, hand-over):
// it writes owner, loads what counts, writes it again under its own epoch, then
// ready, and only then polls and starts attempts.
func (w *Worker) takeOver(h *home, from committed) error {
	ctx, cancel := context.WithTimeout(h.ctx, 5*time.Minute)
	defer cancel()
	owner := &kgo.Record{Topic: w.topics.Lanes, Partition: h.partition, Key: []byte(ownerKey), Value: ownerValue(w.cfg.Instance)}
	if err := w.out.ProduceSync(ctx, owner).FirstErr(); err != nil {
		return fmt.Errorf("produce owner: %w", err)
	}
	h.epoch, h.known, h.failed = owner.Offset, map[int64]bool{}, map[int64]retry{}
	s, err := w.loadLanes(ctx, h, from.epoch)
	if err != nil {
		return err
	}
	if err := w.loadAttempts(ctx, h, from, s); err != nil {
		return err
	}
	w.settle(h, from, s)
	if err := w.rewriteChunks(ctx, h, s); err != nil {
		return err
	}
	if h.rewind {
		w.fetchFrom(h.partition, from.offset)
	}
	w.open(ctx, h, from, s)
	return nil
}

// loadLanes reads the partition of lanes up to our owner record and keeps what
// stands under the epoch of the commit; where that names none (-1), under the
// newest ready one.
func (w *Worker) loadLanes(ctx context.Context, h *home, committed int64) (*estate, error) {
	l := newLedger()
	err := w.readAll(ctx, w.topics.Lanes, h.partition, logSpan{0, h.epoch}, func(r *kgo.Record) { l.apply(r) })
	if err != nil {
		return nil, fmt.Errorf("read lanes: %w", err)
	}
	return l.estate(h.epoch, committed)
}

// loadAttempts reads attempts from the commit's number to its end.
func (w *Worker) loadAttempts(ctx context.Context, h *home, from committed, s *estate) error {
	topic := w.topics.Attempts
	end, err := w.bounds.End(ctx, topic, h.partition)
	if err != nil {
		return fmt.Errorf("read the end of attempts: %w", err)
	}
	s.next = end
	recent, err := w.offsetAt(ctx, topic, h.partition, time.Now().Add(-copiesSeed), end)
	if err != nil {
		return err
	}
	start := from.attempts
	if start < 0 {
		if start, err = w.offsetAt(ctx, topic, h.partition, time.Now().Add(-time.Hour), end); err != nil {
			return err
		}
	}
	now := time.Now().Unix()
	return w.readAll(ctx, topic, h.partition, logSpan{min(start, recent), end}, func(r *kgo.Record) {
		a, err := schemas.DecodeAttempt(r.Value)
		if err != nil {
			w.log.ErrorContext(ctx, "attempt record is unreadable", "partition", h.partition, "offset", r.Offset, "error", err)
			return
		}
		h.copies.recall(&a, r, now)
		if r.Offset < start || from.stale(max(a.Offset, a.First)) {
			return
		}
		if a.Count > 0 {
			name := schemas.LaneName(a.Endpoint, a.Shard)
			s.ranges[name] = append(s.ranges[name], finishedRange{a.First, a.Last})
			if a.Last >= from.offset {
				s.log = append(s.log, completion{attempts: r.Offset, offset: a.Last})
			}
			return
		}
		if a.InPlace && a.NextAt != nil {
			s.failed[a.Offset] = retry{attempt: a.Attempt + 1, due: a.NextAt.UnixMilli()}
		} else {
			s.finished[a.Offset] = struct{}{}
		}
		if a.Offset >= from.offset {
			s.log = append(s.log, completion{attempts: r.Offset, offset: a.Offset})
		}
	})
}

// copiesSeed is how far back the attempts are read for copies at least.
const copiesSeed = time.Minute

// offsetAt returns the first offset appended at a time or later, or end.
func (w *Worker) offsetAt(ctx context.Context, topic string, partition int32, at time.Time, end int64) (int64, error) {
	offset, err := w.bounds.After(ctx, topic, partition, at)
	if err != nil || offset >= 0 {
		return offset, err
	}
	return end, nil
}

// logSpan is a stretch of a log: from is in it, end is not.
type logSpan struct{ from, end int64 }

// readAll gives every committed record of a stretch to fn. A start below the
// log's is the log's start.
func (w *Worker) readAll(ctx context.Context, topic string, partition int32, span logSpan, fn func(*kgo.Record)) error {
	end := span.end
	for at := span.from; at < end; {
		s, err := w.reader.Read(ctx, topic, partition, at, 4<<20)
		if errors.Is(err, kerr.OffsetOutOfRange) && s.LogStart > at {
			at = s.LogStart
			continue
		}
		if err != nil {
			return err
		}
		for _, r := range s.Records {
			if r.Offset < end {
				fn(r)
			}
		}
		if s.Next <= at {
			if s.Stable >= end { // nothing but compacted or aborted records is left
				return nil
			}
			backoff.Pause(ctx, 50*time.Millisecond)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		at = s.Next
	}
	return nil
}

// settle takes what is finished out of the chunks, notes what failed since they
// were written, and which records at or above the commit need no attempt, or a
// later one, when they are polled.
func (w *Worker) settle(h *home, from committed, s *estate) {
	for name, p := range s.chunks {
		ranges := s.ranges[name]
		p.keep(func(o int64) bool {
			if _, ok := s.finished[o]; ok || from.stale(o) {
				return false
			}
			parked := !slices.ContainsFunc(ranges, func(r finishedRange) bool { return o >= r.first && o <= r.last })
			if o >= from.offset {
				h.known[o] = parked
			}
			return parked
		})
		if len(p.offsets) == 0 {
			delete(s.chunks, name)
			continue
		}
		for i, o := range p.offsets {
			if again, ok := s.failed[o]; ok {
				p.retry(i, again)
				delete(s.failed, o)
			}
		}
	}
	for o := range s.finished {
		delete(s.failed, o)
		if o >= from.offset {
			h.known[o] = false
		}
	}
	for o, again := range s.failed {
		if o >= from.offset {
			h.failed[o] = again
		}
	}
}

// rewriteChunks writes all that is parked under our own epoch, then ready, then
// the tombstones of what no longer counts. The lanes come to be on the way, but
// nobody sees them yet.
func (w *Worker) rewriteChunks(ctx context.Context, h *home, s *estate) error {
	var records []*kgo.Record
	s.lanes = map[string]*lane{}
	for _, name := range slices.Sorted(maps.Keys(s.chunks)) {
		p := s.chunks[name]
		l := newLane(h, name, p.tenant)
		s.lanes[name] = l
		for _, c := range pack(p, h.nextChunk) {
			l.chunks = append(l.chunks, c)
			records = append(records, w.chunkRecord(l, c, c.body))
		}
	}
	if err := w.out.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("produce chunks: %w", err)
	}
	ready := &kgo.Record{
		Topic: w.topics.Lanes, Partition: h.partition, Key: readyRecordKey(h.epoch), Value: ownerValue(w.cfg.Instance),
	}
	if err := w.out.ProduceSync(ctx, ready).FirstErr(); err != nil {
		return fmt.Errorf("produce ready: %w", err)
	}
	return nil
}

// litter is what the owners before have left in lanes: the keys of what no longer
// counts, and whether cancels had to be dropped.
type litter struct {
	keys     []string
	overfull bool
}

// clean writes the tombstones of what no longer counts, once a commit of ours is
// accepted: until then a successor goes by the chunks of who committed last. What
// it can't write is garbage for the next owner.
func (w *Worker) clean(h *home, litter *litter) {
	for keys := range slices.Chunk(litter.keys, 1000) {
		records := make([]*kgo.Record, len(keys))
		for i, key := range keys {
			records[i] = &kgo.Record{Topic: w.topics.Lanes, Partition: h.partition, Key: []byte(key)}
		}
		if err := w.out.ProduceSync(h.ctx, records...).FirstErr(); err != nil {
			if h.ctx.Err() == nil {
				w.log.Warn("clean up lanes", "partition", h.partition, "error", err)
			}
			return
		}
	}
	if !litter.overfull {
		return
	}
	if err := w.dropCancels(h); err != nil && h.ctx.Err() == nil {
		w.log.Warn("drop cancels", "partition", h.partition, "error", err)
	}
}

// open has the home begin to work.
func (w *Worker) open(ctx context.Context, h *home, from committed, s *estate) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.phase != phaseLoading {
		return
	}
	h.tracker = newTracker(from.offset)
	h.attemptsNext = s.next
	h.seen = from.offset
	h.completions = completionLog{items: s.log}
	h.cancels, h.litter = s.cancels, &litter{s.garbage, s.overfull}
	h.cancels.slack = 1
	for _, l := range s.lanes {
		w.enter(h, l)
		l.know.since, l.touched = w.tailNext, uptime(now)
	}
	for name, state := range s.states {
		w.restore(h, name, state, now)
	}
	h.phase, h.openedAt, h.committedAt, h.failure = phaseReady, now, now, nil
	for _, l := range h.lanes {
		if len(l.chunks) > 0 {
			w.wantKnowledge(l)
			h.wake(l)
		}
	}
	w.followFrom(h.partition, h.epoch+1)
	w.resumeFetching(h.partition)
	w.log.DebugContext(ctx, "partition taken over", "partition", h.partition, "epoch", h.epoch,
		"offset", from.offset, "attempts_from", from.attempts, "parked_lanes", len(h.lanes), "finished", len(s.finished))
	w.commitSoon()
}
