package deliver

import (
	"context"
	"time"

	"github.com/postrider/postrider/schemas"
)

// phase is where a home stands in its life.
type phase int

const (
	phaseLoading phase = iota // taking over: nothing is polled or started yet
	phaseReady
	phaseDraining // revoked or stopping: nothing more is started
	phaseClosed   // given up: late acknowledgements are ignored
)

// home is one assignment of one partition of deliveries to this worker, with
// the lanes of its endpoints. Fields are guarded by the worker's lock unless
// noted otherwise.
type home struct {
	partition int32
	phase     phase
	ctx       context.Context //nolint:containedctx // the assignment's life, ended by cancel
	cancel    context.CancelFunc
	commit    chan committed // the offset that the group had committed; capacity 1

	epoch    int64 // offset of our owner record in lanes
	openedAt time.Time
	rewind   bool // the consumer must be set back to the commit
	begun    bool // the first records are known to be those behind the commit
	tracker  *tracker
	// seen is behind the last record that was polled. What the owner before had in
	// flight is below the records that it had parked, and polled again: until
	// then these must not be looked at where order counts. Lanes that wait for
	// that are in unseen.
	seen   int64
	unseen map[*lane]struct{}
	lanes  map[string]*lane
	copies *offsets
	// known are offsets at or above the commit that need no attempt: finished
	// (false) or parked in a chunk that was taken over (true).
	known   map[int64]bool
	failed  map[int64]retry          // records at or above the commit that failed and kept their place
	cancels map[string]cancelRequest // by delivery

	completions  completionLog
	attemptsNext int64     // one above the last attempts record known
	lease        time.Time // no attempt starts after
	stalled      bool      // lanes were passed over for want of a lease
	paused       bool      // the tracker's window is full, fetching is paused
	astray       bool      // the log ends below the position: fetching is paused until the next commit
	inflight     int       // attempts under way
	unwritten    int       // outcomes not acknowledged yet, by weight
	chunkNumber  int64
	lift         chan struct{} // wakes the reader of parked records; capacity 1
	reading      map[*lane]struct{}
	opened       map[*chunk]*lane // chunks being drained
	lostParked   int64
}

// committed is what the group's coordinator held for a partition.
type committed struct {
	offset   int64
	attempts int64 // -1: no number in the metadata
	// wasCut says that the log was cut off at cutAt: what is known of offsets from there
	// on is about other records.
	wasCut bool
	cutAt  int64
}

// stale reports whether what is known of an offset is about a record that was cut off.
func (c committed) stale(offset int64) bool { return c.wasCut && offset >= c.cutAt }

// copiesCapacity bounds the attempts that a home remembers.
const copiesCapacity = 1 << 18

func newHome(ctx context.Context, partition int32) *home {
	ctx, cancel := context.WithCancel(ctx)
	return &home{
		partition: partition, ctx: ctx, cancel: cancel, commit: make(chan committed, 1),
		lanes: map[string]*lane{}, copies: newOffsets(copiesCapacity), known: map[int64]bool{}, failed: map[int64]retry{},
		cancels: map[string]cancelRequest{}, lift: make(chan struct{}, 1),
		reading: map[*lane]struct{}{}, unseen: map[*lane]struct{}{}, opened: map[*chunk]*lane{},
	}
}

// nextChunk returns the number of a new chunk.
func (h *home) nextChunk() int64 {
	h.chunkNumber++
	return h.chunkNumber
}

// wake has the reader of parked records look at the lane.
func (h *home) wake(l *lane) {
	h.reading[l] = struct{}{}
	h.poke()
}

// poke has the reader of parked records look for something to read.
func (h *home) poke() {
	select {
	case h.lift <- struct{}{}:
	default:
	}
}

// isCopy reports whether another record of the entry's attempt was met before,
// and remembers the entry's record otherwise.
func (h *home) isCopy(d *schemas.Delivery, offset int64, now time.Time) bool {
	if d.Attempt < 2 {
		return false
	}
	first, ok := h.copies.add(pairOf(d.ID, d.Attempt), offset, now.Unix())
	return !ok && first != offset
}

// completion is an acknowledged record of attempts whose deliveries record
// would be done again if the commit's number were above it.
type completion struct {
	attempts int64  // offset of the record in attempts
	offset   int64  // of the record in deliveries, of several the last
	chunk    *chunk // where it was parked
	sequence int    // of the completion in its chunk
}

// completionLog holds completions in the order of their attempts offsets.
type completionLog struct {
	items []completion
	head  int
}

func (c *completionLog) push(item completion) { c.items = append(c.items, item) }

// settle drops completions that no restart can repeat: below the watermark, and
// out of their chunk if they were parked; and returns the attempts offset of the
// oldest other one, or next where there is none. (A chunk may be gone while the
// watermark is still below its records: then they are polled again.)
func (c *completionLog) settle(watermark, next int64) int64 {
	for c.head < len(c.items) {
		item := &c.items[c.head]
		inChunk := item.chunk != nil && !item.chunk.gone && item.sequence > item.chunk.safe
		if inChunk || item.offset >= watermark {
			return item.attempts
		}
		item.chunk = nil
		c.head++
		if c.head > 1024 && 2*c.head > len(c.items) {
			n := copy(c.items, c.items[c.head:])
			clear(c.items[n:])
			c.items, c.head = c.items[:n], 0
		}
	}
	c.items, c.head = c.items[:0], 0
	return next
}
