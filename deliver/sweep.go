package deliver

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

// Intervals of the sweep.
const (
	flushEvery  = 250 * time.Millisecond
	expireEvery = 30 * time.Second
	// flushLatest is how long parked offsets wait for company at most.
	flushLatest = 4 * time.Second
	// failingWorthSaving is from when on a successor should know since when an
	// endpoint fails.
	failingWorthSaving = time.Hour
	// retireAfter is how long a lane may be at rest before it is forgotten;
	// keepLanes are kept all the same, so that a worker with few endpoints knows
	// them when the view is away.
	retireAfter = 10 * time.Minute
	keepLanes   = 4096
)

// sweepLoop does what happens by the clock: parks what has waited too long,
// flushes parked offsets, marks attempts that take long, tells how endpoints
// fare, rewrites chunks, visits what has grown too old.
func (w *Worker) sweepLoop(ctx context.Context) error {
	beat := w.beat("deliver.sweep", 10*time.Second)
	defer beat.Stop()
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	var rewritten, expired time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			beat.Tick()
			w.mu.Lock()
			w.parkLate(now)
			w.flush(now)
			w.markSlow(now)
			w.tell(ctx, now)
			w.evict()
			w.cancelFurther(now)
			if now.Sub(rewritten) >= rewriteAfter {
				rewritten = now
				w.tidy(now)
				w.retire(now)
			}
			if now.Sub(expired) >= expireEvery {
				expired = now
				w.visitOld(now)
			}
			w.pump() //nolint:contextcheck // attempts outlive who starts them
			w.mu.Unlock()
		}
	}
}

// tidy shortens what has grown: chunks that are partly finished, cancels that
// nothing can meet any more.
func (w *Worker) tidy(now time.Time) {
	for _, h := range w.homes {
		if h.phase == phaseReady {
			w.rewrite(h)
			w.forgetCancels(h, now)
			h.copies.tidy(now.Unix())
			for _, l := range h.lanes {
				w.mendFormer(l)
				w.saveState(l, now)
				if !l.failingSince.IsZero() || l.isTold() {
					w.unreported[l] = struct{}{}
				}
			}
		}
	}
}

// parkLate parks the queue of each lane whose oldest record has waited for
// longer than startWithin. A lane that goes through its queue quickly keeps it: to
// park it would cost a record of lanes and a second read for nothing.
func (w *Worker) parkLate(now time.Time) {
	look := now.Sub(w.pacedAt) >= time.Second
	if look {
		w.pacedAt = now
	}
	for l := range w.queued {
		if look {
			l.pace, l.starts = l.starts, 0
		}
		e := l.queue.first()
		if e == nil || l.home.phase != phaseReady || now.Sub(e.received) < startWithin {
			continue
		}
		if moving := time.Duration(l.queue.len()) * time.Second / time.Duration(max(l.pace, 1)); moving > movesWithin || now.Sub(e.received) > movesWithin {
			w.parkQueue(l)
		}
	}
}

// markSlow moves lanes whose attempts take longer than slowAfter to the slow
// share while they are under way.
func (w *Worker) markSlow(now time.Time) {
	for e := range w.running {
		if e.class == classSlow || now.Sub(e.started) < slowAfter {
			continue
		}
		w.slots.turn(e.class, e.lane.tenant, e.weight())
		e.class = classSlow
		if l := e.lane; !l.slow {
			l.slow = true
			w.slots.withdraw(l)
			w.offer(l, now)
		}
	}
}

// restore takes up a lane's state as its last owner left it. The endpoint is read:
// it may have been deleted, or enabled, since then.
func (w *Worker) restore(h *home, name string, s laneState, now time.Time) {
	l := w.lane(h, name, s.Tenant, now)
	if l.tenant != "" {
		w.wantKnowledge(l)
	}
	l.failingSince, l.failures = s.FailingSince, s.Failures
	l.keepState(s)
	if !s.Hold.IsZero() {
		// An older state says no more than until when.
		l.hold = &hold{since: s.HoldSince, until: s.Hold, reason: cmp.Or(s.HoldReason, errorBusy), receiver: s.HoldReceiver}
		if s.HoldSince.IsZero() {
			l.hold.since = now
		}
		w.alarms.set(l, s.Hold)
	}
	if !s.OpenSince.IsZero() {
		l.breaker.restore(l.policy(), s.OpenSince, s.OpenReason, now)
		w.alarms.set(l, l.breaker.probeAt)
	}
	if s.Reported {
		// What was told is not known; it is told anew.
		l.reported = toldSince(now)
		w.unreported[l] = struct{}{}
	}
}

