package deliver

import (
	"slices"
	"time"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// Times and sizes of a lane.
const (
	// startWithin is how long a record may wait in memory; then it is parked, unless
	// its lane works its queue off within movesWithin.
	startWithin = time.Second
	movesWithin = 4 * time.Second
	// slowAfter is from when on an answer counts as slow.
	slowAfter = 2 * time.Second
	// slowStart is the number of attempts that a lane begins with.
	slowStart = 2
	// laneQueue bounds the records that wait in memory for one lane.
	laneQueue = 4096
	// prefetchRecords and prefetchBytes bound what a lane holds of its parked
	// records, prefetchTime what it can start in this time.
	prefetchRecords = 1000
	prefetchBytes   = 1 << 20
	prefetchTime    = 10 * time.Second
	// probeChoice is of how many parked records a probe is chosen.
	probeChoice = 16
	// mergeAbove is how many small chunks a lane may have before they are
	// merged.
	mergeAbove = 64
)

// entry is one record of deliveries on its way through a worker.
type entry struct {
	delivery schemas.Delivery
	offset   int64
	appended time.Time // the broker's time of the record
	received time.Time
	lane     *lane
	chunk    *chunk // where the record is parked, nil for one that never was
	index    int    // its place in the chunk
	class    class  // under which its attempt counts
	started  time.Time
	lost     bool // the attempt was given up when its partition went away
	asked    bool // a cancel ends it, and is settled when that is in the log
	whole    bool // stands for all of its chunk, not for one record
	// line is where the record stands in the order of its lane, nil where the
	// lane has none. stays is set when it failed and keeps its place.
	line  *line
	stays retry
	trace string // traceparent of the attempt that failed
	// outcome is how it ended. An owner before may have attempted it, too, if
	// doubtUntil is set: that one's retry may come until then (Unix seconds). twin
	// is a retry that came while this attempt was under way.
	outcome    schemas.Outcome
	doubtUntil int64
	twin       *entry
}

// size is about how many bytes the entry takes in memory.
func (e *entry) size() int { return len(e.delivery.Event.Data) + 512 }

// weight is how many slots its attempt takes, and what its outcome counts for while
// it is on its way.
func (e *entry) weight() int { return 1 + len(e.delivery.Event.Data)/slotBytes }

// lane is the queue and the limits of one endpoint at its home. All fields are
// guarded by the worker's lock.
type lane struct {
	name     string // schemas.LaneName of endpoint and shard
	endpoint string
	tenant   string
	home     *home

	know knowledge

	queue    fifo // received, not parked
	drained  fifo // parked records read ahead; older than anything in queue
	inflight int
	starts   int32 // attempts begun since the last look
	pace     int32 // attempts begun in the second before that
	window   int32 // attempts at once, grows from slowStart
	clean    int32 // successes since the window last changed
	shard    uint16
	slow     bool
	asked    bool          // stands in the row of the loader
	expiring bool          // some of what is parked may be too old
	latency  time.Duration // moving average of answers
	hold     *hold         // nil: it may start what it has
	bucket   *bucket       // nil: no limit
	breaker  breaker
	// failingSince is when the first failure came after the last success, and
	// failures how many came since.
	failingSince time.Time
	failures     int
	stored       *laneState // as it stands in lanes; nil: it does not
	reported     *reported  // what the registry was told; nil: nothing
	rotation     *rotation  // where it waits for a slot
	ticket       uint64     // its place there
	alarm        time.Time  // when it is woken, zero for never
	alarmIndex   int

	order *ordering // nil: the lane has no order

	pending      []parkedRecord // parked since the last flush
	pendingSince int64          // append time of the first, Unix milliseconds
	pendingFrom  time.Duration  // when the first was parked, as uptime
	pendingLow   int64          // the lowest of them
	aloft        []*chunk       // on their way to lanes
	flushing     int            // offsets in them
	chunks       []*chunk
	draining     int           // index of the first chunk that may have unread offsets, or ones that were not looked at
	cursor       int           // index in that chunk of the next offset to read
	touched      time.Duration // when it had to do with a record last, as uptime
}

// knowledge is what a worker knows of an endpoint, and how new that is.
type knowledge struct {
	target  *target          // nil: never seen or deleted
	health  *registry.Health // nil: none
	version int64            // offset of the endpoint's version, or of its tombstone
	checked int64            // offset of the health's version
	since   int64            // the tail's position when the lane was made; what it said before is not known
	readAt  int64            // marker of the view when it was read, 0 before
	need    int64            // the newest marker that a record of the lane asks for
	broken  bool             // the endpoint can't be used as it is stored
}

func newLane(h *home, name, tenant string) *lane {
	l := &lane{name: name, tenant: tenant, home: h, window: slowStart}
	endpoint, shard := schemas.SplitLane(name)
	l.endpoint, l.shard = endpoint, uint16(shard) //nolint:gosec // it was read as 16 bits
	l.know.version, l.know.checked = -1, -1
	return l
}

// lane returns the lane with a name at its home, made if need be.
func (w *Worker) lane(h *home, name, tenant string, now time.Time) *lane {
	l := h.lanes[name]
	if l == nil {
		l = newLane(h, name, tenant)
		l.know.since = w.tailNext
		w.enter(h, l)
	}
	if l.tenant == "" {
		l.tenant = tenant
	}
	l.touched = uptime(now)
	return l
}

// enter gives a lane its place at its home.
func (w *Worker) enter(h *home, l *lane) {
	h.lanes[l.name] = l
	w.shards = max(w.shards, min(int(l.shard)+1, registry.MaxShards))
}

// condition is what a lane may do with a record.
type condition string

// The conditions of a lane.
const (
	conditionActive   condition = "active"
	conditionLoading  condition = "loading"
	conditionPaused   condition = "paused"
	conditionDisabled condition = "disabled"
	conditionDeleted  condition = "deleted"
	conditionHeld     condition = "held"
	conditionOpen     condition = "open"   // its breaker is open, and it is not time to probe
	conditionBroken   condition = "broken" // its endpoint can't be used as it is stored
)

// condition judges the lane with what is known up to the registry offset tail.
func (l *lane) condition(now time.Time, tail int64) condition {
	k := &l.know
	if k.readAt == 0 || k.need > max(k.readAt, tail) {
		return conditionLoading
	}
	if k.broken {
		return conditionBroken
	}
	if k.target == nil {
		return conditionDeleted
	}
	switch k.target.endpoint.Effective(k.health) {
	case registry.StatePaused:
		return conditionPaused
	case registry.StateDisabled:
		return conditionDisabled
	case registry.StateEnabled:
	}
	if l.held(now) {
		return conditionHeld
	}
	if l.breaker.isOpen() && now.Before(l.breaker.probeAt) {
		return conditionOpen
	}
	return conditionActive
}

// waits reports whether a lane in this condition parks what comes.
func (c condition) waits() bool {
	switch c {
	case conditionPaused, conditionDisabled, conditionBroken, conditionHeld, conditionOpen:
		return true
	case conditionActive, conditionLoading, conditionDeleted:
	}
	return false
}

// parked reports whether older records of the lane wait outside the queue, so
// that a new one must queue behind them.
func (l *lane) parked() bool {
	return len(l.pending) > 0 || l.flushing > 0 || l.unread() || l.drained.len() > 0
}

// unread reports whether the lane has parked records that could be read now; in
// an ordered lane, those that the last look found.
func (l *lane) unread() bool {
	if l.order != nil {
		return l.order.next() != nil
	}
	return l.draining < len(l.chunks)
}

// startable reports whether the lane has a record and room for its attempt.
func (l *lane) startable() bool {
	return l.inflight < l.limit() && (l.drained.len() > 0 || l.queue.len() > 0)
}

// class returns which part of the slots the lane's attempts may take.
func (l *lane) class() class {
	switch {
	case l.slow:
		return classSlow
	case l.latency == 0:
		return classFresh
	}
	return classQuick
}

// limit returns how many attempts may be under way: one that probes while the
// breaker is open.
func (l *lane) limit() int {
	if l.breaker.isOpen() {
		return 1
	}
	return min(int(l.window), l.most())
}

// unordered reports whether the lane is known to have no order.
func (l *lane) unordered() bool { return l.know.target != nil && !l.know.target.ordered }

// most is the limit that the window may grow to.
func (l *lane) most() int {
	if l.know.target == nil {
		return MaxInFlight
	}
	return l.know.target.maxInFlight
}

// policy returns the settings of the lane's breaker.
func (l *lane) policy() *breakerPolicy {
	if l.know.target == nil {
		p := newBreakerPolicy(registry.Breaker{})
		return &p
	}
	return &l.know.target.breaker
}

// pop returns the next record to attempt. A probe is the one that has failed least
// often of those that were read.
func (l *lane) pop() *entry {
	if l.breaker.isOpen() && l.order == nil {
		l.drained.advance(fewestAttempts)
	}
	if e := l.drained.pop(); e != nil {
		return e
	}
	return l.queue.pop()
}

// idle reports whether nothing is known of the lane that could not be read
// again.
func (l *lane) idle() bool {
	return l.empty() && l.hold == nil && l.stored == nil &&
		!l.breaker.isOpen() && l.bucket.full(time.Now()) && (l.order == nil || l.order.nodes == 0)
}

// empty reports whether the lane has no record under way, waiting or parked.
func (l *lane) empty() bool {
	return l.inflight == 0 && l.queue.len() == 0 && l.drained.len() == 0 &&
		len(l.pending) == 0 && l.flushing == 0 && len(l.chunks) == 0
}

// rests reports whether the lane is idle and its endpoint was well when it was used
// last: a failure counts for those that follow, however much later.
func (l *lane) rests() bool { return l.idle() && l.failingSince.IsZero() && l.breaker.inRow() == 0 }

// rewind has the lane read a parked record again that was read and not attempted.
func (l *lane) rewind(e *entry) {
	if l.ranks(e) {
		l.order.release(e.line, time.Now())
		return
	}
	e.chunk.release(e.index)
	if l.order != nil {
		e.chunk.cursor, l.order.allSeen, l.draining = min(e.chunk.cursor, e.index), false, 0
		return
	}
	i := slices.Index(l.chunks, e.chunk)
	if i >= 0 && (i < l.draining || i == l.draining && e.index < l.cursor) {
		l.draining, l.cursor = i, e.index
	}
}

// ranks reports whether the record is the head of a line of the lane's order; one
// that was taken under an earlier order, or under none, is not.
func (l *lane) ranks(e *entry) bool {
	return e.line != nil && l.order != nil && l.order.lines[e.line.key] == e.line
}

// answered adjusts window and speed class after an attempt.
func (l *lane) answered(v *verdict, took time.Duration, timeout bool, now time.Time) {
	switch {
	case v.outcome == schemas.OutcomeDelivered:
		l.failingSince, l.failures = time.Time{}, 0
	case l.failingSince.IsZero():
		l.failingSince, l.failures = now, 1
	default:
		l.failures++
	}
	l.touched = uptime(now)
	l.latency += (took - l.latency) / 8
	l.slow = timeout || took >= slowAfter
	switch {
	case v.congested:
		l.window, l.clean = max(1, l.window/2), 0
	case v.outcome == schemas.OutcomeDelivered:
		most := int32(l.most()) //nolint:gosec // at most MaxInFlight
		if l.clean++; l.clean >= l.window && l.window < most {
			l.window, l.clean = min(2*l.window, most), 0
		}
	}
}

// room returns how many parked records the lane wants to have read, and how
// many bytes of them.
func (l *lane) room() (records, bytes int) {
	want := 1
	if l.latency > 0 {
		want = int(prefetchTime / l.latency * time.Duration(l.limit()))
	} else if l.know.target != nil {
		want = 2 * l.limit()
	}
	switch {
	case !l.breaker.isOpen():
	case l.order != nil:
		want = 1 // a probe: they take turns
	default:
		want = probeChoice
	}
	want = min(max(want, 2), prefetchRecords, max(l.bucket.within(prefetchTime, time.Now()), 2))
	return want - l.drained.len(), prefetchBytes - l.drained.bytes
}

// fifo is a queue of entries that knows how many bytes they hold.
type fifo struct {
	ring[*entry]
	bytes int
}

func (f *fifo) push(e *entry) {
	f.ring.push(e)
	f.bytes += e.size()
}

// pop takes the first entry, nil where there is none.
func (f *fifo) pop() *entry {
	e, ok := f.ring.pop()
	if ok {
		f.bytes -= e.size()
	}
	return e
}

// first returns the first entry and leaves it, nil where there is none.
func (f *fifo) first() *entry {
	if f.len() == 0 {
		return nil
	}
	return f.items[f.head]
}

// advance moves an entry to the front, the first one of those that are less than
// all others.
func (f *fifo) advance(less func(a, b *entry) bool) {
	waiting := f.items[f.head:]
	least := 0
	for i, e := range waiting {
		if less(e, waiting[least]) {
			least = i
		}
	}
	if least > 0 {
		e := waiting[least]
		copy(waiting[1:], waiting[:least])
		waiting[0] = e
	}
}

// fewestAttempts orders entries by how often they were attempted.
func fewestAttempts(a, b *entry) bool { return a.delivery.Attempt < b.delivery.Attempt }

// back returns an entry that was popped and not attempted to the front.
func (f *fifo) back(e *entry) {
	f.bytes += e.size()
	if f.head > 0 {
		f.head--
		f.items[f.head] = e
		return
	}
	f.items = append([]*entry{e}, f.items...)
}
