package main

import (
	"math"
	"slices"
	"time"
)

// percentile returns the smallest value that is not below p percent (0 to 100)
// of the values, which must be sorted (the nearest-rank method); 0 without any.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// longestGap returns the longest time between two neighbours of times (Unix
// nanoseconds, in any order) that overlaps the span from begin to end, whose
// ends count as neighbours too, and when that gap began.
func longestGap(times []int64, begin, end int64) (gap time.Duration, at int64) {
	inside := []int64{begin}
	for _, t := range times {
		if t > begin && t < end {
			inside = append(inside, t)
		}
	}
	inside = append(inside, end)
	slices.Sort(inside)
	for i, t := range inside[1:] {
		if d := time.Duration(t - inside[i]); d > gap {
			gap, at = d, inside[i]
		}
	}
	return gap, at
}

// sample is a counter's value at a time.
type sample struct {
	at    time.Time
	count int64
}

// rate returns how much a counter grew per second between two samples, 0 if no
// time passed.
func rate(from, to sample) float64 {
	seconds := to.at.Sub(from.at).Seconds()
	if seconds <= 0 {
		return 0
	}
	return float64(to.count-from.count) / seconds
}

// latencies returns the sorted times from each start to the arrival of the same
// number, and how many numbers have no arrival. An arrival before its start
// (the webhook was faster than the answer to the sender) counts as 0.
func latencies(starts []int64, arrivals map[int64]int64) (sorted []time.Duration, missing int) {
	sorted = make([]time.Duration, 0, len(starts))
	for n, start := range starts {
		at, ok := arrivals[int64(n)]
		if !ok {
			missing++
			continue
		}
		sorted = append(sorted, max(0, time.Duration(at-start)))
	}
	slices.Sort(sorted)
	return sorted, missing
}

// bitset is a growing set of small numbers.
type bitset []uint64

// add reports whether n was not in the set yet.
func (b *bitset) add(n int64) bool {
	word, bit := int(n/64), uint64(1)<<(n%64)
	if word >= len(*b) {
		*b = append(*b, make([]uint64, word+1-len(*b))...)
	}
	fresh := (*b)[word]&bit == 0
	(*b)[word] |= bit
	return fresh
}
