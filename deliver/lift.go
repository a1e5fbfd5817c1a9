package deliver

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/backoff"
	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/schemas"
)

// liftBytes is how much one read of parked records fetches.
const liftBytes = 1 << 20

// lift reads the parked records of a home: from the lowest offset that a lane
// with room needs it reads forward and serves every lane it passes; where the
// next need is beyond what was read, it jumps.
func (w *Worker) lift(h *home) {
	for {
		if !w.waitWritten(h.ctx) {
			if h.ctx.Err() != nil {
				return
			}
			continue
		}
		offset, ok := w.lowestNeed(h)
		if !ok {
			select {
			case <-h.ctx.Done():
				return
			case <-h.lift:
			}
			continue
		}
		s, err := w.reader.Read(h.ctx, w.topics.Deliveries, h.partition, offset, liftBytes)
		switch {
		case h.ctx.Err() != nil:
			return
		case errors.Is(err, kerr.OffsetOutOfRange) && s.LogStart > offset:
			w.loseBelow(h, s.LogStart)
		case err != nil:
			w.log.Warn("read parked records", "partition", h.partition, "offset", offset, "error", err)
			backoff.Pause(h.ctx, time.Second)
		case s.Next <= offset: // a new leader that does not know its end yet
			backoff.Pause(h.ctx, 50*time.Millisecond)
		default:
			w.serve(h, offset, s)
		}
	}
}

// wants reports whether the lane wants parked records read now: it may start
// some and holds less than half of what it likes to hold ahead, or some have
// grown too old.
func (w *Worker) wants(l *lane, now time.Time) bool {
	if w.look(l, now); !l.unread() {
		return false
	}
	if l.expiring {
		return true
	}
	if l.condition(now, w.tailNext) != conditionActive {
		return false
	}
	if l.breaker.isOpen() { // one probe
		return l.drained.len() == 0 && l.inflight == 0
	}
	if l.drained.len() == 0 {
		return true
	}
	records, bytes := l.room()
	return records >= l.drained.len() && bytes >= prefetchBytes/2 && w.waiting < 2*w.cfg.MaxWaiting
}

// lowestNeed returns the lowest offset that a lane wants. Lanes that want
// nothing any more leave the list until they are woken again; while memory is
// full they all wait until some is freed.
func (w *Worker) lowestNeed(h *home) (offset int64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.phase != phaseReady {
		return 0, false
	}
	now := time.Now()
	for l := range h.reading {
		visited, visiting := w.visitNext(l, now)
		if visiting && (!ok || visited < offset) {
			offset, ok = visited, true
		}
		if w.full() && !l.expiring {
			continue
		}
		if !w.wants(l, now) {
			if !visiting {
				delete(h.reading, l)
			}
			continue
		}
		if next := w.nextParked(l); !ok || next < offset {
			offset, ok = next, true
		}
	}
	return offset, ok
}

// nextParked returns the next offset to read of a lane that has one, and opens
// its chunk.
func (w *Worker) nextParked(l *lane) int64 {
	if l.order != nil {
		return l.nextLine().head().offset
	}
	return w.openNext(l).offsets[l.cursor]
}

// nextLine returns the line of an ordered lane whose head is read next; it has one.
// Probes take turns: one head that fails whatever the endpoint's health must not
// keep all others from showing how that is.
func (l *lane) nextLine() *line {
	l.order.takeTurns(l.breaker.isOpen() && !l.expiring)
	return l.order.next()
}

// openNext opens the chunk at the lane's cursor.
func (w *Worker) openNext(l *lane) *chunk {
	c := l.chunks[l.draining]
	w.openChunk(l, c)
	return c
}

func (w *Worker) openChunk(l *lane, c *chunk) {
	if c.offsets == nil {
		c.open()
		l.home.opened[c] = l
	}
}

// advance moves the lane's cursor behind the offset just read.
func (l *lane) advance() {
	if l.cursor++; l.cursor >= len(l.chunks[l.draining].offsets) {
		l.draining, l.cursor = l.draining+1, 0
	}
}

// takeNext takes the next record to be read, and returns where it is parked; false
// where that record needs no reading any more.
func (w *Worker) takeNext(l *lane) (at node, of *line, ok bool) {
	if l.order != nil {
		of = l.nextLine()
		l.order.take(of)
		return *of.head(), of, true
	}
	c, i := w.openNext(l), l.cursor
	l.advance()
	if c.spoken(i) {
		return node{}, nil, false
	}
	c.take(i)
	return node{c.offsets[i], c, i}, nil, true
}

