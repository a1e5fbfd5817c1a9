package deliver

import (
	"slices"
	"time"

	"github.com/postrider/postrider/schemas"
)

// cancelLane ends what a deleted endpoint still has: one attempts record for each
// record in memory or in a chunk that was opened, one for each other chunk. Where
// that is more than may be on its way at once, it goes on when there is room.
func (w *Worker) cancelLane(l *lane) {
	w.slots.withdraw(l)
	delete(w.queued, l)
	if l.order != nil {
		l.order.forget(func(n node) { n.chunk.release(n.index) })
	}
	w.mend(l)
	w.unhold(l, time.Now())
	w.saveState(l, time.Now())
	if w.cancelFifo(&l.queue) && w.cancelFifo(&l.drained) && w.cancelParked(l) {
		delete(w.ending, l)
		return
	}
	w.ending[l] = struct{}{}
}

// cancelFurther goes on with lanes of deleted endpoints, now that there is room for
// further outcomes.
func (w *Worker) cancelFurther(now time.Time) {
	for l := range w.ending {
		if w.unwritten >= w.maxUnwritten() {
			return
		}
		delete(w.ending, l)
		if l.home.phase == phaseReady {
			w.resumeOrEnd(l, now)
		}
	}
}

// cancelFifo ends records that wait in memory, and reports whether it ended all.
func (w *Worker) cancelFifo(f *fifo) bool {
	for f.len() > 0 {
		if w.unwritten >= w.maxUnwritten() {
			return false
		}
		e := f.pop()
		w.freed(e.size())
		w.end(e, schemas.OutcomeCancelled, endedDeleted)
	}
	return true
}

// cancelParked ends parked records, and reports whether it ended all.
func (w *Worker) cancelParked(l *lane) bool {
	for i, c := range l.chunks {
		if l.order == nil && i < l.draining {
			continue // read, and under way
		}
		if w.unwritten >= w.maxUnwritten() {
			return false
		}
		if c.offsets == nil && !c.writing && l.alone(i) {
			w.cancelChunk(l, c)
		} else if !w.cancelEach(l, c) {
			return false
		}
	}
	if l.order == nil {
		l.draining, l.cursor = len(l.chunks), 0
	}
	return true
}

// alone reports whether no other offset of the lane lies between those of a chunk:
// else its record of attempts, which names a range, would stand for that one, too.
func (l *lane) alone(i int) bool {
	c := l.chunks[i]
	among := func(other *chunk) bool { return other.first <= c.last && other.last >= c.first }
	return !slices.ContainsFunc(l.chunks[:i], among) && (i+1 == len(l.chunks) || !among(l.chunks[i+1])) &&
		!slices.ContainsFunc(l.aloft, among) && (len(l.pending) == 0 || l.pendingLow > c.last)
}

// cancelEach ends the records of a chunk one by one, and reports whether it ended all.
func (w *Worker) cancelEach(l *lane, c *chunk) bool {
	w.openChunk(l, c)
	for i, offset := range c.offsets {
		if c.spoken(i) {
			continue
		}
		if w.unwritten >= w.maxUnwritten() {
			return false
		}
		c.take(i)
		w.end(w.unread(l, c, i, offset), schemas.OutcomeCancelled, endedDeleted)
	}
	return true
}

// cancelChunk ends a whole chunk with one record of attempts that says how many
// and which offsets it stands for.
func (w *Worker) cancelChunk(l *lane, c *chunk) {
	w.openChunk(l, c)
	e := w.unread(l, c, 0, c.first)
	now := time.Now()
	a := newAttempt(e, &verdict{outcome: schemas.OutcomeCancelled, class: endedDeleted}, now)
	a.Count, a.First, a.Last = int64(c.count), c.first, c.last
	for i := range c.offsets {
		c.take(i)
	}
	e.whole = true // finished when the record is acknowledged, not before
	w.write(e, a.encode(), nil, now)
}
