package deliver

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// Bounds of reading the view: endpoints in one pipeline, and the pause after
// which what could not be learnt is asked for again.
const (
	loadBatch = 500
	loadEvery = 100 * time.Millisecond
)

// wantKnowledge has the loader read the lane's endpoint, or wait until the tail
// of the registry is far enough. The caller holds the lock.
func (w *Worker) wantKnowledge(l *lane) {
	w.behind[l] = struct{}{}
	w.ask(l)
	select {
	case w.loads <- struct{}{}:
	default:
	}
}

// ask puts a lane in the row of those to be read, in the order in which they came:
// their records stand close together in the log.
func (w *Worker) ask(l *lane) {
	if !l.asked {
		l.asked = true
		w.asking.push(l)
	}
}

// loadLoop reads endpoints from the view for lanes that know nothing yet.
func (w *Worker) loadLoop(ctx context.Context) error {
	beat := w.beat("deliver.load", 30*time.Second)
	defer beat.Stop()
	retry := time.NewTicker(loadEvery)
	defer retry.Stop()
	away := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.loads:
		case <-retry.C:
		}
		beat.Tick()
		for {
			lanes, refs := w.unknown()
			if len(lanes) == 0 {
				break
			}
			read, cancel := context.WithTimeout(ctx, 5*time.Second)
			found, err := w.deps.View.Entities(read, refs)
			cancel()
			if err != nil {
				if ctx.Err() == nil && !away {
					w.log.WarnContext(ctx, "read endpoints from the view; their deliveries park until it is back", "error", err)
				}
				away = true
				w.askAgain(lanes)
				break
			}
			away = false
			if w.learn(lanes, found) == 0 || len(lanes) < loadBatch { //nolint:contextcheck // attempts outlive who starts them
				break
			}
		}
	}
}

// askAgain puts lanes whose endpoint could not be read back in the row.
func (w *Worker) askAgain(lanes []*lane) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range lanes {
		w.ask(l)
	}
}

// unknown returns the lanes whose endpoint must be read, with the endpoint's
// entity and its health as references. Lanes that only wait for the tail, which
// looks at them, leave the row.
func (w *Worker) unknown() (lanes []*lane, refs []registry.Ref) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for len(lanes) < loadBatch {
		l, ok := w.asking.pop()
		if !ok {
			break
		}
		l.asked = false
		if _, ok := w.behind[l]; !ok {
			continue // forgotten
		}
		if l.know.readAt > 0 {
			w.recheck(l, now)
			continue
		}
		if l.tenant == "" {
			continue // known, and asked for again, as soon as one of its records is read
		}
		lanes = append(lanes, l)
		refs = append(refs,
			registry.Ref{Tenant: l.tenant, Entity: l.endpoint},
			registry.Ref{Tenant: l.tenant, Entity: l.endpoint + registry.HealthSuffix})
	}
	return lanes, refs
}

// learn stores what was read, unless the tail was newer, and returns how many
// lanes can be judged now. A view that is not complete, or that is older than
// what the tail had said before the lane was made, is no knowledge: what is absent
// there would look deleted.
func (w *Worker) learn(lanes []*lane, found []registry.Found) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	learnt := 0
	for i, l := range lanes {
		endpoint, health := found[2*i], found[2*i+1]
		if l.home.phase != phaseReady || !endpoint.Complete || endpoint.Next < max(l.know.since, 1) {
			w.ask(l)
			continue
		}
		if endpoint.OK {
			w.learnEndpoint(l, endpoint.Value, endpoint.Offset, now)
		}
		if health.OK {
			w.learnHealth(l, health.Value, health.Offset)
		}
		l.know.readAt = max(l.know.readAt, endpoint.Next)
		learnt++
		w.recheck(l, now)
	}
	w.pump()
	return learnt
}

// learnEndpoint takes up a version of an endpoint if it is newer. A nil value
// is its deletion. What follows from it holds at now, so that the caller finds it
// so when it looks at the lane's condition.
func (w *Worker) learnEndpoint(l *lane, value []byte, offset int64, now time.Time) {
	if offset <= l.know.version {
		return
	}
	changed, anew := l.know.version >= 0, false
	l.know.version, l.know.broken = offset, false
	if value == nil {
		l.know.target = nil
		return
	}
	e, err := registry.Decode[registry.Endpoint](value)
	var t *target
	if err == nil {
		if l.enabledAfter() != e.EnabledAfter {
			w.beginAnew(l)
			anew = true
		}
		t, err = w.target(e, offset, int(l.shard))
		l.know.target = t
	}
	if err == nil {
		if anew || !l.hold.asked(t) {
			w.unhold(l, now)
		}
		w.adapt(l, t, changed || anew, now)
	} else {
		// It parks: a later version, or the right key, lets it go on.
		l.know.broken = true
		w.log.Error("endpoint can't be used", "endpoint_id", l.endpoint, "error", err)
	}
}

// beginAnew has a lane begin anew whose endpoint was enabled again: it has its days
// before it, and is not flooded. A hold ends; an open breaker stays, and is probed at
// once.
func (w *Worker) beginAnew(l *lane) {
	was := l.breaker
	if w.mend(l); was.isOpen() {
		l.breaker = was
	}
	l.window, l.clean = slowStart, 0
}

