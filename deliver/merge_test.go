package deliver

import (
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// What trickles into an ordered lane that waits has a chunk for each flush until
// the next owner writes it into full ones; what lies behind the records that the
// lane looks at is merged as in any other lane.
func TestChunksOfOrderedLanes(t *testing.T) {
	for _, test := range []struct {
		before, keys int // records that stand before, of so many keys
		merges       bool
	}{{1, 1, false}, {maxKeys, maxKeys, true}} {
		t.Run(fmt.Sprint(test.keys, " keys"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const trickle = 1000
				s := newSim(t, 1)
				s.failing = func(string, int) bool { return false }
				s.endpoint(registry.Endpoint{ID: "ep_1", State: registry.StatePaused, Ordered: true})
				s.made = func(offset int64) *kgo.Record {
					e := schemas.Event{ID: strconv.FormatInt(offset, 10), Source: "/sim", Type: "t", Tenant: "acme", PartitionKey: strconv.FormatInt(offset%int64(test.keys), 10)}
					d := &schemas.Delivery{Event: e, ID: schemas.DeliveryID(e.EventID(), "ep_1", ""), EventID: e.EventID(), Endpoint: "ep_1", Attempt: 1, MadeAt: time.Now()}
					return &kgo.Record{
						Key: []byte("ep_1"), Headers: schemas.AppendDeliveryHeaders[kgo.RecordHeader](nil, d), Offset: offset, Timestamp: time.Now(),
					}
				}
				s.total = int64(test.before)
				l := s.start("w0")
				l.parked(test.before)
				before := l.chunks("ep_1")
				for range trickle {
					s.mu.Lock()
					s.total++
					s.mu.Unlock()
					sleep(t.Context(), 300*time.Millisecond)
				}
				l.parked(test.before + trickle)
				got := l.chunks("ep_1") - before
				t.Logf("%d records, then %d: %d chunks", test.before, trickle, got)
				if merged := got <= mergeAbove+1; merged != test.merges {
					t.Errorf("%d chunks for %d records that trickled, merged %t", got, trickle, test.merges)
				}
				l.die()
				l = s.start("w1")
				sleep(t.Context(), time.Minute)
				if got, want := l.chunks("ep_1"), (test.before+trickle+chunkSize-1)/chunkSize; got > want {
					t.Errorf("%d chunks with the next owner, want %d", got, want)
				}
				l.die()
			})
		})
	}
}

// chunks returns how many chunks a lane has.
func (l *life) chunks(lane string) int {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return len(l.w.homes[0].lanes[lane].chunks)
}
