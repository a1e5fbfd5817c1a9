package deliver

import (
	"context"
	"strconv"
	"strings"
	"time"
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
	// For /readyz: since when the partition is ours, when the group last took a
	// commit (or when it opened), and why the take-over or a commit failed since.
	assignedAt, committedAt time.Time
	failure                 error
	rewind                  bool // the consumer must be set back to the commit
	begun                   bool // the first records are known to be those behind the commit
	tracker                 *tracker
	// seen is behind the last record that was polled. What the owner before had in
	// flight is below the records that it had parked, and polled again: until
	// then these must not be looked at where order counts. Lanes that wait for
	// that are in unseen.
	seen   int64
	unseen map[*lane]struct{}
	lanes  map[string]*lane
	copies *copies
	// underway are the attempts that an owner before may have made, too, from their
	// start until their outcome is acknowledged.
	underway map[deliveryKey]*entry
	// known are offsets at or above the commit that need no attempt: finished
	// (false) or parked in a chunk that was taken over (true).
	known   map[int64]bool
	failed  map[int64]retry // records at or above the commit that failed and kept their place
	cancels *cancels

	completions  completionLog
	attemptsNext int64     // one above the last attempts record known
	lease        time.Time // no attempt starts after
	stalled      bool      // lanes were passed over for want of a lease
	paused       bool      // the tracker's window is full, fetching is paused
	astray       bool      // the log ends below the position: fetching is paused until the next commit
	inflight     int       // attempts under way
	unwritten    int       // outcomes not acknowledged yet, by weight
	chunkNumber  int64
	visits       map[*lane]*visit // of parked records that may be too old
	lift         chan struct{}    // wakes the reader of parked records; capacity 1
	reading      map[*lane]struct{}
	opened       map[*chunk]*lane // chunks being drained
	lostParked   int64            // parked records whose payload was gone, and between which offsets
	firstLost    int64
	lastLost     int64
	litter       *litter // what is cleaned up once we have committed; nil: nothing, or done
}

// committed is what the group's coordinator held for a partition.
type committed struct {
	offset   int64
	attempts int64 // the number in the metadata, -1: none
	epoch    int64 // of who committed it, -1: not in the metadata
	// wasCut says that the log was cut off at cutAt: what is known of offsets from there
	// on is about other records.
	wasCut bool
	cutAt  int64
}

// stale reports whether what is known of an offset is about a record that was cut off.
func (c committed) stale(offset int64) bool { return c.wasCut && offset >= c.cutAt }

// metadata returns what stands in the commit beside the offset: the number, a
// blank, the epoch.
func (c committed) metadata() string {
	return strconv.FormatInt(c.attempts, 10) + " " + strconv.FormatInt(c.epoch, 10)
}

// newCommitted reads a commit. What its metadata does not say, as after an
// operator's reset, is -1; older versions wrote the number alone.
func newCommitted(offset int64, metadata string) committed {
	c := committed{offset: max(offset, 0), attempts: -1, epoch: -1}
	first, second, _ := strings.Cut(metadata, " ")
	if n, err := strconv.ParseInt(first, 10, 64); err == nil && n >= 0 {
		c.attempts = n
	}
	if n, err := strconv.ParseInt(second, 10, 64); err == nil && n >= 0 && c.attempts >= 0 {
		c.epoch = n
	}
	return c
}

func newHome(ctx context.Context, partition int32) *home {
	ctx, cancel := context.WithCancel(ctx)
	return &home{
		partition: partition, ctx: ctx, cancel: cancel, assignedAt: time.Now(), commit: make(chan committed, 1),
		lanes: map[string]*lane{}, copies: newCopies(copiesCapacity), underway: map[deliveryKey]*entry{}, known: map[int64]bool{}, failed: map[int64]retry{},
		cancels: newCancels(1), lift: make(chan struct{}, 1),
		reading: map[*lane]struct{}{}, unseen: map[*lane]struct{}{}, visits: map[*lane]*visit{}, opened: map[*chunk]*lane{},
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
