package deliver

import (
	"container/heap"
	"hash/fnv"
	"time"
)

// Bounds of an ordered lane: the keys that it knows records of, and the parked
// records that it has looked at. Beyond either, what comes later waits.
const (
	maxKeys  = 10_000
	maxNodes = 100_000
)

// ordering is the order of an ordered lane. The records of a key stand in a line,
// lowest offset first, and only the head of a line may be attempted. A head that
// failed stays where it is until it is due; its line waits, no other does.
//
// Records whose payload is at hand (in flight, or about to be) are taken; all
// others are parked, and a node says where. The caller holds the worker's lock.
type ordering struct {
	lines   map[uint32]*line
	nodes   int
	wanted  lineHeap // heads to be read now, by offset, or in turn
	waiting lineHeap // heads that wait for their retry, by due time
	allSeen bool     // no parked record is left that was not looked at
	inTurn  bool     // wanted goes by when a head failed last, those that never did first
}

// line is the records of one key that an ordered lane knows.
type line struct {
	key   uint32
	nodes ring[node]
	place headPlace
	index int // in the heap of its place
	// due and attempt are those of the head, zero if it has not failed.
	retry retry
	// delivery, trace and first are known of a head that failed under this owner.
	delivery string
	trace    string
	first    time.Time
}

// node is one parked record of a line; chunk is nil while it is not parked.
type node struct {
	offset int64
	chunk  *chunk
	index  int
}

// headPlace is where the head of a line is.
type headPlace int

const (
	headWanted  headPlace = iota // parked, to be read now
	headWaiting                  // parked, not due
	headTaken                    // read: it waits for a slot, is in flight, or its outcome is not acknowledged
	headLoose                    // on its way into a chunk
)

func newOrdering() *ordering {
	o := &ordering{lines: map[uint32]*line{}}
	o.wanted.less = func(a, b *line) bool {
		if o.inTurn && a.retry.due != b.retry.due {
			return a.retry.due < b.retry.due
		}
		return a.head().offset < b.head().offset
	}
	o.waiting.less = func(a, b *line) bool { return a.retry.due < b.retry.due }
	o.wanted.place, o.waiting.place = headWanted, headWaiting
	return o
}

// orderKey returns what stands for a partitionkey. Two keys that share a hash wait
// for each other, which harms nobody. Events without a key share 0.
func orderKey(partitionKey string) uint32 {
	if partitionKey == "" {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(partitionKey))
	return max(h.Sum32(), 1)
}

func (l *line) head() *node { return &l.nodes.items[l.nodes.head] }

// full reports whether the lane may look at no further record.
func (o *ordering) full() bool { return o.nodes >= maxNodes || len(o.lines) >= maxKeys }

// free reports whether a record of the key would be the first of its line.
func (o *ordering) free(key uint32) bool { return o.lines[key] == nil && !o.full() }

// arrive opens a line with a record that is not parked. Its key must be free.
func (o *ordering) arrive(key uint32, offset int64) *line {
	l := &line{key: key, place: headTaken}
	l.nodes.push(node{offset: offset})
	o.lines[key] = l
	o.nodes++
	return l
}

// add appends a parked record to the line of its key.
func (o *ordering) add(key uint32, n node, r retry, now time.Time) {
	l := o.lines[key]
	if l == nil {
		l = &line{key: key}
		o.lines[key] = l
	}
	l.nodes.push(n)
	o.nodes++
	if l.nodes.len() == 1 {
		l.retry = r
		o.place(l, now)
	}
}

// place puts a parked head where it belongs.
func (o *ordering) place(l *line, now time.Time) {
	if l.retry.due > now.UnixMilli() {
		o.waiting.push(l)
	} else {
		o.wanted.push(l)
	}
}

// ripen moves the heads that are due to those that are wanted, and returns when
// the next one is due, zero where none waits.
func (o *ordering) ripen(now time.Time) time.Time {
	for len(o.waiting.lines) > 0 {
		l := o.waiting.lines[0]
		if l.retry.due > now.UnixMilli() {
			return time.UnixMilli(l.retry.due)
		}
		o.waiting.remove(l)
		o.wanted.push(l)
	}
	return time.Time{}
}

// seek makes heads wanted that wait and of which nobody knows whose they are: they
// failed at an owner before. It is for a cancel, which names its delivery; each is
// read once for that.
func (o *ordering) seek() {
	var unknown []*line
	for _, l := range o.waiting.lines {
		if l.delivery == "" {
			unknown = append(unknown, l)
		}
	}
	for _, l := range unknown {
		o.waiting.remove(l)
		o.wanted.push(l)
	}
}

