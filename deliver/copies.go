package deliver

import "github.com/postrider/postrider/schemas"

// pair names one attempt of one delivery.
type pair struct {
	delivery [16]byte
	attempt  int
}

// pairOf returns the key under which an attempt is remembered.
func pairOf(delivery string, attempt int) pair {
	return pair{schemas.IDBytes(delivery), attempt}
}

// offsets remembers, for the attempts of the last minutes, the record that
// asked for them first, so that a second record of the same attempt is dropped.
// It is for second and later attempts: the record of a first attempt is made by
// fan-out's transaction and exists once. Two generations of at most half the
// capacity each bound its memory.
type offsets struct {
	capacity  int
	young     map[pair]int64
	old       map[pair]int64
	rotatedAt int64
}

// copiesKeep is, in seconds, how long a pair is remembered at least while the
// capacity is not reached.
const copiesKeep = 600

func newOffsets(capacity int) *offsets {
	return &offsets{capacity: capacity, young: map[pair]int64{}, old: map[pair]int64{}}
}

// add notes the pair under an offset. If it was there before, add returns its
// offset and false. now is in Unix seconds.
func (o *offsets) add(p pair, offset, now int64) (first int64, added bool) {
	if first, ok := o.young[p]; ok {
		return first, false
	}
	if first, ok := o.old[p]; ok {
		return first, false
	}
	if o.rotatedAt == 0 {
		o.rotatedAt = now
	}
	if now-o.rotatedAt >= copiesKeep || len(o.young) >= o.capacity/2 {
		o.old, o.young, o.rotatedAt = o.young, map[pair]int64{}, now
	}
	o.young[p] = offset
	return offset, true
}
