package deliver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/backoff"
	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/schemas"
)

// receive takes up records of one partition, in the order of their offsets.
func (w *Worker) receive(ctx context.Context, partition int32, records []*kgo.Record) {
	now := time.Now()
	entries := make([]*entry, len(records))
	broken := map[int]error{}
	for i, r := range records {
		d, err := w.decode(r)
		if err != nil {
			broken[i] = err
			continue
		}
		entries[i] = &entry{delivery: d, offset: r.Offset, appended: r.Timestamp, received: now}
	}
	h := w.begin(ctx, partition, records)
	w.mu.Lock()
	defer w.mu.Unlock()
	if h == nil || h.phase != phaseReady {
		return // given up since the poll; the next owner reads them again
	}
	for i, r := range records {
		if !h.tracker.receive(r.Offset, r.LeaderEpoch) {
			continue
		}
		if _, ok := h.known[r.Offset]; ok { // finished or parked before our time
			delete(h.known, r.Offset)
			h.tracker.finish(r.Offset)
			continue
		}
		err := broken[i]
		if err == nil {
			err = h.checkTenant(&entries[i].delivery)
		}
		if err != nil {
			w.reject(h, r, err) //nolint:contextcheck // attempts outlive who starts them
			continue
		}
		w.admit(h, entries[i], now) //nolint:contextcheck // attempts outlive who starts them
	}
	if len(records) > 0 {
		w.see(h, records[len(records)-1].Offset+1)
	}
	w.pauseIfFull(h)
	w.pump() //nolint:contextcheck // attempts outlive who starts them
}

// see notes how far the home has polled, and has the lanes go on that waited for
// that.
func (w *Worker) see(h *home, next int64) {
	h.seen = max(h.seen, next)
	now := time.Now()
	for l := range h.unseen {
		delete(h.unseen, l)
		w.resume(l, now)
	}
}

// decode reads a record. One that stands in another partition than its endpoint
// lives in was not written by this layout: its lane here would never hear of
// changes of the endpoint.
func (w *Worker) decode(r *kgo.Record) (schemas.Delivery, error) {
	d, err := schemas.DecodeDelivery(r.Key, r.Value, r.Headers)
	if err == nil && w.deps.Layout.Partition(d.Lane()) != r.Partition {
		err = fmt.Errorf("endpoint %s does not live in partition %d", d.Endpoint, r.Partition)
	}
	return d, err
}

// checkTenant reports a delivery whose tenant is not that of the endpoint's other
// deliveries: a lane has one tenant.
func (h *home) checkTenant(d *schemas.Delivery) error {
	if l := h.lanes[d.Lane()]; l != nil && l.tenant != "" && l.tenant != d.Event.Tenant {
		return fmt.Errorf("endpoint %s belongs to another tenant", d.Endpoint)
	}
	return nil
}

// begin returns the home that records of a partition are for, nil if they must
// be ignored. Records that were polled under an older assignment may arrive only
// now: taken for the first ones of this assignment, they would hide what lies
// between the commit and them. So the first record of a home must be the first
// one in the log from the commit on. (Blocking rebalances during polls would also
// do, but then no other partition is polled while one drains.)
func (w *Worker) begin(ctx context.Context, partition int32, records []*kgo.Record) *home {
	w.mu.Lock()
	h := w.homes[partition]
	known := h == nil || h.phase != phaseReady || h.begun
	var from int64
	if !known {
		from = h.tracker.watermark()
	}
	w.mu.Unlock()
	if known || len(records) == 0 {
		return h
	}
	first := records[0].Offset
	for first != from && h.ctx.Err() == nil && ctx.Err() == nil {
		s, err := w.reader.Read(ctx, w.topics.Deliveries, partition, from, 1)
		switch {
		case errors.Is(err, kerr.OffsetOutOfRange):
			w.outOfRange(ctx, partition)
			return nil
		case err == nil && len(s.Records) == 0 && s.Next > from:
			from = s.Next // markers and aborted records
		case err == nil && len(s.Records) == 0:
			backoff.Pause(ctx, 20*time.Millisecond)
		case err == nil && s.Records[0].Offset != first:
			return nil
		case err == nil:
			from = first
		case !errors.Is(err, context.Canceled):
			w.log.WarnContext(ctx, "find the first record", "partition", partition, "offset", from, "error", err)
			backoff.Pause(ctx, time.Second)
		}
	}
	if first != from {
		return nil
	}
	w.mu.Lock()
	h.begun = true
	w.mu.Unlock()
	return h
}

// pauseIfFull stops fetching a partition whose tracker has little room left; the
// commit loop resumes it.
func (w *Worker) pauseIfFull(h *home) {
	if !h.paused && !h.tracker.room(h.tracker.next+trackerWindow/4) {
		h.paused = true
		w.pauseFetching(h.partition)
	}
}

// admit decides which of the four places a received record goes to: a copy or
// over: done; its lane can't take it: parked; else it waits in its lane to be
// started.
func (w *Worker) admit(h *home, e *entry, now time.Time) {
	d := &e.delivery
	l := w.lane(h, d.Lane(), d.Event.Tenant, now)
	e.lane = l
	l.know.need = max(l.know.need, d.Registry+1)
	stays, failed := h.failed[e.offset]
	if failed { // before our time, and kept its place
		delete(h.failed, e.offset)
		e.stays, d.Attempt = stays, stays.attempt
	}
	if h.isCopy(e, now) {
		w.end(e, schemas.OutcomeRepeat, "")
		return
	}
	if h.awaits(e) {
		return
	}
	condition := l.condition(now, w.tailNext)
	if condition == conditionLoading {
		w.wantKnowledge(l)
	}
	switch {
	case condition == conditionDeleted:
		w.end(e, schemas.OutcomeCancelled, endedDeleted)
		return
	case condition.waits() || failed:
		w.park(l, e)
		return
	}
	if w.past(e, now) {
		return
	}
	w.enqueue(l, e, now)
}