// takeTurns has wanted heads come in turn, or by offset.
func (o *ordering) takeTurns(on bool) {
	if o.inTurn != on {
		o.inTurn = on
		heap.Init((*lineHeapOrder)(&o.wanted))
	}
}

// oldest makes the lowest parked head wanted, whether it is due or not. Heads come
// by offset from then on.
func (o *ordering) oldest() {
	o.takeTurns(false)
	var lowest *line
	for _, l := range o.waiting.lines {
		if lowest == nil || l.head().offset < lowest.head().offset {
			lowest = l
		}
	}
	if lowest != nil && (len(o.wanted.lines) == 0 || lowest.head().offset < o.wanted.lines[0].head().offset) {
		o.waiting.remove(lowest)
		o.wanted.push(lowest)
	}
}

// isLowest reports whether no line has a head with a lower offset.
func (o *ordering) isLowest(l *line) bool {
	for _, other := range o.lines {
		if other.head().offset < l.head().offset {
			return false
		}
	}
	return true
}

// next returns the line with the first wanted head, nil where none is.
func (o *ordering) next() *line {
	if len(o.wanted.lines) == 0 {
		return nil
	}
	return o.wanted.lines[0]
}

// take has the head of a line be read, whether it is wanted or waits.
func (o *ordering) take(l *line) {
	switch l.place {
	case headWanted:
		o.wanted.remove(l)
	case headWaiting:
		o.waiting.remove(l)
	case headTaken, headLoose:
	}
	l.place = headTaken
}

// release puts a head that was taken and is parked back.
func (o *ordering) release(l *line, now time.Time) { o.place(l, now) }

// loosen notes that a taken head that is not parked goes into a chunk.
func (o *ordering) loosen(l *line) { l.place = headLoose }

// settle notes the chunk that a loose head has gone into, and reports whether
// there was such a head.
func (o *ordering) settle(key uint32, n node, now time.Time) bool {
	l := o.lines[key]
	if l == nil || l.place != headLoose || l.head().offset != n.offset {
		return false
	}
	*l.head() = n
	o.place(l, now)
	return true
}

// failed keeps a taken head in its place until it is due. One that is not parked
// yet stays taken: the caller parks it.
func (o *ordering) failed(l *line, r retry, now time.Time) {
	l.retry = r
	if l.head().chunk != nil {
		o.place(l, now)
	}
}

// finished takes a head off; the one behind it is wanted.
func (o *ordering) finished(l *line, now time.Time) {
	o.take(l)
	l.nodes.pop()
	o.nodes--
	l.delivery, l.trace, l.first, l.retry = "", "", time.Time{}, retry{}
	if l.nodes.len() == 0 {
		delete(o.lines, l.key)
		return
	}
	if n := l.head(); n.chunk != nil {
		l.retry = n.chunk.retries[n.index]
	}
	o.place(l, now)
}

// forget takes all parked records that are not taken out of the lines, for a lane
// that has ended or is not ordered any more, and gives each to fn.
func (o *ordering) forget(fn func(n node)) {
	for key, l := range o.lines {
		kept := l.place == headTaken || l.place == headLoose
		if !kept {
			o.take(l)
		}
		var head node
		for first := true; l.nodes.len() > 0; first = false {
			n, _ := l.nodes.pop()
			if first && kept {
				head = n
				continue
			}
			o.nodes--
			fn(n)
		}
		if kept {
			l.nodes.push(head)
		} else {
			delete(o.lines, key)
		}
	}
}

// lineHeap is a heap of lines that all have the same place.
type lineHeap struct {
	lines []*line
	less  func(a, b *line) bool
	place headPlace
}

func (h *lineHeap) push(l *line) {
	l.place = h.place
	heap.Push((*lineHeapOrder)(h), l)
}

func (h *lineHeap) remove(l *line) { heap.Remove((*lineHeapOrder)(h), l.index) }

// lineHeapOrder implements heap.Interface.
type lineHeapOrder lineHeap

func (h *lineHeapOrder) Len() int           { return len(h.lines) }
func (h *lineHeapOrder) Less(i, j int) bool { return h.less(h.lines[i], h.lines[j]) }
func (h *lineHeapOrder) Swap(i, j int) {
	h.lines[i], h.lines[j] = h.lines[j], h.lines[i]
	h.lines[i].index, h.lines[j].index = i, j
}

func (h *lineHeapOrder) Push(l any) {
	one := l.(*line) //nolint:forcetypeassert // nothing else is pushed
	one.index = len(h.lines)
	h.lines = append(h.lines, one)
}

func (h *lineHeapOrder) Pop() any {
	last := len(h.lines) - 1
	l := h.lines[last]
	h.lines[last] = nil
	h.lines = h.lines[:last]
	return l
}