// adapt has a lane keep to a version of its endpoint. A changed endpoint is probed
// at once; one that only has a new owner is probed as its settings say.
func (w *Worker) adapt(l *lane, t *target, changed bool, now time.Time) {
	if l.bucket == nil && t.rate > 0 {
		l.bucket = &bucket{}
	}
	if l.bucket != nil {
		l.bucket.limit(t.rate, t.burst, l.home.openedAt, now)
	}
	switch {
	case !l.breaker.isOpen():
	case t.breaker.off:
		l.breaker = breaker{}
		w.unreported[l] = struct{}{}
	case changed:
		l.breaker.pause, l.breaker.probeAt = t.breaker.probe, now
	default:
		l.breaker.pause, l.breaker.probeAt = t.breaker.probe, now.Add(t.breaker.probe)
		w.alarms.set(l, l.breaker.probeAt)
	}
	if t.ordered != (l.order != nil) {
		w.reorder(l, t.ordered, now)
	}
}

// reorder has a lane begin or cease to keep order. What was read and not
// attempted is read again.
func (w *Worker) reorder(l *lane, ordered bool, now time.Time) {
	w.dropDrained(l)
	waiting := l.queue
	l.queue = fifo{}
	delete(w.queued, l)
	w.slots.withdraw(l)
	if l.order != nil {
		l.order.forget(func(n node) { n.chunk.release(n.index) })
		l.order = nil
	}
	if ordered {
		l.order = newOrdering()
	}
	l.draining, l.cursor = 0, 0
	for _, c := range l.chunks {
		c.cursor = 0
	}
	w.look(l, now)
	for e := waiting.pop(); e != nil; e = waiting.pop() {
		w.freed(e.size())
		e.line = nil
		w.enqueue(l, e, now)
	}
}

func (w *Worker) learnHealth(l *lane, value []byte, offset int64) {
	if offset <= l.know.checked {
		return
	}
	l.know.checked = offset
	l.know.health = nil
	if value != nil {
		if h, err := registry.Decode[registry.Health](value); err == nil {
			l.know.health = h
		}
	}
}

// recheck acts on what is newly known of a lane.
func (w *Worker) recheck(l *lane, now time.Time) {
	condition := l.condition(now, w.tailNext)
	if condition == conditionLoading {
		return
	}
	delete(w.behind, l)
	switch {
	case condition == conditionDeleted:
		w.cancelLane(l)
	case condition.waits():
		w.parkQueue(l)
		w.dropDrained(l)
	default:
		w.resume(l, now)
	}
}

// applyRegistry takes up what changed in the registry. It is called by the tail.
func (w *Worker) applyRegistry(records []registry.Record, next int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tailNext = next
	now := time.Now()
	for i := range records {
		r := &records[i]
		endpoint, isHealth := strings.CutSuffix(r.Entity, registry.HealthSuffix)
		if !strings.HasPrefix(endpoint, "ep_") || strings.Contains(endpoint, "/") {
			continue
		}
		for shard := range w.shards {
			w.applyTo(schemas.LaneName(endpoint, shard), r, isHealth, now)
		}
	}
	for l := range w.behind {
		if l.know.readAt > 0 {
			w.recheck(l, now)
		}
	}
	w.pump()
}

// applyTo has one lane of an endpoint take up a change.
func (w *Worker) applyTo(name string, r *registry.Record, isHealth bool, now time.Time) {
	h := w.homes[w.deps.Layout.Partition(name)]
	if h == nil {
		return
	}
	l := h.lanes[name]
	if l == nil || l.tenant != "" && l.tenant != r.Tenant {
		return
	}
	if isHealth {
		w.learnHealth(l, r.Value, r.Offset)
	} else {
		w.learnEndpoint(l, r.Value, r.Offset, now)
	}
	if h.phase == phaseReady {
		w.recheck(l, now)
	}
}

// disable records that the endpoint wants no more deliveries. It counts for the
// version of the endpoint that was judged, until a later enable.
func (w *Worker) disable(l *lane, t *target, reason string) {
	now := time.Now()
	at := now.UTC().Truncate(time.Millisecond)
	health := &registry.Health{
		Endpoint: l.endpoint, Tenant: l.tenant, Judged: t.offset, Disabled: true, Reason: reason, Since: at,
	}
	health.Version, health.CreatedAt, health.UpdatedAt = 1, at, at
	w.log.Warn("endpoint disabled", "endpoint_id", l.endpoint, "tenant", l.tenant, "reason", reason)
	l.know.health = health
	w.produce(l.home, &kgo.Record{
		Topic: w.topics.Registry, Partition: 0, Key: registry.EncodeKey(l.tenant, l.endpoint+registry.HealthSuffix),
		Value:   mustJSON(health),
		Headers: []kgo.RecordHeader{{Key: registry.HeaderPrev, Value: strconv.AppendInt(nil, t.offset, 10)}},
	}, func(*kgo.Record) {})
	w.recheck(l, now)
}