// look has an ordered lane look at its parked records, as far as its bounds allow:
// each goes to the line of its key, and heads that are due are wanted.
func (w *Worker) look(l *lane, now time.Time) {
	if l.order == nil {
		return
	}
	bound := l.lowest()
	for !l.order.allSeen && !l.order.full() {
		c, until := l.nextChunk()
		if c == nil {
			l.order.allSeen = true
			break
		}
		if w.lookInto(l, c, min(bound, until), now); c.cursor < c.count && c.next() >= bound {
			l.home.unseen[l] = struct{}{}
			break
		}
	}
	if len(l.home.cancels.of[l.endpoint]) > 0 {
		l.order.seek()
	}
	if next := l.order.ripen(now); !next.IsZero() {
		w.alarms.set(l, next)
	}
}

// lookInto has an ordered lane look at a chunk's records below an offset.
func (w *Worker) lookInto(l *lane, c *chunk, bound int64, now time.Time) {
	w.openChunk(l, c)
	for ; c.cursor < c.count && c.offsets[c.cursor] < bound && !l.order.full(); c.cursor++ {
		if i := c.cursor; !c.spoken(i) {
			c.take(i)
			l.order.add(c.key(i), node{c.offsets[i], c, i}, c.retries[i], now)
		}
	}
}

// nextChunk returns the chunk with the lowest record that an ordered lane has not
// looked at, nil where there is none, and the offset from which on another chunk
// comes first: chunks may overlap. It passes over the first chunks that were looked
// at as a whole: a key that waits for long may have one for each of its records.
func (l *lane) nextChunk() (lowest *chunk, until int64) {
	for l.draining < len(l.chunks) && l.chunks[l.draining].cursor == l.chunks[l.draining].count {
		l.draining++
	}
	until = math.MaxInt64
	for _, c := range l.chunks[l.draining:] {
		switch {
		case c.cursor == c.count:
		case lowest == nil:
			lowest = c
		case c.next() < lowest.next():
			until, lowest = lowest.next(), c
		default:
			until = min(until, c.next())
		}
	}
	return lowest, until
}

// lowest returns the offset from which on the lane must not look at parked records
// yet: a record below them may not have been polled, or is on its way into a
// chunk.
func (l *lane) lowest() int64 {
	bound := l.home.seen
	if len(l.pending) > 0 {
		bound = min(bound, l.pendingLow)
	}
	for _, c := range l.aloft {
		bound = min(bound, c.first)
	}
	return bound
}

// unseen reports whether an ordered lane has records that it has not looked at.
func (l *lane) unseen() bool {
	return len(l.pending) > 0 || l.flushing > 0 || !l.order.allSeen
}

// serve gives the records that were read to the lanes that want them. Records
// holds all committed records of [from, s.Next).
func (w *Worker) serve(h *home, from int64, s broker.Slice) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.phase != phaseReady {
		return
	}
	lanes := maps.Clone(h.reading)
	for _, r := range s.Records {
		if l := h.lanes[string(r.Key)]; l != nil && l.unread() {
			lanes[l] = struct{}{}
		}
	}
	for l := range lanes {
		w.serveLane(l, from, s, now)
		w.offer(l, now)
	}
	w.pump()
}

// serveLane gives a lane its parked records out of a slice of the log. One that
// is not there is gone: only retention or an operator's hand takes a committed
// record away.
func (w *Worker) serveLane(l *lane, from int64, s broker.Slice, now time.Time) {
	w.serveVisit(l, from, s, now)
	for l.unread() && w.wantsMore(l, now) {
		if l.order == nil && w.openNext(l).spoken(l.cursor) {
			l.advance()
			continue
		}
		next := w.nextParked(l)
		if next < from || next >= s.Next {
			return
		}
		at, ok := slices.BinarySearchFunc(s.Records, next, func(r *kgo.Record, offset int64) int {
			return cmp.Compare(r.Offset, offset)
		})
		if !ok && from != next {
			return // a final outcome rests on a read of that very offset
		}
		if !ok {
			w.loseNext(l)
			continue
		}
		if n, of, ok := w.takeNext(l); ok {
			w.drain(l, s.Records[at], n, of, now)
		}
	}
}

