package deliver

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// rewriteAfter is how often a chunk that is partly finished is written again
// without what is finished.
const rewriteAfter = time.Minute

// park leaves a record in the log and notes its offset; a flush makes it durable.
// The caller holds the lock.
func (w *Worker) park(l *lane, e *entry) {
	if len(l.pending) == 0 {
		l.pendingSince, l.pendingFrom, l.pendingLow = e.appended.UnixMilli(), uptime(time.Now()), e.offset
		w.pending[l] = struct{}{}
	}
	l.pendingLow = min(l.pendingLow, e.offset)
	if l.ranks(e) {
		l.order.loosen(e.line)
	}
	// Where the lane's order is not known yet, the key is kept.
	l.pending = append(l.pending, parkedRecord{
		offset: e.offset, key: orderKey(e.delivery.Event.PartitionKey), keyed: !l.unordered(), retry: e.stays,
		made: max(e.delivery.MadeAt.UnixMilli(), 0),
	})
	w.meters.park(w.life)
}

// freed takes bytes off what waits in memory. Readers that had to wait for room
// go on when there is some.
func (w *Worker) freed(bytes int) {
	full := w.full()
	w.waiting -= bytes
	if full && !w.full() {
		for _, h := range w.homes {
			h.poke()
		}
	}
}

// full reports whether not even one more record for each lane may be read.
func (w *Worker) full() bool { return w.waiting >= 4*w.cfg.MaxWaiting }

// parkQueue parks all records that wait in memory, so that the lane's order
// stays that of the log.
func (w *Worker) parkQueue(l *lane) {
	for e := l.queue.pop(); e != nil; e = l.queue.pop() {
		w.freed(e.size())
		w.park(l, e)
	}
	delete(w.queued, l)
	w.slots.withdraw(l)
}

// dropDrained forgets the parked records that were read ahead; they are read
// again when the lane wants them.
func (w *Worker) dropDrained(l *lane) {
	for e := l.drained.pop(); e != nil; e = l.drained.pop() {
		w.freed(e.size())
		l.rewind(e)
	}
	w.slots.withdraw(l)
}

// flush writes the offsets that were parked, one chunk or more for each lane
// whose time has come. Once a chunk is acknowledged its records are handled: the
// watermark may pass them.
func (w *Worker) flush(now time.Time) {
	for l := range w.pending {
		if len(l.pending) >= chunkSize || uptime(now)-l.pendingFrom >= l.flushDelay() {
			w.flushLane(l)
		}
	}
}

// flushAll writes all that is parked in homes that are given up.
func (w *Worker) flushAll(homes []*home) {
	for l := range w.pending {
		if slices.Contains(homes, l.home) {
			w.flushLane(l)
		}
	}
}

// flushDelay is how long a lane's parked offsets wait for company: longer where
// many chunks are parked already, so that a slow stream of records does not make
// a chunk each 250 ms. A lane that has nothing else to read, or an order, can't
// wait for that.
func (l *lane) flushDelay() time.Duration {
	if l.order != nil || !l.unread() {
		return 0
	}
	return min(flushEvery<<min(len(l.chunks), 8), flushLatest) - flushEvery/2
}

func (w *Worker) flushLane(l *lane) {
	delete(w.pending, l)
	p := inOrder(l.tenant, l.pendingSince, l.pending)
	if l.unordered() {
		p.unkey()
	}
	l.pending = nil
	for at, c := range pack(p, l.home.nextChunk) {
		w.writeChunk(l, c, p.part(at*chunkSize, at*chunkSize+c.count))
	}
}

func (w *Worker) writeChunk(l *lane, c *chunk, p *parked) {
	h := l.home
	l.flushing += c.count
	l.aloft = append(l.aloft, c)
	w.produce(h, w.chunkRecord(l, c, c.body), func(*kgo.Record) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if h.phase == phaseClosed {
			return
		}
		l.flushing -= c.count
		l.aloft = slices.DeleteFunc(l.aloft, func(other *chunk) bool { return other == c })
		for _, offset := range p.offsets {
			h.tracker.finish(offset)
		}
		l.insert(c)
		w.settleHeads(l, c, p)
		w.resumeOrEnd(l, time.Now())
		w.merge(l)
		w.settled.Broadcast()
	})
}

// settleHeads notes for the heads of an ordered lane that have gone into a chunk
// where they are.
func (w *Worker) settleHeads(l *lane, c *chunk, p *parked) {
	if l.order == nil || p.keys == nil {
		return
	}
	now := time.Now()
	for i, key := range p.keys {
		if !l.order.settle(key, node{p.offsets[i], c, i}, now) {
			continue
		}
		c.open()
		c.take(i)
		l.home.opened[c] = l
		w.cancelIfAsked(l, l.order.lines[key])
	}
}

// insert adds a chunk behind those with lower offsets. Flushes of one lane are
// acknowledged in order, so that is the end, but for what was merged.
func (l *lane) insert(c *chunk) {
	i := len(l.chunks)
	for i > 0 && l.chunks[i-1].first > c.first {
		i--
	}
	l.chunks = slices.Insert(l.chunks, i, c)
	if l.order != nil {
		l.order.allSeen, l.draining = false, min(l.draining, i)
		return
	}
	if i < l.draining || i == l.draining && l.cursor > 0 {
		l.draining, l.cursor = i, 0 // what was read behind it is passed over
	}
}

