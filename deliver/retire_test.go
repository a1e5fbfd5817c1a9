package deliver

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postrider/postrider/internal/registry"
)

// Lanes at rest are forgotten after a while, those unused longest first and down to
// a number that costs little. A lane stays that knows what can't be read again.
func TestRestingLanesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const more = 20
		w := &Worker{
			cfg: Config{}.withDefaults(), homes: map[int32]*home{}, slots: newSlots(4, 64, 100), alarms: newAlarms(),
			unreported: map[*lane]struct{}{},
		}
		h := newHome(t.Context(), 0)
		defer h.cancel()
		w.homes[0] = h
		now := time.Now()
		stay := map[string]func(l *lane){
			"held":        func(l *lane) { l.hold = &hold{until: now.Add(time.Minute)} },
			"open":        func(l *lane) { l.breaker.trip = &trip{opened: now} },
			"failing":     func(l *lane) { l.failingSince, l.failures = now, 1 },
			"row":         func(l *lane) { l.breaker.failed = &failed{row: []uint64{1}} },
			"empty":       func(l *lane) { l.bucket = &bucket{rate: 1e-6, burst: 10, at: now} },
			"under way":   func(l *lane) { l.inflight = 1 },
			"queued":      func(l *lane) { l.queue.push(&entry{}) },
			"read ahead":  func(l *lane) { l.drained.push(&entry{}) },
			"pending":     func(l *lane) { l.pending = []parkedRecord{{}} },
			"flushing":    func(l *lane) { l.flushing = 1 },
			"parked":      func(l *lane) { l.chunks = []*chunk{{count: 1}} },
			"state saved": func(l *lane) { l.keepState(laneState{Version: 1, Reported: true}) },
			"to report":   func(l *lane) { w.unreported[l] = struct{}{} },
			"in order":    func(l *lane) { l.order = &ordering{nodes: 1} },
		}
		for name, busy := range stay {
			busy(w.lane(h, name, "acme", now.Add(-time.Hour)))
		}
		full := w.lane(h, "full", "acme", now.Add(-time.Hour))
		full.bucket = &bucket{rate: 1, burst: 10, tokens: 10, at: now}
		for i := range keepLanes + more - len(h.lanes) {
			w.lane(h, strconv.Itoa(i), "acme", now.Add(time.Duration(i)*time.Millisecond))
		}
		w.retire(now.Add(retireAfter))
		if len(h.lanes) != keepLanes+more-1 || h.lanes["full"] != nil {
			t.Errorf("%d lanes after %s, want only the one that was used an hour ago to be gone", len(h.lanes), retireAfter)
		}
		sleep(t.Context(), retireAfter+time.Minute)
		w.retire(time.Now())
		if len(h.lanes) != keepLanes || h.lanes[strconv.Itoa(more-2)] != nil || h.lanes[strconv.Itoa(more-1)] == nil {
			t.Errorf("%d lanes left, want %d: the ones used last", len(h.lanes), keepLanes)
		}
		for name := range stay {
			if h.lanes[name] == nil {
				t.Errorf("a lane that is %q was forgotten", name)
			}
		}
	})
}

// An endpoint that was forgotten is read again when something comes for it.
func TestForgottenLaneIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return false }
		s.endpoint(registry.Endpoint{ID: "ep_1"})
		l := s.start("w")
		defer l.die()
		sleep(t.Context(), time.Second)
		l.w.mu.Lock()
		h := l.w.homes[0]
		for i := range keepLanes {
			l.w.lane(h, strconv.Itoa(i), "acme", time.Now().Add(time.Hour))
		}
		l.w.mu.Unlock()
		for n := range 2 {
			r := s.record("ep_1", int64(n))
			r.Topic = s.topics.Deliveries
			s.append(r)
			sleep(t.Context(), time.Minute)
			l.w.mu.Lock()
			if h.lanes["ep_1"] == nil {
				t.Error("the lane was forgotten too early")
			}
			l.w.mu.Unlock()
			if len(s.posts) != n+1 {
				t.Fatalf("%d requests, want %d", len(s.posts), n+1)
			}
			sleep(t.Context(), retireAfter+time.Minute)
			l.w.mu.Lock()
			if h.lanes["ep_1"] != nil {
				t.Errorf("the lane is still there after %s", retireAfter+2*time.Minute)
			}
			l.w.mu.Unlock()
		}
	})
}
