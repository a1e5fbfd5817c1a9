package deliver

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/registry"
)

// Endpoints are read in the order in which their records came, each once, and
// again where that failed: records that stand together in the log are then
// wanted together.
func TestEndpointsAreReadInOrder(t *testing.T) {
	t.Parallel()
	w := &Worker{behind: map[*lane]struct{}{}, loads: make(chan struct{}, 1)}
	lanes := make([]*lane, 2*loadBatch)
	for i := range lanes {
		lanes[i] = newLane(nil, fmt.Sprintf("ep_%d", i), "acme")
		w.wantKnowledge(lanes[i])
		w.wantKnowledge(lanes[0])
	}
	delete(w.behind, lanes[1]) // forgotten
	stranger := newLane(nil, "ep_of_nobody", "")
	w.wantKnowledge(stranger)
	want := append(lanes[:1:1], lanes[2:]...)
	first, refs := w.unknown()
	if diff := cmp.Diff(names(want[:loadBatch]), names(first)); diff != "" || refs[2].Entity != "ep_2" {
		t.Fatalf("first to be read (-want +got):\n%s", diff)
	}
	w.askAgain(first)
	second, _ := w.unknown()
	third, _ := w.unknown()
	want = append(want[loadBatch:len(want):len(want)], want[:loadBatch]...)
	if diff := cmp.Diff(names(want), names(append(second, third...))); diff != "" {
		t.Errorf("read then (-want +got):\n%s", diff)
	}
	stranger.tenant = "acme"
	w.wantKnowledge(stranger)
	if last, _ := w.unknown(); len(last) != 1 || last[0] != stranger {
		t.Errorf("%v are read when the tenant is known", names(last))
	}
}

func names(lanes []*lane) (out []string) {
	for _, l := range lanes {
		out = append(out, l.name)
	}
	return out
}

// What was read ahead of parked records keeps nothing else of what was read with
// it.
func TestReadAheadIsACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return false }
		s.endpoint(registry.Endpoint{ID: "ep_1", RateLimit: registry.RateLimit{PerSecond: 1, Burst: 1}})
		for range 20 {
			r := s.record("ep_1", int64(len(s.logs[s.topics.Deliveries])))
			r.Topic = s.topics.Deliveries
			s.append(r)
		}
		l := s.start("w")
		defer l.die()
		looked := func() bool {
			l.w.mu.Lock()
			defer l.w.mu.Unlock()
			one := l.w.homes[0].lanes["ep_1"]
			if one == nil {
				return false
			}
			for _, e := range one.drained.items[one.drained.head:] {
				for _, r := range s.logs[s.topics.Deliveries] {
					if r.Offset == e.offset && &r.Value[0] == &e.delivery.Event.Data[0] {
						t.Errorf("the delivery at %d holds on to its batch", e.offset)
					}
				}
			}
			return one.drained.len() > 0
		}
		for until := time.Now().Add(time.Minute); !looked(); sleep(t.Context(), 100*time.Millisecond) {
			if time.Now().After(until) {
				t.Fatal("nothing was read ahead")
			}
		}
	})
}

// A change of an endpoint reaches each of its lanes, and no more are looked for than
// there can be.
func TestChangeReachesEveryShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.endpoint(registry.Endpoint{ID: "ep_1", Shards: 3})
		l := s.start("w")
		defer l.die()
		sleep(t.Context(), time.Second)
		l.w.mu.Lock()
		h, names := l.w.homes[0], []string{"ep_1", "ep_1-1", "ep_1-2"}
		for _, name := range names {
			l.w.lane(h, name, "acme", time.Now())
		}
		l.w.mu.Unlock()
		l.w.applyRegistry([]registry.Record{{Tenant: "acme", Entity: "ep_1", Offset: 500, Value: s.entries["ep_1"].Value}}, 501)
		l.w.mu.Lock()
		defer l.w.mu.Unlock()
		for _, name := range names {
			if at := h.lanes[name].know.version; at != 500 {
				t.Errorf("%s knows version %d, want 500", name, at)
			}
		}
		if l.w.shards != len(names) {
			t.Errorf("looks for %d lanes, want %d", l.w.shards, len(names))
		}
	})
}