// chunkRecord returns a chunk's record; a nil body is its tombstone.
func (w *Worker) chunkRecord(l *lane, c *chunk, body []byte) *kgo.Record {
	return &kgo.Record{
		Topic: w.topics.Lanes, Partition: l.home.partition,
		Key: chunkKey(l.name, l.home.epoch, c.number), Value: body,
	}
}

// dropChunk writes the tombstone of a chunk of which everything is finished.
func (w *Worker) dropChunk(l *lane, c *chunk) {
	if c.writing {
		return // a rewrite is on its way; its acknowledgement comes back here
	}
	h := l.home
	c.writing = true
	delete(h.opened, c)
	if i := slices.Index(l.chunks, c); i >= 0 {
		l.chunks = slices.Delete(l.chunks, i, i+1)
		if i < l.draining {
			l.draining--
		} else if i == l.draining {
			l.cursor = 0
		}
	}
	w.produce(h, w.chunkRecord(l, c, nil), func(*kgo.Record) {
		w.mu.Lock()
		defer w.mu.Unlock()
		c.gone = true
	})
}

// rewrite writes the chunks being drained again, without what is finished, so
// that the completion log need not reach further back than a minute.
func (w *Worker) rewrite(h *home) {
	for c, l := range h.opened {
		if c.writing || c.changes == c.safe || c.done == len(c.offsets) {
			continue
		}
		changes := c.changes
		c.writing = true
		w.produce(h, w.chunkRecord(l, c, encodeChunk(c.left(l.tenant))), func(*kgo.Record) {
			w.mu.Lock()
			defer w.mu.Unlock()
			c.writing, c.safe = false, changes
			if h.phase != phaseClosed && c.done == len(c.offsets) {
				w.dropChunk(l, c)
			}
		})
	}
}

// merge joins a lane's small chunks that nobody reads yet into full ones. The
// new chunks are acknowledged before the old ones are dropped; should both be
// found, an offset counts once.
func (w *Worker) merge(l *lane) {
	start := l.draining
	if l.cursor > 0 {
		start++
	}
	var small []*chunk
	for _, c := range l.chunks[min(start, len(l.chunks)):] {
		if c.count < chunkSize/2 && !c.writing && c.offsets == nil {
			small = append(small, c)
		}
	}
	if len(small) <= mergeAbove {
		return
	}
	for _, run := range adjacent(l.chunks, small) {
		w.mergeRun(l, run)
	}
}

// adjacent splits the chosen chunks into runs that stand side by side.
func adjacent(all, chosen []*chunk) [][]*chunk {
	var runs [][]*chunk
	last := -2
	for i, c := range all {
		if len(chosen) == 0 || c != chosen[0] {
			continue
		}
		chosen = chosen[1:]
		if i == last+1 {
			runs[len(runs)-1] = append(runs[len(runs)-1], c)
		} else {
			runs = append(runs, []*chunk{c})
		}
		last = i
	}
	return runs
}

func (w *Worker) mergeRun(l *lane, run []*chunk) {
	if len(run) < 2 {
		return
	}
	h := l.home
	parts := make([]*parked, len(run))
	for i, c := range run {
		part, _ := decodeChunk(c.body) // our own encoding
		parts[i] = &part
		c.writing = true
	}
	all := gather(parts)
	if l.unordered() {
		all.unkey()
	}
	merged := pack(all, h.nextChunk)
	left := len(merged)
	for _, c := range merged {
		w.produce(h, w.chunkRecord(l, c, c.body), func(*kgo.Record) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if left--; left > 0 || h.phase == phaseClosed {
				return
			}
			w.replace(l, run, merged)
		})
	}
}

// replace puts merged chunks in the place of the ones they were made of. Chunks
// that were opened meanwhile stay: then the merged ones are dropped instead.
func (w *Worker) replace(l *lane, run, merged []*chunk) {
	at := slices.Index(l.chunks, run[0])
	used := slices.ContainsFunc(run, func(c *chunk) bool { return c.offsets != nil })
	if used || at < 0 || at+len(run) > len(l.chunks) {
		w.supersede(l, merged, run)
		return
	}
	for _, c := range merged {
		c.writing = true
	}
	l.chunks = slices.Replace(l.chunks, at, at+len(run), merged...)
	w.supersede(l, run, merged)
	l.home.wake(l)
}

// supersede writes the tombstones of chunks whose offsets stand in others, too.
// Until they are acknowledged nothing is taken out of the others: what was
// finished there would come back from the old ones.
func (w *Worker) supersede(l *lane, old, kept []*chunk) {
	left := len(old)
	for _, c := range old {
		w.produce(l.home, w.chunkRecord(l, c, nil), func(*kgo.Record) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if left--; left > 0 || l.home.phase == phaseClosed {
				return
			}
			for _, k := range kept {
				k.writing = false
				if k.offsets != nil && k.done == len(k.offsets) {
					w.dropChunk(l, k)
				}
			}
		})
	}
}
