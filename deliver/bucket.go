package deliver

import (
	"math"
	"time"
)

// bucket is a token bucket: it fills with rate tokens a second up to burst; an
// attempt takes one. A rate of zero, or a nil bucket, is no limit.
type bucket struct {
	rate   float64
	burst  float64
	tokens float64
	at     time.Time // when tokens was right
}

// limit sets rate and burst from now on. What a bucket without a limit begins
// with is what it would have gained since a time, at least one token.
func (b *bucket) limit(rate float64, burst int, since, now time.Time) {
	if rate == b.rate && float64(burst) == b.burst {
		return
	}
	if b.rate == 0 {
		b.tokens, b.at = max(1, now.Sub(since).Seconds()*rate), now
	}
	b.fill(now)
	b.rate, b.burst = rate, float64(burst)
	b.tokens = min(b.tokens, b.burst)
}

func (b *bucket) fill(now time.Time) {
	if gone := now.Sub(b.at); gone > 0 {
		b.tokens = min(b.tokens+gone.Seconds()*b.rate, b.burst)
		b.at = now
	}
}

// wait returns how long it takes until there is a token, 0 if there is one now.
func (b *bucket) wait(now time.Time) time.Duration {
	if b == nil || b.rate == 0 {
		return 0
	}
	if b.fill(now); b.tokens >= 1 {
		return 0
	}
	return time.Duration(math.Ceil((1 - b.tokens) / b.rate * float64(time.Second)))
}

// take takes a token; the caller has asked wait.
func (b *bucket) take() {
	if b != nil && b.rate > 0 {
		b.tokens--
	}
}

// refund gives a token back that was not used.
func (b *bucket) refund() {
	if b != nil && b.rate > 0 {
		b.tokens = min(b.tokens+1, b.burst)
	}
}

// within returns how many tokens there are at most within a time from now on.
func (b *bucket) within(d time.Duration, now time.Time) int {
	if b == nil || b.rate == 0 {
		return math.MaxInt32
	}
	b.fill(now)
	return int(b.tokens + d.Seconds()*b.rate)
}

// full reports whether nothing is lost by forgetting the bucket.
func (b *bucket) full(now time.Time) bool {
	if b == nil {
		return true
	}
	b.fill(now)
	return b.rate == 0 || b.tokens >= b.burst
}
