package deliver

import (
	"container/heap"
	"context"
	"time"
)

// alarms wakes lanes at times: the end of a hold, the next token of a rate limit,
// the next probe of an open breaker, the retry of an ordered delivery. A lane
// has one alarm, for the earliest of them. The caller holds the worker's lock.
type alarms struct {
	lanes alarmHeap
	rearm chan struct{} // the earliest alarm changed; capacity 1
}

func newAlarms() *alarms { return &alarms{rearm: make(chan struct{}, 1)} }

// set has the lane woken at a time, or earlier if that was asked before.
func (a *alarms) set(l *lane, at time.Time) {
	switch {
	case l.alarm.IsZero():
		l.alarm = at
		heap.Push(&a.lanes, l)
	case at.Before(l.alarm):
		l.alarm = at
		heap.Fix(&a.lanes, l.alarmIndex)
	default:
		return
	}
	if a.lanes[0] == l {
		select {
		case a.rearm <- struct{}{}:
		default:
		}
	}
}

// drop forgets a lane's alarm.
func (a *alarms) drop(l *lane) {
	if !l.alarm.IsZero() {
		heap.Remove(&a.lanes, l.alarmIndex)
		l.alarm = time.Time{}
	}
}

// due takes the lanes whose time has come.
func (a *alarms) due(now time.Time) (lanes []*lane) {
	for len(a.lanes) > 0 && !now.Before(a.lanes[0].alarm) {
		l := a.lanes[0]
		a.drop(l)
		lanes = append(lanes, l)
	}
	return lanes
}

// next returns how long it is until the earliest alarm, at most a second.
func (a *alarms) next(now time.Time) time.Duration {
	if len(a.lanes) == 0 {
		return time.Second
	}
	return min(max(a.lanes[0].alarm.Sub(now), 0), time.Second)
}

// alarmLoop wakes lanes when their time has come.
func (w *Worker) alarmLoop(ctx context.Context) error {
	beat := w.beat("deliver.alarm", 10*time.Second)
	defer beat.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-w.alarms.rearm:
		}
		beat.Tick()
		w.mu.Lock()
		now := time.Now()
		for _, l := range w.alarms.due(now) {
			w.woken(l, now)
		}
		w.pump() //nolint:contextcheck // attempts outlive who starts them
		timer.Reset(w.alarms.next(now))
		w.mu.Unlock()
	}
}

// woken has a lane go on after its alarm.
func (w *Worker) woken(l *lane, now time.Time) {
	if !l.held(now) {
		w.unhold(l, now)
	}
	if l.home.phase == phaseReady {
		w.resume(l, now)
		w.arm(l, now)
	}
}

// arm has a lane woken at the end of its hold, and for its breaker's next probe.
// A lane has one alarm, for the earliest of all that it waits for: the others are
// asked for again when it has gone off.
func (w *Worker) arm(l *lane, now time.Time) {
	if l.held(now) {
		w.alarms.set(l, l.hold.until)
	}
	if l.breaker.isOpen() && now.Before(l.breaker.probeAt) {
		w.alarms.set(l, l.breaker.probeAt)
	}
}

// alarmHeap is a heap of lanes by alarm.
type alarmHeap []*lane

func (h alarmHeap) Len() int           { return len(h) }
func (h alarmHeap) Less(i, j int) bool { return h[i].alarm.Before(h[j].alarm) }
func (h alarmHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].alarmIndex, h[j].alarmIndex = i, j
}

// Push implements heap.Interface.
func (h *alarmHeap) Push(l any) {
	one := l.(*lane) //nolint:forcetypeassert // nothing else is pushed
	one.alarmIndex = len(*h)
	*h = append(*h, one)
}

// Pop implements heap.Interface.
func (h *alarmHeap) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return l
}
