package deliver

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// In no stretch of time do more attempts start than the burst and what the rate
// gives for that time; and one that waits as long as it is told may start.
func TestBucketLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(0.05, 2000).Draw(t, "rate")
		burst := rapid.IntRange(1, 50).Draw(t, "burst")
		now := time.Unix(1_700_000_000, 0)
		var b bucket
		b.limit(rate, burst, now.Add(-time.Hour), now)
		var starts []time.Time
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "patient") {
				now = now.Add(b.wait(now))
				if b.wait(now) > time.Microsecond {
					t.Fatalf("waited as told, and has to wait for another %s", b.wait(now))
				}
				now = now.Add(time.Microsecond)
			} else {
				now = now.Add(time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "pause")))
			}
			if b.wait(now) == 0 {
				b.take()
				starts = append(starts, now)
			}
		}
		for i := range starts {
			for j := i; j < len(starts); j++ {
				most := float64(burst) + starts[j].Sub(starts[i]).Seconds()*rate + 1e-6
				if n := j - i + 1; float64(n) > most {
					t.Fatalf("%d starts within %s, at most %.1f are allowed", n, starts[j].Sub(starts[i]), most)
				}
			}
		}
	})
}

// What the owner before has used is not known: at a hand-over a bucket begins
// with what it would have gained since.
func TestBucketAfterHandover(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, test := range []struct {
		since time.Duration
		want  int
	}{{0, 1}, {2 * time.Second, 20}, {time.Hour, 50}} {
		var b bucket
		b.limit(10, 50, now.Add(-test.since), now)
		if got := b.within(0, now); got != test.want {
			t.Errorf("%s after the hand-over: %d tokens, want %d", test.since, got, test.want)
		}
	}
	var b bucket
	if b.wait(now) != 0 || !b.full(now) {
		t.Error("a bucket without a limit has one")
	}
	b.limit(10, 5, now.Add(-time.Hour), now)
	b.take()
	b.refund()
	if !b.full(now) {
		t.Error("a token that was given back is lost")
	}
}