// saveState writes the lane's state if lanes does not have it yet. That an
// endpoint fails is worth a record only once it lasts.
func (w *Worker) saveState(l *lane, now time.Time) {
	var s laneState
	if h := l.hold; h != nil && h.reason != "" {
		s.Hold, s.HoldSince = h.until.UTC().Truncate(time.Millisecond), h.since.UTC().Truncate(time.Millisecond)
		s.HoldReason, s.HoldReceiver = h.reason, h.receiver
	}
	if !l.failingSince.IsZero() && now.Sub(l.failingSince) >= failingWorthSaving {
		s.FailingSince = l.failingSince.UTC().Truncate(time.Millisecond)
		s.Failures = min(l.failures, disableAttempts)
	}
	if l.breaker.isOpen() {
		s.OpenSince, s.OpenReason = l.breaker.opened.UTC().Truncate(time.Millisecond), l.breaker.reason
	}
	s.Reported = l.isTold()
	if s != (laneState{}) {
		s.Version, s.Tenant, s.EnabledAfter = 1, l.tenant, l.enabledAfter()
	}
	if s == l.savedState() {
		return
	}
	l.keepState(s)
	r := &kgo.Record{Topic: w.topics.Lanes, Partition: l.home.partition, Key: []byte(l.name + stateSuffix)}
	if s != (laneState{}) {
		r.Value = mustJSON(s)
	}
	w.produce(l.home, r, func(*kgo.Record) {})
}

// enabledAfter returns that of the endpoint's version that the lane goes by, or that
// its last owner went by.
func (l *lane) enabledAfter() int64 {
	switch {
	case l.know.target != nil:
		return l.know.target.endpoint.EnabledAfter
	case l.stored != nil:
		return l.stored.EnabledAfter
	}
	return 0
}

// savedState returns what stands in lanes of the lane.
func (l *lane) savedState() laneState {
	if l.stored == nil {
		return laneState{}
	}
	return *l.stored
}

// keepState notes what stands in lanes of the lane.
func (l *lane) keepState(s laneState) {
	if l.stored = nil; s != (laneState{}) {
		l.stored = &s
	}
}

// resume has a lane go on with all it has.
func (w *Worker) resume(l *lane, now time.Time) {
	w.offer(l, now)
	w.look(l, now)
	if l.unread() {
		l.home.wake(l)
	}
}

// resumeOrEnd has a lane go on that something was parked in, or ends what it has if
// its endpoint was deleted meanwhile.
func (w *Worker) resumeOrEnd(l *lane, now time.Time) {
	if l.condition(now, w.tailNext) == conditionDeleted {
		w.cancelLane(l)
		return
	}
	w.resume(l, now)
}

// evict forgets idle lanes, longest unused first, while there are more than
// MaxLanes.
func (w *Worker) evict() {
	if total := w.lanes(); total > w.cfg.MaxLanes {
		w.forgetUnused(total-w.cfg.MaxLanes*9/10, (*lane).idle)
	}
}

// retire forgets lanes that have been at rest for retireAfter, longest unused
// first, down to keepLanes.
func (w *Worker) retire(now time.Time) {
	before := uptime(now) - retireAfter
	w.forgetUnused(w.lanes()-keepLanes, func(l *lane) bool {
		_, unreported := w.unreported[l]
		return l.touched < before && !unreported && l.rests()
	})
}

// lanes returns how many lanes there are.
func (w *Worker) lanes() (total int) {
	for _, h := range w.homes {
		total += len(h.lanes)
	}
	return total
}

// forgetUnused forgets at most n lanes of which that holds, longest unused first.
func (w *Worker) forgetUnused(n int, holds func(*lane) bool) {
	if n <= 0 {
		return
	}
	var unused []*lane
	for _, h := range w.homes {
		for _, l := range h.lanes {
			if holds(l) {
				unused = append(unused, l)
			}
		}
	}
	slices.SortFunc(unused, func(a, b *lane) int { return cmp.Compare(a.touched, b.touched) })
	for _, l := range unused[:min(len(unused), n)] {
		w.forget(l)
		delete(l.home.reading, l)
		delete(l.home.visits, l)
		delete(l.home.lanes, l.name)
	}
}

// mend forgets that an endpoint failed.
func (w *Worker) mend(l *lane) {
	l.failingSince, l.failures, l.breaker = time.Time{}, 0, breaker{}
	if l.isTold() {
		w.unreported[l] = struct{}{}
	}
}

// unread returns an entry for a parked record whose payload is not needed.
func (w *Worker) unread(l *lane, c *chunk, i int, offset int64) *entry {
	e := &entry{offset: offset, lane: l, chunk: c, index: i}
	e.delivery = schemas.Delivery{Endpoint: l.endpoint, Shard: int(l.shard), Attempt: 1, Event: schemas.Event{Tenant: l.tenant}}
	return e
}
