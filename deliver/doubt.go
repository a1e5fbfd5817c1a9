package deliver

import (
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/deliver/wheel"
	"github.com/postrider/postrider/schemas"
)

// An owner that dies after a retry record and before the attempt's own leaves a
// retry of an attempt that its successor makes again. Whatever comes of that, only
// one of the two may go on: a successor remembers what came of the attempts
// that it may not have been the first to make, and a retry that comes while
// such an attempt is under way waits for its outcome.

// occupy notes that an attempt that an owner before may have made is under way, or
// its outcome is.
func (h *home) occupy(e *entry) {
	if h.inherits(e) && e.outcome != schemas.OutcomeRepeat {
		h.underway[keyOf(e.delivery.ID, e.delivery.Position)] = e
	}
}

// awaits reports whether a record must wait for the outcome of an earlier attempt
// of its delivery that is under way, and has it wait for that. It takes no more
// memory than that attempt, of which there is one payload for both.
func (h *home) awaits(e *entry) bool {
	if e.delivery.Attempt < 2 || len(h.underway) == 0 {
		return false
	}
	other := h.underway[keyOf(e.delivery.ID, e.delivery.Position)]
	if other == nil || other == e || other.twin != nil || other.delivery.Attempt >= e.delivery.Attempt {
		return false
	}
	other.twin = e
	return true
}

// vacate notes that an attempt is not under way any more. What waited for its outcome
// is judged again.
func (w *Worker) vacate(e *entry, now time.Time) {
	h := e.lane.home
	if len(h.underway) > 0 {
		if key := keyOf(e.delivery.ID, e.delivery.Position); h.underway[key] == e {
			delete(h.underway, key)
		}
	}
	twin := e.twin
	if e.twin = nil; twin == nil || h.phase != phaseReady {
		return // not finished: the next owner reads it again
	}
	if twin.chunk == nil {
		w.admit(h, twin, now)
	} else {
		twin.lane.rewind(twin)
		w.resumeOrEnd(twin.lane, now)
	}
	w.pump()
}

// learn remembers what came of an attempt whose outcome is acknowledged.
func (h *home) learn(e *entry, now time.Time) {
	d, m := &e.delivery, met{e.offset, e.delivery.Attempt}
	if e.outcome.Final() {
		m = metEnd()
	}
	switch {
	case e.doubtUntil != 0:
		h.copies.doubt(keyOf(d.ID, d.Position), doubt{m, e.doubtUntil}, now.Unix())
	case m == metEnd() && d.Attempt > 1:
		h.copies.end(keyOf(d.ID, d.Position), now.Unix())
	}
}

// doubted returns the headers of an outcome's record: until when the retry of an owner
// before may come, where there may be one.
func (w *Worker) doubted(e *entry, now time.Time) []kgo.RecordHeader {
	if e.outcome == "" || e.outcome == schemas.OutcomeRepeat || e.stays != (retry{}) || !e.lane.home.inherits(e) {
		return nil
	}
	e.doubtUntil = now.Add(e.lane.longestWait(e.delivery.Attempt)).Unix() + copiesKeep
	return []kgo.RecordHeader{{Key: headerDoubt, Value: strconv.AppendInt(nil, e.doubtUntil, 10)}}
}

// longestWait is the most that the wait after an attempt can be, as far as the lane
// knows its endpoint's schedule.
func (l *lane) longestWait(attempt int) time.Duration {
	step := maxRetryAfter
	if t := l.know.target; t != nil && len(t.schedule) > 0 {
		step = max(step, t.schedule[min(attempt, len(t.schedule))-1])
	}
	return wheel.WorstCase(step)
}
