package fanout

import "time"

// What one transaction aims at.
const (
	aimDeliveries = 5000
	aimBytes      = 16 << 20
	aimMatching   = 500 * time.Millisecond
	maxPoll       = 5000 // records
)

// sizer chooses how many records are polled at once, so that a transaction stays
// near its aims. It follows a rise at once and a fall slowly. It belongs to the
// loop; the zero value begins with a whole poll.
type sizer struct {
	deliveries, bytes, matching float64 // per record
	ceiling                     int     // after a batch that was too costly; 0 is none
}

// load is what a batch asked for, whether or not it was written as pages.
type load struct {
	records, deliveries, bytes int
	matching                   time.Duration
}

// next returns the size of the next poll, 1 to maxPoll.
func (z *sizer) next() int {
	n := float64(maxPoll)
	if z.ceiling > 0 {
		n = min(n, float64(z.ceiling))
	}
	for _, part := range [...]struct{ aim, each float64 }{
		{aimDeliveries, z.deliveries}, {aimBytes, z.bytes}, {float64(aimMatching), z.matching},
	} {
		if part.each > 0 {
			n = min(n, part.aim/part.each)
		}
	}
	return max(1, int(n))
}

// observe takes a committed batch into account.
func (z *sizer) observe(l load) {
	if l.records == 0 {
		return
	}
	follow(&z.deliveries, float64(l.deliveries)/float64(l.records))
	follow(&z.bytes, float64(l.bytes)/float64(l.records))
	follow(&z.matching, float64(l.matching)/float64(l.records))
	if z.ceiling *= 2; z.ceiling >= maxPoll {
		z.ceiling = 0
	}
}

// shrink makes the next polls smaller than one of that many records, to at least
// one record; they grow again with each batch that passes.
func (z *sizer) shrink(records int) { z.ceiling = max(1, records/8) }

// follow moves the average to a higher value at once and to a lower one by a fifth.
func follow(avg *float64, value float64) { *avg = max(value, *avg+(value-*avg)/5) }
