package deliver

import (
	"testing"

	"pgregory.net/rapid"
)

// naive is the tracker's law as sets.
type naive struct {
	base, next int64
	open       map[int64]bool
}

func (n *naive) watermark() int64 {
	at := n.next
	for o := range n.open {
		at = min(at, o)
	}
	return max(at, n.base)
}

// The tracker never passes an unfinished offset, passes everything else, and
// knows the leader epoch in force at the watermark, whatever holes the log has.
func TestTrackerLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Int64Range(0, 1<<40).Draw(t, "start")
		tr, model := newTracker(start), &naive{base: start, next: start, open: map[int64]bool{}}
		at, epoch := start, int32(0)
		epochs := map[int64]int32{}
		jump := func(to int64) {
			want := to-tr.base < trackerWindow || len(model.open) == 0
			if got := tr.jump(to, epoch); got != want {
				t.Fatalf("jump from %d to %d: %t", tr.base, to, got)
			} else if got {
				at, model.next = max(at, to), max(model.next, to)
			}
		}
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "receive") || len(model.open) == 0 {
				at += rapid.SampledFrom([]int64{0, 0, 0, 1, 2, 63, 64, 65, 5000}).Draw(t, "hole")
				epoch += rapid.SampledFrom([]int32{0, 0, 0, 1}).Draw(t, "epoch")
				if !tr.receive(at, epoch) || tr.receive(at, epoch) {
					t.Fatalf("offset %d: not new once", at)
				}
				epochs[at], model.open[at], model.next = epoch, true, at+1
				at++
			} else {
				open := make([]int64, 0, len(model.open))
				for o := range model.open {
					open = append(open, o)
				}
				o := rapid.SampledFrom(sorted(open)).Draw(t, "finish")
				delete(model.open, o)
				if !tr.finish(o) || tr.finish(o) {
					t.Fatalf("offset %d: not open once", o)
				}
			}
			if rapid.IntRange(0, 20).Draw(t, "jumps") == 0 {
				jump(at + rapid.SampledFrom([]int64{-1, 0, 1, 64, 5000, trackerWindow, 1 << 40}).Draw(t, "jump"))
			}
			if got, want := tr.watermark(), model.watermark(); got != want {
				t.Fatalf("watermark %d, want %d, open %v", got, want, model.open)
			}
			if model.open[tr.watermark()] && tr.leaderEpoch() != epochs[tr.watermark()] {
				t.Fatalf("leader epoch %d, want %d", tr.leaderEpoch(), epochs[tr.watermark()])
			}
			if tr.receive(tr.watermark()-1, epoch) || tr.finish(tr.next) {
				t.Fatal("an offset outside the window was taken")
			}
		}
	})
}

func sorted(in []int64) []int64 {
	for i := range in {
		for j := i; j > 0 && in[j] < in[j-1]; j-- {
			in[j], in[j-1] = in[j-1], in[j]
		}
	}
	return in
}

// One stuck record holds the watermark while the window grows to its limit, and
// everything behind it is passed when it finishes.
func TestTrackerGrowsToItsWindow(t *testing.T) {
	tr := newTracker(7)
	for o := int64(7); tr.room(o); o++ {
		if !tr.receive(o, 1) {
			t.Fatalf("offset %d not taken", o)
		}
		if o > 7 && !tr.finish(o) {
			t.Fatalf("offset %d not finished", o)
		}
	}
	if tr.watermark() != 7 || tr.next != 7+trackerWindow {
		t.Fatalf("watermark %d, next %d", tr.watermark(), tr.next)
	}
	if tr.finish(7); tr.watermark() != 7+trackerWindow {
		t.Errorf("watermark %d after the last one finished", tr.watermark())
	}
	if words := len(tr.received); words > 2*trackerWindow/64 {
		t.Errorf("%d words for a window of %d", words, trackerWindow)
	}
}