// enqueue has a record wait for its turn in memory, or parks it if its turn
// would not come soon. In an ordered lane only the first of its key may wait in
// memory, and only while no parked record could be of the same key.
func (w *Worker) enqueue(l *lane, e *entry, now time.Time) {
	parks := l.parked()
	if l.order != nil {
		key := orderKey(e.delivery.Event.PartitionKey)
		if parks = l.unseen() || !l.order.free(key); !parks {
			e.line = l.order.arrive(key, e.offset)
		}
	}
	if parks || l.queue.len() >= min(laneQueue, l.bucket.within(startWithin, now)) || w.waiting > w.cfg.MaxWaiting {
		w.park(l, e)
		return
	}
	l.queue.push(e)
	w.waiting += e.size()
	w.queued[l] = struct{}{}
	w.offer(l, now)
}

// over is past for a record that has waited: a later attempt of its delivery may
// have been met since.
func (w *Worker) over(e *entry, now time.Time) bool {
	if e.lane.home.isCopy(e, now) {
		w.end(e, schemas.OutcomeRepeat, "")
		return true
	}
	return w.past(e, now)
}

// past ends a delivery that was cancelled or is older than its endpoint allows, and
// reports whether it did. What is not known yet is not judged.
func (w *Worker) past(e *entry, now time.Time) bool {
	l, d := e.lane, &e.delivery
	if l.home.cancels.has(l.endpoint, d.ID) {
		e.asked = true
		w.end(e, schemas.OutcomeCancelled, endedByHand)
		return true
	}
	if age := w.maxAge(l); age > 0 && now.Sub(d.MadeAt) > age {
		w.end(e, schemas.OutcomeExpired, errorMaxAge)
		return true
	}
	return false
}

// offer has the lane take its turn if it can start something.
func (w *Worker) offer(l *lane, now time.Time) {
	if l.rotation != nil || !l.startable() || l.condition(now, w.tailNext) != conditionActive {
		return
	}
	if wait := l.bucket.wait(now); wait > 0 {
		w.alarms.set(l, now.Add(wait))
		return
	}
	w.slots.offer(l)
}

// reject writes a record that can't be read to the topic rejected.
func (w *Worker) reject(h *home, r *kgo.Record, cause error) {
	now, rejected := time.Now(), broker.RejectedRecord(w.topics.Rejected, r, schemas.RejectMalformed, cause.Error())
	endpoint := cut(string(r.Key))
	e := &entry{offset: r.Offset, lane: &lane{endpoint: endpoint, home: h}}
	a := &attempt{schemas.Attempt{
		Offset: r.Offset, Endpoint: endpoint, Outcome: schemas.OutcomeRejected,
		Error: string(schemas.RejectMalformed), Detail: cut(cause.Error()), StartedAt: now.UTC(),
	}}
	if a.Endpoint == "" {
		a.Endpoint = "-"
	}
	w.write(e, a.encode(), rejected, now)
}

// fetchError handles an error of the consumer for one partition. It returns
// those that end the worker.
func (w *Worker) fetchError(ctx context.Context, partition int32, err error) error {
	var tooLarge *kgo.ErrDecompressTooLarge
	var lost *kgo.ErrDataLoss
	switch {
	case errors.As(err, &tooLarge):
		return w.skipBatch(ctx, partition, tooLarge)
	case errors.As(err, &lost):
		w.cutOff(ctx, lost)
		return nil
	case errors.Is(err, kerr.OffsetOutOfRange):
		w.outOfRange(ctx, partition)
		return nil
	case kerr.IsRetriable(err), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil
	}
	w.log.WarnContext(ctx, "read deliveries", "partition", partition, "error", err)
	return nil
}

// skipBatch sets a partition past a batch that can't be unpacked within bounds;
// the batch is named in the topic rejected first.
func (w *Worker) skipBatch(ctx context.Context, partition int32, bad *kgo.ErrDecompressTooLarge) error {
	first, last, err := broker.BadBatch(ctx, w.producer, w.topics.Deliveries, partition, bad.Offset)
	if err != nil {
		return err
	}
	w.log.ErrorContext(ctx, "batch rejected", "topic", w.topics.Deliveries, "partition", partition, "first_offset", first, "last_offset", last)
	r := &kgo.Record{Topic: w.topics.Deliveries, Partition: partition, Offset: first}
	detail := fmt.Sprintf("offsets %d to %d: the batch unpacks to more than %d bytes", first, last, broker.MaxBatchBytes)
	if err := w.out.ProduceSync(ctx, broker.RejectedRecord(w.topics.Rejected, r, schemas.RejectUndecodable, detail)).FirstErr(); err != nil {
		return fmt.Errorf("produce rejected record: %w", err)
	}
	w.mu.Lock()
	if h := w.homes[partition]; h != nil {
		h.begun = true // what comes next lies behind the batch
	}
	w.mu.Unlock()
	w.fetchFrom(partition, last+1)
	return nil
}
