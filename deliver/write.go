package deliver

import (
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/schemas"
)

// writeAgain is the pause before a record that Kafka refused is written again.
const writeAgain = time.Second

// write records the outcome of an entry in the order that exact resume rests
// on: the retry or dead record is acknowledged first, then the attempt record,
// then the entry is done. Nothing of it blocks. The caller holds the lock.
func (w *Worker) write(e *entry, attempt []byte, before *kgo.Record, now time.Time) {
	h := e.lane.home
	if h.phase == phaseClosed {
		return // the next owner makes the attempt again and writes its outcome
	}
	w.unwritten += e.weight()
	h.unwritten += e.weight()
	h.occupy(e)
	record := &kgo.Record{
		Topic: w.topics.Attempts, Partition: h.partition, Key: []byte(e.lane.endpoint), Value: attempt, Headers: w.doubted(e, now),
	}
	done := func(r *kgo.Record) { w.done(e, r.Offset) }
	if before == nil {
		w.produceFor(e, record, done)
		return
	}
	w.produceFor(e, before, func(*kgo.Record) { w.produceFor(e, record, done) })
}

// produce writes a record for a home and calls then once it is acknowledged,
// without the lock. A record that Kafka refuses is written again while the home
// is ours. It never blocks: the buffer being full counts as a refusal.
func (w *Worker) produce(h *home, r *kgo.Record, then func(*kgo.Record)) {
	w.produceOr(h, nil, r, then)
}

// produceFor is produce for the outcome of an entry: one that is too large is written
// without what makes it so.
func (w *Worker) produceFor(e *entry, r *kgo.Record, then func(*kgo.Record)) {
	w.produceOr(e.lane.home, e, r, then)
}

func (w *Worker) produceOr(h *home, e *entry, r *kgo.Record, then func(*kgo.Record)) {
	w.out.TryProduce(h.ctx, r, func(r *kgo.Record, err error) {
		if err == nil {
			then(r)
			return
		}
		if errors.Is(err, kgo.ErrClientClosed) || h.ctx.Err() != nil {
			return // closing the home took it off the count
		}
		w.meters.failed(w.life)
		w.log.Error("write outcome", "topic", r.Topic, "partition", h.partition, "error", err)
		again := &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers}
		if e != nil && errors.Is(err, kerr.MessageTooLarge) {
			again = w.bare(e, r)
		}
		time.AfterFunc(writeAgain, func() {
			if h.ctx.Err() == nil {
				w.produceOr(h, e, again, then)
			}
		})
	})
}

// bare returns what is written in place of a record that Kafka refuses for its size,
// for that won't change: of an attempt the short fields, of a delivery (its retry, or
// its end) that it was rejected. The delivery itself stands in deliveries.
func (w *Worker) bare(e *entry, r *kgo.Record) *kgo.Record {
	key := r.Key[:min(len(r.Key), cutTo)]
	if r.Topic == w.topics.Attempts {
		if a, err := schemas.DecodeAttempt(r.Value); err == nil {
			a.Response, a.Detail, a.Truncated = "", "", true
			for _, field := range []*string{&a.Tenant, &a.Endpoint, &a.Event, &a.Type, &a.Delivery, &a.Replay} {
				*field = cut(*field)
			}
			return &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: key, Value: (&attempt{a}).encode()}
		}
	}
	source := &kgo.Record{Topic: w.topics.Deliveries, Partition: e.lane.home.partition, Offset: e.offset, Key: key}
	return broker.RejectedRecord(w.topics.Rejected, source, schemas.RejectOversized, r.Topic+" does not take a record of that size")
}

// cutTo is how much is kept of a text that nothing else bounds, in bytes.
const cutTo = 1 << 10

func cut(s string) string { return s[:min(len(s), cutTo)] }

// done notes that the outcome of an entry is acknowledged at an offset of
// attempts.
func (w *Worker) done(e *entry, attempts int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := e.lane.home
	if h.phase == phaseClosed {
		return // a late acknowledgement of an older assignment
	}
	now, full := time.Now(), w.unwritten >= w.maxUnwritten()
	w.unwritten -= e.weight()
	h.unwritten -= e.weight()
	h.attemptsNext = max(h.attemptsNext, attempts+1)
	h.learn(e, now)
	h.completions.push(w.conclude(e, attempts, now))
	w.vacate(e, now)
	w.settled.Broadcast()
	if w.unwritten < w.maxUnwritten()/2 {
		w.cancelFurther(now) // many at a time: each looks at all that is left
	}
	if full && w.unwritten < w.maxUnwritten() {
		w.pump()
	}
}

// conclude finishes a record whose outcome is acknowledged, or keeps it in its
// place where it failed and stays, and has the next one of its key follow.
func (w *Worker) conclude(e *entry, attempts int64, now time.Time) completion {
	l := e.lane
	c := completion{attempts: attempts, offset: e.offset, chunk: e.chunk}
	if e.asked { // not before: a successor that finds neither would make the attempt
		w.settleCancel(l.home, l.endpoint, e.delivery.ID)
	}
	switch {
	case e.stays != (retry{}) && e.stays.attempt > e.delivery.Attempt:
		c.sequence = w.stay(e, now)
		return c
	case e.chunk == nil:
		l.home.tracker.finish(e.offset)
	case e.whole:
		c.sequence, c.offset = e.chunk.finishAll(), e.chunk.last
	default:
		c.sequence = e.chunk.finish(e.index)
	}
	if e.chunk != nil && e.chunk.done == len(e.chunk.offsets) {
		w.dropChunk(l, e.chunk)
	}
	if l.ranks(e) {
		l.order.finished(e.line, now)
		w.resume(l, now)
	}
	return c
}

// stay keeps a failed record of an ordered lane in its place until its retry is
// due, and returns the sequence number of that change in its chunk.
func (w *Worker) stay(e *entry, now time.Time) (sequence int) {
	l := e.lane
	if e.chunk != nil {
		sequence = e.chunk.fail(e.index, e.stays)
	}
	if !l.ranks(e) {
		// The lane is not ordered any more: the record is read again with the rest.
		e.line = nil
		if e.chunk != nil {
			l.rewind(e)
		} else {
			w.park(l, e)
		}
		w.resumeOrEnd(l, now)
		return sequence
	}
	e.line.delivery, e.line.trace, e.line.first = e.delivery.ID, e.trace, e.delivery.FirstAttemptAt
	if l.order.failed(e.line, e.stays, now); e.chunk == nil {
		w.park(l, e)
	} else {
		w.cancelIfAsked(l, e.line)
	}
	w.resumeOrEnd(l, now)
	return sequence
}

// deadRecord returns the record of a delivery that ends in the topic dead.
func deadRecord(topic string, d *schemas.Delivery, reason string) *kgo.Record {
	dead := *d
	dead.Reason = reason
	return &kgo.Record{
		Topic: topic, Key: []byte(d.Endpoint), Value: d.Event.Data,
		Headers: schemas.AppendDeliveryHeaders[kgo.RecordHeader](nil, &dead),
	}
}
