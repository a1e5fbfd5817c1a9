package wheel

import (
	"hash/fnv"
	"math/bits"
	"strconv"
	"time"
)

// Limits of a delay.
const (
	// MaxStep is the longest step of a retry schedule: with the jitter and the
	// rounding it stays below MaxDelay.
	MaxStep = 28 * time.Hour
	// MaxDelay is the longest delay that the levels can hold: 2^17 - 1 seconds.
	MaxDelay = (1<<Levels - 1) * time.Second
	// Levels is the number of levels; level k holds a record for 2^k seconds.
	Levels = 17
	// worst is the bound, in thousandths, of a delay after jitter and rounding
	// over its step: 9/8 of jitter, times 9/8 of rounding up to 4 significant
	// bits, for steps of at least a second.
	worst = 1270
)

// WorstCase returns the most that a step of a retry schedule can become.
func WorstCase(step time.Duration) time.Duration {
	step = max(step, time.Second)
	return step/1000*worst + time.Second
}

// Delay returns how long an attempt waits for, as a set of levels: bit k is
// level k. It is the step plus 0 to 1/8 of it, chosen by a hash of delivery
// and attempt, so that a crowd of failures spreads out and a copy of the record
// takes the same way; in whole seconds, rounded up to 4 significant bits: 1 to 4
// hops, never less than the step.
func Delay(step time.Duration, delivery string, attempt int) uint32 {
	step = max(step, time.Second)
	h := fnv.New64a()
	_, _ = h.Write([]byte(delivery))
	_, _ = h.Write(strconv.AppendInt(nil, int64(attempt), 10))
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	jitter := time.Duration(float64(step) / 8 * (float64(x>>11) / (1 << 53)))
	seconds := uint64((step+time.Second-1)/time.Second + jitter/time.Second) //nolint:gosec // a delay is positive
	return uint32(min(roundUp(seconds), 1<<Levels-1))
}

// roundUp rounds n up to a number with at most 4 significant bits.
func roundUp(n uint64) uint64 {
	if shift := bits.Len64(n) - 4; shift > 0 {
		n = (n + 1<<shift - 1) >> shift << shift
	}
	return n
}

// Duration returns the delay that a set of levels stands for.
func Duration(levels uint32) time.Duration { return time.Duration(levels) * time.Second }

// Next returns the level of the next hop, the highest one left, and the levels
// left after it. ok is false where none is left: the record is due.
// Bits above the last level, which no version of ours writes, count as nothing.
func Next(levels uint32) (level int, rest uint32, ok bool) {
	if levels &= 1<<Levels - 1; levels == 0 {
		return 0, 0, false
	}
	level = bits.Len32(levels) - 1
	return level, levels &^ (1 << level), true
}
