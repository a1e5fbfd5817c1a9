package deliver

import (
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

// Bounds of the open cancels of a home. What many endpoints hold leaves less for
// each, so that the cancels of one tenant leave room for those of the others.
const (
	// maxCancels bounds those of all endpoints.
	maxCancels = 100_000
	// maxCancelsEach bounds those of one endpoint.
	maxCancelsEach = 10_000
	// cancelShare is which part of the places that are left one endpoint may hold.
	cancelShare = 8
	// cancelSlack is how many times as many count at a take-over: an owner that
	// carries cancels out has room again before its tombstones are in the log.
	cancelSlack = 2
)

// cancels are the requests to cancel a delivery that are open at a home. A request
// is one of an endpoint: a delivery of that name at another one is none of its
// business. The caller holds the worker's lock.
type cancels struct {
	of    map[string]map[string]time.Time // endpoint → delivery → when it was asked for
	open  int
	slack int // the bounds count so many times

	dropped int // since it was last logged, for want of room
	leaving int // tombstones of dropped ones that are not acknowledged
}

func newCancels(slack int) *cancels {
	return &cancels{of: map[string]map[string]time.Time{}, slack: slack}
}

// has reports whether a delivery of an endpoint is to be cancelled.
func (c *cancels) has(endpoint, delivery string) bool {
	_, ok := c.of[endpoint][delivery]
	return ok
}

// add notes a cancel, and reports false where the bounds leave no room for it.
func (c *cancels) add(endpoint, delivery string, at time.Time) bool {
	one := c.of[endpoint]
	if _, ok := one[delivery]; ok {
		one[delivery] = at
		return true
	}
	if len(one) >= min(maxCancelsEach*c.slack, (maxCancels*c.slack-c.open)/cancelShare) {
		c.dropped++
		return false
	}
	if one == nil { // the names are copies: they would keep the record's whole key
		one = map[string]time.Time{}
		c.of[strings.Clone(endpoint)] = one
	}
	one[strings.Clone(delivery)] = at
	c.open++
	return true
}

// remove forgets a cancel, and reports whether there was one.
func (c *cancels) remove(endpoint, delivery string) bool {
	one := c.of[endpoint]
	if _, ok := one[delivery]; !ok {
		return false
	}
	if delete(one, delivery); len(one) == 0 {
		delete(c.of, endpoint)
	}
	c.open--
	return true
}

// cancelAsked takes up a cancel that control has written.
func (w *Worker) cancelAsked(h *home, endpoint, delivery string, at time.Time) {
	if h.cancels.add(endpoint, delivery, at) {
		w.cancelWaiting(h, endpoint, delivery)
		return
	}
	if h.cancels.leaving >= maxCancelsEach {
		return // the next owner writes the tombstone (dropCancels)
	}
	h.cancels.leaving++
	w.produce(h, w.cancelTombstone(h, endpoint, delivery), func(*kgo.Record) {
		w.mu.Lock()
		defer w.mu.Unlock()
		h.cancels.leaving--
	})
}

// settleCancel forgets a cancel that was carried out, once its outcome is
// acknowledged.
func (w *Worker) settleCancel(h *home, endpoint, delivery string) {
	if h.cancels.remove(endpoint, delivery) {
		w.produce(h, w.cancelTombstone(h, endpoint, delivery), func(*kgo.Record) {})
	}
}

func (w *Worker) cancelTombstone(h *home, endpoint, delivery string) *kgo.Record {
	return &kgo.Record{Topic: w.topics.Lanes, Partition: h.partition, Key: schemas.CancelKey(endpoint, delivery)}
}

// forgetCancels drops cancels whose delivery can't live any more: it had ended
// before it was cancelled. It says how many the bounds left no room for.
func (w *Worker) forgetCancels(h *home, now time.Time) {
	for endpoint, one := range h.cancels.of {
		for delivery, at := range one {
			if now.Sub(at) > w.cfg.MaxAge {
				w.settleCancel(h, endpoint, delivery)
			}
		}
	}
	if n := h.cancels.dropped; n > 0 {
		h.cancels.dropped = 0
		w.meters.cancelsDropped(w.life, n)
		w.log.Warn("cancels were dropped: too many are open", "partition", h.partition, "dropped", n)
	}
}

// dropCancels writes the tombstones of the cancels in lanes that the bounds left no
// room for at a take-over. They are read again for that, since nothing bounds how
// many they are.
func (w *Worker) dropCancels(h *home) error {
	batch := make([]*kgo.Record, 0, 1000)
	var failed error
	flush := func() {
		if failed == nil && len(batch) > 0 {
			failed = w.out.ProduceSync(h.ctx, batch...).FirstErr()
		}
		batch = batch[:0]
	}
	err := w.readAll(h.ctx, w.topics.Lanes, h.partition, logSpan{0, h.epoch}, func(r *kgo.Record) {
		kind, endpoint, delivery := laneKind(string(r.Key))
		if kind != kindCancel || r.Value == nil || w.isOpen(h, endpoint, delivery) {
			return
		}
		if batch = append(batch, w.cancelTombstone(h, endpoint, delivery)); len(batch) == cap(batch) {
			flush()
		}
	})
	flush()
	if err == nil {
		err = failed
	}
	return err
}

// isOpen is has for those that don't hold the lock.
func (w *Worker) isOpen(h *home, endpoint, delivery string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return h.cancels.has(endpoint, delivery)
}
