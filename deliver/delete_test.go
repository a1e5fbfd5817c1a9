package deliver

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// However much waits for an endpoint that is deleted, no more outcomes are on their
// way at once than of any other; all of it ends, also where the worker dies over it.
func TestDeletionIsBounded(t *testing.T) {
	for _, test := range []struct{ ordered, dies bool }{{true, false}, {true, true}, {false, true}} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const total = 14_000
				s := newSim(t, 1)
				s.failing = func(string, int) bool { return false }
				s.endpoint(registry.Endpoint{ID: "ep_1", State: registry.StatePaused, Ordered: test.ordered})
				s.made, s.total = func(offset int64) *kgo.Record { return s.record("ep_1", offset) }, total
				l := s.start("w0")
				l.parked(total)
				s.remove("ep_1")
				most := 0
				for range 200 {
					l.w.mu.Lock()
					most = max(most, l.w.unwritten)
					l.w.mu.Unlock()
					sleep(t.Context(), time.Millisecond)
				}
				if test.dies {
					l.die()
					l = s.start("w1")
				}
				sleep(t.Context(), 10*time.Minute)
				l.die()
				if most == 0 || most > l.w.maxUnwritten() {
					t.Errorf("%d outcomes on their way at once, want at most %d", most, l.w.maxUnwritten())
				}
				ended := map[int64]bool{}
				for _, a := range s.attempts() {
					if a.Outcome != schemas.OutcomeCancelled {
						t.Fatalf("an outcome of a deleted endpoint: %+v", a)
					}
					if ended[a.Offset] = true; a.Count > 0 {
						for o := a.First; o <= a.Last; o++ {
							ended[o] = true
						}
					}
				}
				if len(ended) != total {
					t.Errorf("%d of %d deliveries have ended", len(ended), total)
				}
				s.checkParked()
			})
		})
	}
}

// A chunk whose offsets lie between those of another one does not end as a whole: a
// new owner would take those of the other one for ended, too.
func TestOverlappingChunksEndOneByOne(t *testing.T) {
	t.Parallel()
	chunkOf := func(offsets ...int64) *chunk { return newChunk(offsets[0], &parked{offsets: offsets}) }
	l := newLane(nil, "ep_1", "acme")
	l.chunks = []*chunk{chunkOf(1, 2), chunkOf(3, 9), chunkOf(5, 7), chunkOf(10, 20), chunkOf(21, 30), chunkOf(40, 50)}
	l.aloft, l.pending, l.pendingLow = []*chunk{chunkOf(25, 26)}, []parkedRecord{{offset: 60}}, 60
	var alone []int64
	for i, c := range l.chunks {
		if l.alone(i) {
			alone = append(alone, c.first)
		}
	}
	if fmt.Sprint(alone) != "[1 10 40]" {
		t.Errorf("the chunks from %v end as a whole, want those from 1, 10 and 40", alone)
	}
}
