package deliver

import "math/bits"

// trackerWindow is how many offsets a tracker spans at most: from the lowest
// unfinished one to the highest received one.
const trackerWindow = 1 << 20

// tracker knows which offsets of one partition were received and which of them
// are finished, under one assignment. Offsets have holes (transaction markers,
// aborted records), so only received offsets count: the watermark moves over
// offsets never seen as soon as a later one was received.
//
// It is a ring of two bitmaps that grows up to trackerWindow offsets: 256 KiB
// at the most.
type tracker struct {
	base     int64 // no offset below is open
	next     int64 // one above the highest received offset, or base
	open     int   // received and unfinished offsets
	received []uint64
	finished []uint64
	epochs   []epochStart
}

// epochStart is the first received offset of a leader epoch.
type epochStart struct {
	offset int64
	epoch  int32
}

// newTracker returns a tracker whose partition starts at the committed offset.
func newTracker(base int64) *tracker {
	const words = 64
	return &tracker{base: base, next: base, received: make([]uint64, words), finished: make([]uint64, words)}
}

// receive notes that an offset was received with its leader epoch, and reports
// whether it is new: not below the watermark and not received before.
func (t *tracker) receive(offset int64, epoch int32) bool {
	if offset < t.base || t.get(t.received, offset) {
		return false
	}
	if t.open == 0 { // nothing lies between the last record and this one
		t.base, t.next = offset, offset
	}
	t.grow(offset)
	t.set(t.received, offset)
	t.open++
	if offset >= t.next {
		t.next = offset + 1
	}
	if n := len(t.epochs); n == 0 || t.epochs[n-1].epoch < epoch {
		t.epochs = append(t.epochs, epochStart{offset, epoch})
	}
	return true
}

// jump notes that there is nothing to receive below offset any more, and the leader
// epoch of what lies there, -1 if unknown. It reports whether that is done: not while
// an open offset is too far away.
func (t *tracker) jump(offset int64, epoch int32) bool {
	switch {
	case offset <= t.next:
		return true
	case t.open == 0:
		t.base, t.next = offset, offset
	case !t.room(offset):
		return false
	default:
		t.grow(offset)
		t.next = offset
	}
	if n := len(t.epochs); n == 0 || epoch < 0 || t.epochs[n-1].epoch < epoch {
		t.epochs = append(t.epochs, epochStart{offset, epoch})
	}
	return true
}

// room reports whether offset still fits into the window.
func (t *tracker) room(offset int64) bool { return offset-t.base < trackerWindow }

// finish notes that a received offset is handled, and reports whether it was
// open. The watermark moves over all finished and never received offsets.
func (t *tracker) finish(offset int64) bool {
	if offset < t.base || !t.get(t.received, offset) || t.get(t.finished, offset) {
		return false
	}
	t.set(t.finished, offset)
	t.open--
	if t.open == 0 {
		t.clearTo(t.next)
	} else if offset == t.base || !t.get(t.received, t.base) {
		t.clearTo(t.lowestOpen())
	}
	return true
}

// watermark returns the lowest open offset, or the one after the last received
// offset where none is open: the offset to commit.
func (t *tracker) watermark() int64 { return t.base }

// leaderEpoch returns the leader epoch in force at the watermark, -1 if unknown.
func (t *tracker) leaderEpoch() int32 {
	epoch := int32(-1)
	drop := 0
	for i, e := range t.epochs {
		if e.offset > t.base {
			break
		}
		epoch, drop = e.epoch, i
	}
	t.epochs = t.epochs[drop:]
	return epoch
}

// lowestOpen returns the lowest received, unfinished offset; one must exist.
func (t *tracker) lowestOpen() int64 {
	mask := int64(len(t.received) - 1)
	for at := t.base; at < t.next; {
		word := (at >> 6) & mask
		open := t.received[word] &^ t.finished[word]
		if open >>= uint(at & 63); open != 0 {
			return at + int64(bits.TrailingZeros64(open))
		}
		at = (at | 63) + 1
	}
	return t.next
}

func (t *tracker) clearTo(base int64) {
	mask := int64(len(t.received) - 1)
	for at := t.base; at < base; {
		word := (at >> 6) & mask
		end := min(base, (at|63)+1)
		// A shift by 64 or more is 0 in Go, so a whole word needs no case of its own.
		keep := ^((uint64(1)<<uint(end-at) - 1) << uint(at&63)) //nolint:gosec // both are 0 to 64
		t.received[word] &= keep
		t.finished[word] &= keep
		at = end
	}
	t.base = base
	t.next = max(t.next, base)
}

func (t *tracker) get(set []uint64, offset int64) bool {
	if offset-t.base >= int64(len(set)-1)*64 {
		return false
	}
	return set[(offset>>6)&int64(len(set)-1)]&(1<<uint(offset&63)) != 0
}

func (t *tracker) set(set []uint64, offset int64) {
	set[(offset>>6)&int64(len(set)-1)] |= 1 << uint(offset&63)
}

// grow makes the ring wide enough for offset. One word stays unused, so that
// the words of the lowest and the highest offset never fall together.
func (t *tracker) grow(offset int64) {
	words := len(t.received)
	for offset-t.base >= int64(words-1)*64 {
		words *= 2
	}
	if words == len(t.received) {
		return
	}
	oldMask, mask := int64(len(t.received)-1), int64(words-1)
	received, finished := make([]uint64, words), make([]uint64, words)
	for word := t.base >> 6; t.next > t.base && word <= (t.next-1)>>6; word++ {
		received[word&mask] = t.received[word&oldMask]
		finished[word&mask] = t.finished[word&oldMask]
	}
	t.received, t.finished = received, finished
}