// wantsMore reports whether the lane takes a further record; a lane always may
// hold one.
func (w *Worker) wantsMore(l *lane, now time.Time) bool {
	if l.expiring {
		return true
	}
	if l.condition(now, w.tailNext) != conditionActive {
		return false
	}
	if l.drained.len() > 0 && l.breaker.isOpen() && w.waiting > w.cfg.MaxWaiting/2 {
		return false // no choice of probes
	}
	records, bytes := l.room()
	return l.drained.len() == 0 || records > 0 && bytes > 0 && w.waiting < 2*w.cfg.MaxWaiting
}

// drain takes up a parked record that was read; of is its line in an ordered lane.
func (w *Worker) drain(l *lane, r *kgo.Record, n node, of *line, now time.Time) {
	e := w.unread(l, n.chunk, n.index, r.Offset)
	e.line = of
	// A copy: the delivery would keep all that was unpacked with it.
	d, err := schemas.DecodeDelivery(r.Key, bytes.Clone(r.Value), r.Headers)
	if err != nil { // it was readable when it was parked
		w.log.Error("parked record is unreadable", "partition", r.Partition, "offset", r.Offset, "error", err)
		w.end(e, schemas.OutcomeRejected, string(schemas.RejectMalformed))
		return
	}
	if again, ok := n.chunk.retries[n.index]; ok {
		d.Attempt = again.attempt
	}
	if of != nil {
		of.delivery = d.ID
		d.LastTrace, d.FirstAttemptAt = of.trace, of.first
	}
	e.delivery, e.appended, e.received = d, r.Timestamp, now
	if l.tenant == "" {
		l.tenant = d.Event.Tenant
	}
	l.know.need = max(l.know.need, d.Registry+1)
	condition := l.condition(now, w.tailNext)
	switch {
	case l.home.isCopy(e, now):
		w.end(e, schemas.OutcomeRepeat, "")
	case l.home.awaits(e):
	case condition == conditionDeleted:
		w.end(e, schemas.OutcomeCancelled, endedDeleted)
	case condition != conditionLoading && w.past(e, now):
	case condition != conditionActive || of != nil && of.retry.due > now.UnixMilli():
		// Visited for its age and young enough, or matched with a newer registry
		// than is known here: it stays parked.
		if l.expiring && of != nil {
			l.notOlder(of, d.MadeAt.UnixMilli()) // no visit before it is too old
		}
		l.expiring = false
		l.rewind(e)
		if condition == conditionLoading {
			w.wantKnowledge(l)
		}
	default:
		l.expiring = false
		l.drained.push(e)
		w.waiting += e.size()
	}
}

// notOlder notes when the oldest delivery of an ordered lane was made, by the head
// that was visited: all parked records stand behind the lowest one, whichever chunks
// they are in. Below it something may be under way, and come back.
func (l *lane) notOlder(of *line, madeAt int64) {
	if l.order == nil || !l.order.isLowest(of) {
		return
	}
	for _, c := range l.chunks {
		c.madeAt = max(c.madeAt, madeAt)
	}
}

// loseNext ends the next parked record of a lane as lost: its payload is gone.
func (w *Worker) loseNext(l *lane) {
	if n, of, ok := w.takeNext(l); ok {
		w.lose(l, n, of)
	}
}

// lose ends a parked record that was taken and whose payload is gone.
func (w *Worker) lose(l *lane, n node, of *line) {
	w.loseParked(l.home, n.offset)
	e := w.unread(l, n.chunk, n.index, n.offset)
	e.line = of
	w.end(e, schemas.OutcomeLostByRetention, endedLost)
}

// loseBelow ends parked records below the start of the log, as many as may be on
// their way at once. The lift comes here again for the others when they are wanted.
func (w *Worker) loseBelow(h *home, start int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.phase != phaseReady {
		return
	}
	w.see(h, start)
	for _, l := range h.lanes {
		for next, ok := w.visitNext(l, time.Now()); ok && next < start; next, ok = w.visitNext(l, time.Now()) {
			if w.unwritten >= w.maxUnwritten() {
				return
			}
			w.loseVisited(l)
		}
		for l.unread() && w.nextParked(l) < start {
			if w.unwritten >= w.maxUnwritten() {
				return
			}
			w.loseNext(l)
		}
	}
}
