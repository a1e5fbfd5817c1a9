package deliver

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/schemas"
)

// visit looks through a chunk of a lane without order for records that are too
// old, whatever the lane's state. Retries come back among younger records, so a chunk
// is read as a whole; when each of its records was made is known from then on, and
// only those that have grown too old are read again.
type visit struct {
	chunk *chunk
	index int // of the record to look at next
}

// maxAge is how old a delivery of the lane may be, 0 where that is not known. An
// endpoint that can't be used has the worker's own limit.
func (w *Worker) maxAge(l *lane) time.Duration {
	switch {
	case l.know.target != nil:
		return l.know.target.maxAge
	case l.know.broken:
		return w.cfg.MaxAge
	}
	return 0
}

// visitOld has the parked records of lanes visited that may be older than the
// endpoint allows, whatever the lane's state.
func (w *Worker) visitOld(now time.Time) {
	for _, h := range w.homes {
		if h.phase != phaseReady {
			continue
		}
		for _, l := range h.lanes {
			age := w.maxAge(l)
			switch {
			case age <= 0 || len(l.chunks) == 0 || h.visits[l] != nil:
			case l.order == nil:
				if v := w.visitAfter(l, -1, now.Add(-age)); v != nil {
					h.visits[l] = v
					h.wake(l)
				}
			case now.UnixMilli()-l.chunks[0].madeAt > age.Milliseconds():
				// The lowest head stands for all: what waits behind it can't end before it.
				l.expiring = true
				w.look(l, now)
				l.order.oldest()
				h.wake(l)
			}
		}
	}
}

// visitAfter begins with the first unread chunk whose first offset is behind after
// and that has a record made before a time, nil where there is none.
func (w *Worker) visitAfter(l *lane, after int64, before time.Time) *visit {
	for _, c := range l.chunks[min(l.draining, len(l.chunks)):] {
		if c.first > after && c.madeAt < before.UnixMilli() {
			w.openChunk(l, c)
			if c.made == nil {
				c.made = make([]uint32, len(c.offsets))
			}
			return &visit{chunk: c}
		}
	}
	return nil
}

// visitNext returns the next offset that the visit of a lane wants to have read.
func (w *Worker) visitNext(l *lane, now time.Time) (offset int64, ok bool) {
	for v := l.home.visits[l]; v != nil; v = l.home.visits[l] {
		age := w.maxAge(l)
		if age <= 0 || l.order != nil {
			delete(l.home.visits, l)
			break
		}
		before := now.Add(-age)
		if v.seek(before) {
			return v.chunk.offsets[v.index], true
		}
		w.endVisit(l, v.chunk)
		if next := w.visitAfter(l, v.chunk.first, before); next != nil {
			l.home.visits[l] = next
		} else {
			delete(l.home.visits, l)
		}
	}
	return 0, false
}

// seek moves on to the next record that waits and was made before a time, or of which
// that is not known, and reports whether there is one.
func (v *visit) seek(before time.Time) bool {
	c := v.chunk
	for ; v.index < len(c.offsets); v.index++ {
		if made := int64(c.made[v.index]); !c.spoken(v.index) && (made == 0 || 1000*made < before.UnixMilli()) {
			return true
		}
	}
	return false
}

// endVisit notes when the oldest record was made that a chunk still has, and closes
// the chunk where nothing was taken out.
func (w *Worker) endVisit(l *lane, c *chunk) {
	lowest, known, whole := int64(math.MaxInt64), true, true
	for i, made := range c.made {
		if c.spoken(i) {
			whole = false
		}
		switch {
		case c.isFinished(i):
		case made == 0: // read ahead, or in flight: it may come back
			known = false
		default:
			lowest = min(lowest, 1000*int64(made))
		}
	}
	if known {
		c.madeAt = lowest
	}
	reading := l.draining < len(l.chunks) && l.chunks[l.draining] == c
	if whole && !reading && c.changes == 0 && !c.writing {
		c.close()
		delete(l.home.opened, c)
	}
}

// serveVisit gives a lane's visit the records that it wants out of a slice of the
// log.
func (w *Worker) serveVisit(l *lane, from int64, s broker.Slice, now time.Time) {
	for {
		next, ok := w.visitNext(l, now)
		if !ok || next < from || next >= s.Next {
			return
		}
		at, found := slices.BinarySearchFunc(s.Records, next, func(r *kgo.Record, offset int64) int {
			return cmp.Compare(r.Offset, offset)
		})
		switch {
		case found:
			w.visitRecord(l, s.Records[at], now)
		case from == next:
			w.loseVisited(l)
		default:
			return // a final outcome rests on a read of that very offset
		}
	}
}

// visitRecord ends a parked record that is over, and notes of another when it
// was made.
func (w *Worker) visitRecord(l *lane, r *kgo.Record, now time.Time) {
	v := l.home.visits[l]
	c, i := v.chunk, v.index
	v.index++
	d, err := schemas.DecodeDelivery(r.Key, r.Value, r.Headers)
	if err != nil {
		c.made[i] = math.MaxUint32 // it is rejected when it is drained
		return
	}
	l.know.need = max(l.know.need, d.Registry+1)
	switch l.condition(now, w.tailNext) {
	case conditionLoading:
		w.wantKnowledge(l)
		delete(l.home.visits, l)
		return
	case conditionDeleted: // all of it ends
		delete(l.home.visits, l)
		return
	case conditionActive, conditionPaused, conditionDisabled, conditionHeld, conditionOpen, conditionBroken:
	}
	if again, ok := c.retries[i]; ok {
		d.Attempt = again.attempt
	}
	e := w.unread(l, c, i, r.Offset)
	e.delivery, e.appended, e.received = d, r.Timestamp, now
	if now.Sub(d.MadeAt) <= w.maxAge(l) {
		// Rounded up, so that it is not read before it is too old.
		c.made[i] = uint32(min(max((d.MadeAt.UnixMilli()+999)/1000, 1), math.MaxUint32))
		return
	}
	c.take(i)
	e.delivery.Event.Data = bytes.Clone(d.Event.Data)
	w.over(e, now)
}

// loseVisited ends the record that a visit is at: its payload is gone.
func (w *Worker) loseVisited(l *lane) {
	v := l.home.visits[l]
	c, i := v.chunk, v.index
	v.index++
	c.take(i)
	w.lose(l, node{c.offsets[i], c, i}, nil)
}
