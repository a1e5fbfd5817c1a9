package deliver

import (
	"fmt"
	"runtime"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"github.com/postrider/postrider/deliver/wheel"
	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/schemas"
)

// pump starts attempts while slots and lanes allow. The caller holds the lock.
func (w *Worker) pump() {
	now := time.Now()
	for {
		e := w.next(now)
		if e == nil {
			return
		}
		w.tasks.Go(func() { w.attempts(e) })
	}
}

// attempts makes attempts one after the other until there is none to start.
func (w *Worker) attempts(e *entry) {
	growStack()
	for e != nil {
		e = w.attempt(e)
	}
}

// growStack makes room for an attempt while there is nothing to copy: else every
// goroutine that makes one would grow its stack under the deepest of its calls.
//
//go:noinline
func growStack() {
	var room [attemptStack]byte
	room[0] = 1
	runtime.KeepAlive(&room)
}

// attemptStack, in bytes, makes a stack grow to the 8 KiB that an attempt without TLS
// fits into.
const attemptStack = 4 << 10

// next takes the entry to attempt next, nil where none may start: no slot, no
// lane, no lease, or too many outcomes not acknowledged.
func (w *Worker) next(now time.Time) *entry {
	for !w.stopping && w.unwritten < w.maxUnwritten() {
		l := w.slots.take()
		if l == nil {
			return nil
		}
		h := l.home
		if h.phase != phaseReady || !now.Before(h.lease) {
			h.stalled = true
			continue
		}
		if !l.startable() || l.condition(now, w.tailNext) != conditionActive {
			continue
		}
		if l.bucket.wait(now) > 0 {
			w.offer(l, now)
			continue
		}
		e := w.pop(l, now)
		if w.over(e, now) {
			w.offer(l, now)
			continue
		}
		l.bucket.take()
		l.inflight++
		l.starts++
		h.inflight++
		e.class, e.started = l.class(), now
		w.slots.start(e.class, l.tenant, e.weight())
		w.running[e] = struct{}{}
		w.offer(l, now)
		return e
	}
	return nil
}

// pop takes the first record that waits in a lane.
func (w *Worker) pop(l *lane, now time.Time) *entry {
	e := l.pop()
	w.freed(e.size())
	if l.queue.len() == 0 {
		delete(w.queued, l)
	}
	if e.chunk != nil && w.wants(l, now) {
		l.home.wake(l)
	}
	return e
}

// attempt makes one POST, hands its outcome to be written, and returns what to
// attempt next, nil if that is nothing.
func (w *Worker) attempt(e *entry) *entry {
	t := w.permit(e)
	if t == nil {
		return nil
	}
	d := &e.delivery
	now := time.Now()
	if d.FirstAttemptAt.IsZero() {
		d.FirstAttemptAt = now
	}
	ctx, span := w.span(e, t)
	traceparent := telemetry.Traceparent(span.SpanContext())
	res := w.exchange(ctx, t, newRequest(t, d, traceparent, now))
	v := judge(t, d, &res, time.Now())
	endSpan(span, &res, &v)
	if v.undone {
		w.putBack(e, time.Now().Add(localPause))
		return nil
	}
	a := newAttempt(e, &v, now)
	a.describe(&res, span.SpanContext())
	before := w.follow(e, &v, a, traceparent)
	value := a.encode()
	w.meters.attempt(ctx, &a.Attempt)
	w.mu.Lock()
	defer w.mu.Unlock()
	now = time.Now()
	w.land(e, t, &v, &res, now)
	w.judgeEndpoint(e.lane, t, &v, now)
	w.write(e, value, before, now)
	next := w.next(now)
	if next != nil {
		w.pump()
	}
	return next
}

// permit returns the newest version of the entry's endpoint, or nil if the
// attempt must not be made: the lease ended, or the endpoint was deleted, since
// the entry was taken.
func (w *Worker) permit(e *entry) *target {
	w.mu.Lock()
	h := e.lane.home
	t := e.lane.know.target
	leased := h.phase == phaseReady && time.Now().Before(h.lease)
	if t != nil && leased {
		h.occupy(e)
	}
	w.mu.Unlock()
	if t != nil && leased {
		return t
	}
	w.putBack(e, time.Time{})
	return nil
}

// localPause is how long a lane waits after an attempt that failed for want of
// something on this machine (files, ports, memory).
const localPause = time.Second

// putBack ends an attempt that did not happen: its record goes back to where it
// was taken from. The lane starts nothing before a time, if that is not zero.
func (w *Worker) putBack(e *entry, until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.leave(e)
	l := e.lane
	l.bucket.refund()
	if l.home.phase != phaseReady || e.lost {
		return // the next owner makes it
	}
	if !until.IsZero() {
		w.pauseLane(l, until)
	}
	switch condition := l.condition(now, w.tailNext); condition {
	case conditionDeleted:
		w.end(e, schemas.OutcomeCancelled, endedDeleted)
	case conditionPaused, conditionDisabled, conditionBroken:
		if e.chunk != nil {
			l.rewind(e)
		} else {
			w.park(l, e)
		}
	case conditionActive, conditionHeld, conditionOpen, conditionLoading:
		if e.chunk != nil {
			l.drained.back(e)
		} else {
			l.queue.back(e)
			w.queued[l] = struct{}{}
		}
		w.waiting += e.size()
		l.home.stalled = true // offered again with the next lease
	}
	if e.outcome == "" {
		w.vacate(e, now)
	}
	w.pump()
}

