package deliver

import (
	"encoding/binary"
	"math"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

// deliveryKey names one delivery: its id, and the position of its event. (An event
// that its producer sends again much later, or an operator resubmits, is a
// delivery of the same id.)
type deliveryKey [16]byte

// keyOf returns the key under which a delivery is remembered. Ids are hashes, so
// the position may be folded into them.
func keyOf(delivery string, p schemas.Position) deliveryKey {
	key := deliveryKey(schemas.IDBytes(delivery))
	for i, part := range []uint64{uint64(p.Partition), uint64(p.Offset)} { //nolint:gosec // as bits
		at := key[8*i : 8*i+8]
		binary.BigEndian.PutUint64(at, binary.BigEndian.Uint64(at)^part)
	}
	return key
}

// met is the highest attempt of a delivery of which a record was met, and the
// offset of that record.
type met struct {
	offset  int64
	attempt int
}

// metEnd is what was met of a delivery that ended: no further record of it counts.
func metEnd() met { return met{offset: -1, attempt: math.MaxInt} }

// precludes reports whether a record of an attempt is a copy: another record of the
// same attempt was met, or one of a later attempt, which was written because this
// one had been made.
func (m met) precludes(offset int64, attempt int) bool {
	return offset != m.offset && attempt <= m.attempt
}

// doubt is a delivery with an attempt that an earlier owner may have made, too:
// that owner's retry may come any time until (Unix seconds).
type doubt struct {
	met
	until int64
}

// copies remembers the deliveries whose records came in the last minutes, so that
// copies of these are dropped. It is for second and later attempts: the record of a first
// one is made by fan-out's transaction and exists once. Two generations
// of at most half the capacity each bound its memory. Doubts stay as long as
// they matter; beyond their own capacity they are remembered as the others are.
type copies struct {
	capacity  int
	young     map[deliveryKey]met
	old       map[deliveryKey]met
	rotatedAt int64
	doubts    map[deliveryKey]doubt
}

const (
	// copiesKeep is, in seconds, how long a delivery is remembered at least while the
	// capacity is not reached.
	copiesKeep = 600
	// copiesCapacity bounds the deliveries that a home remembers, doubtsCapacity those
	// that it remembers longer.
	copiesCapacity = 1 << 18
	doubtsCapacity = 1 << 16
)

func newCopies(capacity int) *copies {
	return &copies{
		capacity: capacity, young: map[deliveryKey]met{}, old: map[deliveryKey]met{}, doubts: map[deliveryKey]doubt{},
	}
}

// of returns what was met of a delivery.
func (c *copies) of(key deliveryKey) (met, bool) {
	if d, ok := c.doubts[key]; ok {
		return d.met, true
	}
	if m, ok := c.young[key]; ok {
		return m, true
	}
	m, ok := c.old[key]
	return m, ok
}

// meet takes up a record of a delivery and reports whether it is a copy. now is in
// Unix seconds.
func (c *copies) meet(key deliveryKey, m met, now int64) (isCopy bool) {
	if last, ok := c.of(key); ok && last.precludes(m.offset, m.attempt) {
		return true
	}
	c.note(key, m, now)
	return false
}

// note remembers what was met of a delivery, if it is more than before.
func (c *copies) note(key deliveryKey, m met, now int64) {
	last, ok := c.of(key)
	if ok && last.attempt >= m.attempt {
		return
	}
	if d, ok := c.doubts[key]; ok {
		d.met = m
		c.doubts[key] = d
		return
	}
	if c.rotatedAt == 0 {
		c.rotatedAt = now
	}
	if now-c.rotatedAt >= copiesKeep || len(c.young) >= c.capacity/2 {
		c.old, c.young, c.rotatedAt = c.young, map[deliveryKey]met{}, now
	}
	c.young[key] = m
}

// doubt remembers what was met of a delivery until a time.
func (c *copies) doubt(key deliveryKey, d doubt, now int64) {
	last, ok := c.of(key)
	if ok && last.attempt > d.attempt {
		d.met = last
	}
	before, doubted := c.doubts[key]
	if !doubted && len(c.doubts) >= doubtsCapacity {
		c.note(key, d.met, now)
		return
	}
	d.until = max(d.until, before.until)
	c.doubts[key] = d
}

// end remembers that a delivery ended of which something was met.
func (c *copies) end(key deliveryKey, now int64) {
	if _, ok := c.of(key); ok {
		c.note(key, metEnd(), now)
	}
}

// tidy forgets the doubts that are settled.
func (c *copies) tidy(now int64) {
	for key, d := range c.doubts {
		if d.until < now {
			delete(c.doubts, key)
		}
	}
}

// headerDoubt stands in a record of attempts whose attempt an owner before may have
// made, too: until when that one's retry may come.
const headerDoubt = "pr_doubt"

// recall takes up an outcome that an owner before has written.
func (c *copies) recall(a *schemas.Attempt, r *kgo.Record, now int64) {
	var until int64
	for _, h := range r.Headers {
		if h.Key == headerDoubt {
			until, _ = strconv.ParseInt(string(h.Value), 10, 64)
		}
	}
	if a.Delivery == "" || a.Outcome == schemas.OutcomeRepeat || a.Attempt < 2 && until == 0 {
		return
	}
	key, m := keyOf(a.Delivery, a.Position), met{a.Offset, a.Attempt}
	if a.Outcome.Final() {
		m = metEnd()
	}
	if until > now {
		c.doubt(key, doubt{m, until}, now)
		return
	}
	c.note(key, m, now)
}

// inherited is for how long after a take-over a record may be appended that the owner
// before attempts, too: within its lease, and for clocks that differ.
const inheritedFor = 10 * time.Second

// inherits reports whether an owner before may have attempted the entry's record.
func (h *home) inherits(e *entry) bool {
	return e.delivery.ID != "" && e.appended.Before(h.openedAt.Add(inheritedFor))
}

// isCopy reports whether the entry's record is a copy, and remembers it otherwise.
func (h *home) isCopy(e *entry, now time.Time) bool {
	d := &e.delivery
	switch {
	case d.Attempt > 1:
		return h.copies.meet(keyOf(d.ID, d.Position), met{e.offset, d.Attempt}, now.Unix())
	case h.inherits(e):
		last, ok := h.copies.of(keyOf(d.ID, d.Position))
		return ok && last.precludes(e.offset, d.Attempt)
	}
	return false
}
