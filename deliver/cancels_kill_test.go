package deliver

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/internal/registry"
)

// A cancel outlives a worker that dies while it carries it out: the delivery is not
// sent by the next one, whichever of outcome and tombstone was written.
func TestCancelOutlivesItsWorker(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t, seed)
			s.failing = func(string, int) bool { return false }
			e := registry.Endpoint{ID: "ep_1", State: registry.StatePaused}
			s.endpoint(e)
			l := s.start("w0")
			l.follow()
			id := s.send("ep_1", "", 1)
			l.parked(1)
			s.cancel("ep_1", id)
			sleep(t.Context(), time.Second)
			tombstones := func() (n int) {
				s.mu.Lock()
				defer s.mu.Unlock()
				for _, r := range s.logs[s.topics.Lanes] {
					if kind, _, _ := laneKind(string(r.Key)); kind == kindCancel && r.Value == nil {
						n++
					}
				}
				return n
			}
			e.State = registry.StateEnabled
			s.change(e)
			for until := time.Now().Add(time.Minute); tombstones() == 0 && len(s.attempts()) == 0 && time.Now().Before(until); {
				sleep(t.Context(), 50*time.Microsecond)
			}
			l.die()
			l = s.start("w1")
			sleep(t.Context(), 5*time.Minute)
			l.die()
			if sent := len(s.numbers()); sent > 0 || s.finals("") != 1 {
				t.Errorf("seed %d: %d requests, %d ends", seed, sent, s.finals(""))
			}
		})
	}
}

// Where all that a lane has read ahead is cancelled while it waits for a slot, it
// reads on.
func TestCancelledAheadOfASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const events = 20
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return false }
		e := registry.Endpoint{ID: "ep_1", State: registry.StatePaused}
		s.endpoint(e)
		l := s.start("w0")
		l.follow()
		for n := range events {
			s.send("ep_1", "", n)
		}
		l.parked(events)
		slots := func(taken bool) {
			l.w.mu.Lock()
			defer l.w.mu.Unlock()
			if l.w.stopping = taken; !taken { // stopping starts nothing, as if there were no slot
				l.w.pump()
			}
		}
		slots(true)
		e.State = registry.StateEnabled
		s.change(e)
		sleep(t.Context(), 10*time.Second)
		ahead := 0
		for again := true; again; {
			var ids []string
			l.w.mu.Lock()
			q := &l.w.homes[0].lanes["ep_1"].drained
			for _, e := range q.items[q.head:] {
				ids = append(ids, e.delivery.ID)
			}
			l.w.mu.Unlock()
			for _, id := range ids {
				s.cancel("ep_1", id)
			}
			ahead += len(ids)
			again = ahead == 0
			sleep(t.Context(), time.Second)
		}
		slots(false)
		sleep(t.Context(), time.Hour)
		l.die()
		if got := s.finals(""); got != events || ahead == events {
			t.Errorf("%d cancelled; %d of %d have ended", ahead, got, events)
		}
	})
}

// The head of an ordered key that failed and waits for its retry ends when it is
// cancelled, also where an owner before had attempted it, and the cancel is older than
// the owner. What is behind it goes on.
func TestCancelOfAHeadAfterHandOver(t *testing.T) {
	for _, when := range []string{"same owner", "after the hand-over", "before the hand-over"} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, 1)
				s.failing = func(_ string, attempt int) bool { return attempt == 1 && len(s.numbers()) == 1 }
				s.endpoint(registry.Endpoint{
					ID: "ep_1", Ordered: true, OnExhausted: registry.BlockExhausted,
					Retry: registry.Retry{Schedule: []registry.Duration{registry.Duration(24 * time.Hour)}},
				})
				l := s.start("w0")
				l.follow()
				first := s.send("ep_1", "k", 1)
				s.send("ep_1", "k", 2)
				sleep(t.Context(), 5*time.Minute)
				if when != "same owner" {
					l.die()
					if when == "before the hand-over" {
						s.cancel("ep_1", first)
					}
					l = s.start("w1")
					l.follow()
					sleep(t.Context(), time.Minute)
				}
				if when != "before the hand-over" {
					s.cancel("ep_1", first)
				}
				sleep(t.Context(), time.Minute)
				l.die()
				if got := s.finals(""); got != 2 {
					t.Errorf("%d of 2 have ended: %+v", got, s.attempts())
				}
			})
		})
	}
}