// leave frees an attempt's slot.
func (w *Worker) leave(e *entry) {
	delete(w.running, e)
	w.slots.end(e.class, e.lane.tenant, e.weight())
	e.lane.inflight--
	e.lane.home.inflight--
	w.settled.Broadcast()
}

// land counts an attempt as over: its slot is free, its lane learns from it. What
// a receiver said that the endpoint no longer has holds nothing up.
func (w *Worker) land(e *entry, t *target, v *verdict, res *egress.Result, now time.Time) {
	w.leave(e)
	l := e.lane
	if l.home.phase == phaseClosed {
		return
	}
	was := l.class()
	l.answered(v, res.Duration, res.Err != nil && res.Err.Timeout, now)
	if was != l.class() {
		w.slots.withdraw(l)
	}
	if l.know.target.sameReceiver(t) {
		if v.hold > 0 {
			w.holdLane(l, t, v, now)
		}
		w.countAttempt(l, tried{e.delivery.ID, e.started, v.outcome == schemas.OutcomeDelivered}, now)
	}
	w.offer(l, now)
	if w.wants(l, now) {
		l.home.wake(l)
	}
}

// countAttempt has the lane's breaker judge an attempt.
func (w *Worker) countAttempt(l *lane, a tried, now time.Time) {
	changed := l.breaker.record(l.policy(), a, now)
	switch {
	case l.breaker.isOpen():
		// Opened, or a probe failed: what has waited goes on waiting in the log.
		w.alarms.set(l, l.breaker.probeAt)
		w.parkQueue(l)
		w.dropDrained(l)
	case changed:
		l.window, l.clean = slowStart, 0 // no flood over an endpoint that is just back
	}
	if changed {
		w.meters.breaker(w.life, l.breaker.isOpen())
		w.saveState(l, now)
		w.unreported[l] = struct{}{}
	}
}

// follow returns the record that must be acknowledged before the attempt's own:
// the next attempt in schedule, or the delivery in dead. Nil where there is none:
// what fails in an ordered lane waits in its place.
func (w *Worker) follow(e *entry, v *verdict, a *attempt, traceparent string) *kgo.Record {
	d := &e.delivery
	e.outcome = v.outcome
	switch v.outcome {
	case schemas.OutcomeRetry:
		due := time.Now().Add(wheel.Duration(v.levels))
		at := due.UTC()
		a.NextAt = &at
		if e.line != nil {
			a.InPlace = true
			e.stays, e.trace = retry{attempt: d.Attempt + 1, due: due.UnixMilli()}, traceparent
			return nil
		}
		next := *d
		next.Attempt++
		next.Levels = v.levels
		next.DueAt = due
		next.LastTrace = traceparent
		return w.wheel.First(&next)
	case schemas.OutcomeExhausted, schemas.OutcomeExpired:
		return deadRecord(w.topics.Dead, d, string(v.outcome))
	default:
		return nil
	}
}

// end closes a record without an attempt.
func (w *Worker) end(e *entry, outcome schemas.Outcome, why string) {
	v := verdict{outcome: outcome, class: why}
	now := time.Now()
	a := newAttempt(e, &v, now)
	w.meters.attempt(w.life, &a.Attempt)
	w.write(e, a.encode(), w.follow(e, &v, a, ""), now)
}

// newAttempt names what was attempted.
func newAttempt(e *entry, v *verdict, at time.Time) *attempt {
	d := &e.delivery
	return &attempt{schemas.Attempt{
		Offset: e.offset, Tenant: d.Event.Tenant, Endpoint: d.Endpoint, Shard: d.Shard, Event: d.EventID, Type: d.Event.Type,
		Position: d.Position, Delivery: d.ID, Replay: d.Replay, Attempt: d.Attempt,
		Outcome: v.outcome, Error: v.class, StartedAt: at.UTC(),
	}}
}

// attempt is a record of attempts that is being made.
type attempt struct{ schemas.Attempt }

// describe notes what the exchange brought.
func (a *attempt) describe(res *egress.Result, sc trace.SpanContext) {
	a.Status, a.Duration = res.Status, float64(res.Duration.Microseconds())/1000
	a.Response, a.Truncated = text(res.Body), res.Truncated
	if res.Err != nil {
		a.Detail = res.Err.Detail
	}
	if sc.IsSampled() {
		a.TraceID, a.SpanID = sc.TraceID().String(), sc.SpanID().String()
	}
}

// encode returns the record's value.
func (a *attempt) encode() []byte {
	value, err := schemas.EncodeAttempt(&a.Attempt)
	if err != nil { // of all fields only a time before year 0 or after 9999 can't be written
		panic(fmt.Sprintf("encode attempt: %v", err))
	}
	return value
}

// text returns the beginning of an answer as valid UTF-8.
func text(body []byte) string {
	if !utf8.Valid(body) {
		return strconv.QuoteToASCII(string(body[:min(len(body), 1024)]))
	}
	return string(body)
}
