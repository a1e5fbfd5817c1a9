package deliver

import (
	"hash/fnv"
	"time"
)

// holdWorth is how long a hold must be for its endpoint's owner to be told of it.
const holdWorth = 10 * time.Second

// hold is until when a lane starts nothing, because its receiver asked for that
// (Retry-After), or, without a reason, because this machine can't.
type hold struct {
	since, until time.Time
	reason       string // the error class of the answer
	receiver     uint32 // who asked, by a hash of its url; 0: not known, or nobody
}

// held reports whether the lane may start nothing yet.
func (l *lane) held(now time.Time) bool { return l.hold != nil && now.Before(l.hold.until) }

// worth reports whether a hold that is in force is worth telling.
func (h *hold) worth(now time.Time) bool {
	return h != nil && h.reason != "" && now.Before(h.until) && h.until.Sub(h.since) >= holdWorth
}

// asked reports whether it was the receiver of a target that asked for the hold, as
// far as that is known.
func (h *hold) asked(t *target) bool {
	return h == nil || h.receiver == 0 || h.receiver == receiverOf(t)
}

// receiverOf returns what stands for a target's url.
func receiverOf(t *target) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(t.url.String()))
	return max(h.Sum32(), 1)
}

// holdLane has a lane start nothing for as long as its receiver asked for, across
// owners.
func (w *Worker) holdLane(l *lane, t *target, v *verdict, now time.Time) {
	until := now.Add(v.hold)
	if l.hold != nil && !until.After(l.hold.until) {
		return
	}
	next := &hold{since: now, until: until, reason: v.class, receiver: receiverOf(t)}
	if l.held(now) && l.hold.reason != "" {
		next.since = l.hold.since
	}
	l.hold = next
	w.alarms.set(l, until)
	w.parkQueue(l)
	w.dropDrained(l)
	w.saveState(l, now)
	if next.worth(now) {
		w.unreported[l] = struct{}{}
	}
}

// pauseLane has a lane start nothing for a moment, for a reason of ours.
func (w *Worker) pauseLane(l *lane, until time.Time) {
	if l.hold == nil || until.After(l.hold.until) {
		l.hold = &hold{until: until}
		w.alarms.set(l, until)
	}
}

// unhold ends a lane's hold, also in lanes if it stands there. What was told of it
// ends by itself, and is taken back with the next minute.
func (w *Worker) unhold(l *lane, now time.Time) {
	if l.hold == nil {
		return
	}
	if l.held(now) && l.isTold() {
		w.unreported[l] = struct{}{}
	}
	l.hold = nil
	w.saveState(l, now)
}
