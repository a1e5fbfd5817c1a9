package deliver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/postrider/postrider/deliver/wheel"
	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/signature"
	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/schemas"
)

// sim is a worker's world in memory and under a clock that jumps: the topics of
// one partition, with acknowledgements that come late and in order, a receiver
// that answers as a seed says, and workers that die at any moment. What a dead
// worker had written stays, whether it heard of that or not.
type sim struct {
	t      *testing.T
	seed   uint64
	rng    *rand.Rand
	topics broker.Topics
	layout broker.Layout

	mu        sync.Mutex
	entries   map[string]registry.Entry // the view
	registry  int64                     // end of the registry
	life      *life                     // the latest
	logs      map[string][]*kgo.Record  // offsets have holes
	ends      map[string]int64
	grown     *sync.Cond
	committed committed
	posts     []post
	failing   func(d string, attempt int) bool
	status    int    // of what fails; 0: 500
	wait      string // its Retry-After
	// made, where it is set, makes the records of deliveries from 0 to total, which
	// then take no memory.
	made   func(offset int64) *kgo.Record
	total  int64
	away   bool // the view can't be read
	refuse bool // the group takes no commits
	// refusing is how many records are taken for one that is refused; 0: all.
	refusing int
	// gone is the start of the log of deliveries: what lies below was deleted.
	gone  int64
	reads int // of parked records
}

// post is one request at the receiver.
type post struct {
	endpoint, key, delivery string
	offset                  int // place in the order of sending
	attempt                 int
	at                      time.Time
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), topics: broker.Names("sim."),
		layout: broker.Layout{Deliveries: 1, ScheduleShards: 1, Version: 1}, entries: map[string]registry.Entry{},
		logs: map[string][]*kgo.Record{}, ends: map[string]int64{}, committed: committed{attempts: -1, epoch: -1}, registry: 100,
	}
	s.grown = sync.NewCond(&s.mu)
	return s
}

// endpoint stores an endpoint in the view, as if it had always been there.
func (s *sim) endpoint(e registry.Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries[e.ID] = registry.Entry{Offset: int64(len(s.entries)), Value: s.stored(e)}
}

// stored returns an endpoint as it stands in the registry.
func (s *sim) stored(e registry.Endpoint) []byte {
	e.Tenant, e.EnabledAfter, e.URL = "acme", -1, cmp.Or(e.URL, "https://receiver.example/"+e.ID)
	e.Secrets = []registry.Secret{{Sealed: signature.NewSecret()}}
	if e.State == "" {
		e.State = registry.StateEnabled
	}
	value, err := json.Marshal(e)
	if err != nil {
		s.t.Fatal(err)
	}
	return value
}

// change stores a new version of an endpoint, and tells the worker that lives.
func (s *sim) change(e registry.Endpoint) { s.write(e.ID, s.stored(e)) }

// remove deletes an endpoint.
func (s *sim) remove(id string) { s.write(id, nil) }

func (s *sim) write(id string, value []byte) {
	s.mu.Lock()
	r := registry.Record{Tenant: "acme", Entity: id, Offset: s.registry, Value: value}
	s.registry++
	if delete(s.entries, id); value != nil {
		s.entries[id] = registry.Entry{Offset: r.Offset, Value: value}
	}
	l := s.life
	s.mu.Unlock()
	if l != nil {
		l.w.applyRegistry([]registry.Record{r}, r.Offset+1)
	}
}

// Entities is the view.
func (s *sim) Entities(_ context.Context, refs []registry.Ref) ([]registry.Found, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return nil, errors.New("the view is away")
	}
	out := make([]registry.Found, len(refs))
	for i, ref := range refs {
		entry, ok := s.entries[ref.Entity]
		out[i] = registry.Found{Marker: registry.Marker{Complete: true, Next: s.registry}, Entry: entry, OK: ok}
	}
	return out, nil
}

// append writes a record to a log, with a hole before it now and then, as
// transactions leave them.
func (s *sim) append(r *kgo.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Topic == s.topics.Deliveries && s.rng.IntN(4) == 0 {
		s.ends[r.Topic] += int64(s.rng.IntN(3))
	}
	kept := *r
	kept.Offset, kept.Timestamp = s.ends[r.Topic], time.Now()
	r.Offset, r.Timestamp = kept.Offset, kept.Timestamp
	s.ends[r.Topic]++
	s.logs[r.Topic] = append(s.logs[r.Topic], &kept)
	s.grown.Broadcast()
}

// Read is the point reader.
func (s *sim) Read(_ context.Context, topic string, _ int32, offset int64, maxBytes int32) (broker.Slice, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if topic == s.topics.Deliveries {
		if s.reads++; offset < s.gone {
			return broker.Slice{LogStart: s.gone, Stable: s.total}, kerr.OffsetOutOfRange
		}
	}
	return s.slice(topic, offset, maxBytes), nil
}

// slice returns a stretch of a log. The caller holds the lock.
func (s *sim) slice(topic string, offset int64, maxBytes int32) broker.Slice {
	if s.made != nil && topic == s.topics.Deliveries {
		out := broker.Slice{Next: min(offset+100, s.total), Stable: s.total}
		for ; offset < out.Next; offset++ {
			out.Records = append(out.Records, s.made(offset))
		}
		return out
	}
	out := broker.Slice{Next: s.ends[topic], Stable: s.ends[topic]}
	log := s.logs[topic]
	from, _ := slices.BinarySearchFunc(log, offset, func(r *kgo.Record, o int64) int { return int(r.Offset - o) })
	for _, r := range log[from:] {
		if len(out.Records) > 0 && maxBytes <= 0 {
			out.Next = r.Offset
			break
		}
		maxBytes -= 1 << 15 // a few dozen records a read
		out.Records = append(out.Records, r)
	}
	return out
}

// End and After are the bounds of the logs.
func (s *sim) End(_ context.Context, topic string, _ int32) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ends[topic], nil
}

func (s *sim) After(_ context.Context, topic string, _ int32, at time.Time) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.logs[topic] {
		if !r.Timestamp.Before(at) {
			return r.Offset, nil
		}
	}
	return -1, nil
}

// life is one worker from its start to its death.
type life struct {
	sim    *sim
	w      *Worker
	ctx    context.Context //nolint:containedctx // ends when the worker dies
	kill   context.CancelFunc
	queues map[string]chan func()
	mu     sync.Mutex
	done   sync.WaitGroup
}

// TryProduce and ProduceSync write to the logs: in order for each topic, after a
// while, and the acknowledgement takes as long again. One record in so many is
// refused. The dead write nothing.
func (l *life) TryProduce(_ context.Context, r *kgo.Record, done func(*kgo.Record, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return // a queue begun now would be none that die waits for
	}
	q := l.queues[r.Topic]
	if q == nil {
		q = make(chan func(), 1<<14)
		l.queues[r.Topic] = q
		l.done.Go(func() {
			for l.ctx.Err() == nil {
				select {
				case write := <-q:
					write()
				case <-l.ctx.Done():
				}
			}
		})
	}
	sent, heard := l.pause(3), l.pause(3)
	refused := l.sim.refusing > 0 && l.sim.draw(l.sim.refusing) == 0
	q <- func() {
		if !sleep(l.ctx, sent) {
			return
		}
		if refused {
			done(r, kerr.NotEnoughReplicas)
			return
		}
		l.sim.append(r)
		if sleep(l.ctx, heard) {
			done(r, nil)
		}
	}
}

func (l *life) ProduceSync(ctx context.Context, rs ...*kgo.Record) kgo.ProduceResults {
	out := make(kgo.ProduceResults, len(rs))
	acks := make(chan error, len(rs))
	for i, r := range rs {
		out[i].Record = r
		l.TryProduce(ctx, r, func(_ *kgo.Record, err error) { acks <- err })
	}
	for range rs {
		select {
		case err := <-acks:
			if err != nil {
				out[0].Err = err
			}
		case <-l.ctx.Done():
			out[0].Err = errors.New("dead")
			return out
		}
	}
	return out
}

// pause returns a time of up to so many milliseconds.
func (l *life) pause(most int) time.Duration {
	l.sim.mu.Lock()
	defer l.sim.mu.Unlock()
	if l.sim.rng.IntN(50) == 0 {
		most *= 500 // Kafka is slow for once
	}
	return time.Duration(l.sim.rng.IntN(most*1000)) * time.Microsecond
}

// sleep reports false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// Do is the receiver. It notes when a request arrives; the answer takes a while.
func (l *life) Do(_ context.Context, req *egress.Request) egress.Result {
	took := l.pause(40)
	id, attempt := headerOf(req).Get("Webhook-Id"), 0
	_, _ = fmt.Sscan(headerOf(req).Get("Postrider-Attempt"), &attempt)
	var key string
	var n int
	_, _ = fmt.Sscanf(string(req.Body[strings.Index(string(req.Body), `"data":"`)+8:]), "%d,%s", &n, &key)
	key = strings.TrimRight(key, `"}`)
	s := l.sim
	s.mu.Lock()
	endpoint := strings.TrimPrefix(req.URL.Path, "/")
	s.posts = append(s.posts, post{endpoint, key, schemas.DeliveryID(id, endpoint, ""), n, attempt, time.Now()})
	s.mu.Unlock()
	sleep(l.ctx, took) //nolint:contextcheck // the dead wait for nothing
	status := http.StatusOK
	wait := ""
	if s.failing(id, attempt) {
		status, wait = cmp.Or(s.status, http.StatusInternalServerError), s.wait
		if endpoint == "ep_weak" && attempt%2 == 1 {
			status, wait = http.StatusServiceUnavailable, "1"
		}
	}
	return egress.Result{Status: status, RetryAfter: wait, Duration: took}
}

// start begins a worker's life: it takes the partition over and does all that a
// worker does, with the consumer, the committer and the wheel played by the sim.
func (s *sim) start(name string) *life {
	ctx, kill := context.WithCancel(context.Background())
	l := &life{sim: s, ctx: ctx, kill: kill, queues: map[string]chan func(){}}
	w, err := New(Config{Instance: name, MaxWaiting: 1 << 30}, Deps{
		Layout: s.layout, View: s, Sealer: openSealer{}, Egress: l, Health: telemetry.NewHealth(), Broker: broker.Config{Prefix: "sim."},
		Logger: slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})), Tracer: tracenoop.NewTracerProvider().Tracer(""), Meter: noop.NewMeterProvider().Meter(""),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	w.life, w.endLife = ctx, kill
	w.out, w.reader, w.bounds = l, s, s
	if w.wheel, err = wheel.New(wheel.Config{Instance: name}, wheel.Deps{Broker: broker.Config{Prefix: "sim."}, Layout: s.layout, Meter: noop.NewMeterProvider().Meter("")}); err != nil {
		s.t.Fatal(err)
	}
	l.w = w
	s.mu.Lock()
	from := s.committed
	w.tailNext, s.life = s.registry, l
	s.mu.Unlock()
	w.mu.Lock()
	h := w.settleIn(0)
	w.mu.Unlock()
	h.commit <- from
	for _, loop := range []func(context.Context) error{w.sweepLoop, w.alarmLoop, w.loadLoop} {
		l.done.Go(func() { _ = loop(ctx) })
	}
	l.done.Go(func() { l.poll(h, from.offset) })
	l.done.Go(func() { l.commitLoop(h) })
	return l
}

// poll is the consumer: it gives the home its records from the commit on.
func (l *life) poll(h *home, next int64) {
	for sleep(l.ctx, l.pause(20)) {
		l.w.mu.Lock()
		ready := h.phase == phaseReady
		h.begun = true
		l.w.mu.Unlock()
		if !ready {
			continue
		}
		l.sim.mu.Lock()
		s := l.sim.slice(l.w.topics.Deliveries, next, 1<<20)
		l.sim.mu.Unlock()
		if len(s.Records) > 0 {
			l.w.receive(l.ctx, 0, s.Records)
		}
		next = s.Next
	}
}

// commitLoop is the group's coordinator, which accepts every commit of the living
// unless it refuses all.
func (l *life) commitLoop(h *home) {
	for sleep(l.ctx, time.Second) {
		l.sim.mu.Lock()
		refuse := l.sim.refuse
		l.sim.mu.Unlock()
		if refuse {
			continue
		}
		_, marks, _ := l.w.watermarks(nil)
		if mark, ok := marks[0]; ok {
			l.sim.mu.Lock()
			l.sim.committed = newCommitted(mark.offset, mark.metadata())
			l.sim.mu.Unlock()
		}
		l.w.mu.Lock()
		if h.phase == phaseReady {
			h.lease, h.committedAt = time.Now().Add(leaseTime), time.Now()
			l.w.goOn(h, time.Now())
			l.w.pump()
		}
		l.w.mu.Unlock()
	}
}

// die ends the worker as kill -9 does.
func (l *life) die() {
	l.mu.Lock()
	l.kill()
	l.mu.Unlock()
	l.w.mu.Lock()
	for _, h := range l.w.homes {
		h.phase = phaseClosed
		h.cancel()
	}
	l.w.settled.Broadcast()
	l.w.mu.Unlock()
	l.done.Wait()
	l.w.tasks.Wait()
}

// describe says what a worker's lanes wait for.
func (l *life) describe() {
	w := l.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.homes {
		for name, lane := range h.lanes {
			_, reading := h.reading[lane]
			_, unseen := h.unseen[lane]
			l.sim.t.Logf("%s: %s, queue %d, drained %d, pending %d, flushing %d, aloft %d, in flight %d, alarm %s, reading %t, unseen %t, seen %d, rotation %t",
				name, lane.condition(time.Now(), w.tailNext), lane.queue.len(), lane.drained.len(), len(lane.pending), lane.flushing, len(lane.aloft),
				lane.inflight, lane.alarm, reading, unseen, h.seen, lane.rotation != nil)
			for _, c := range lane.chunks {
				l.sim.t.Logf("  chunk %d: %d offsets from %d to %d, looked at %d, done %d, writing %t", c.number, c.count, c.first, c.last, c.cursor, c.done, c.writing)
			}
			if lane.order == nil {
				continue
			}
			for _, one := range lane.order.lines {
				l.sim.t.Logf("  key %d: %d records, head %d, place %d, due %s, all seen %t", one.key, one.nodes.len(), one.head().offset, one.place,
					time.UnixMilli(one.retry.due), lane.order.allSeen)
			}
		}
	}
}

// turnWheel brings what is scheduled back when it is due.
func (s *sim) turnWheel(ctx context.Context) {
	var hops sync.WaitGroup
	defer hops.Wait()
	for next := int64(0); sleep(ctx, 100*time.Millisecond); {
		slice, _ := s.Read(ctx, s.topics.Schedule, 0, next, 1<<30)
		next = slice.Next
		for _, r := range slice.Records {
			d, err := schemas.DecodeDelivery(r.Key, r.Value, r.Headers)
			if err != nil {
				s.t.Error(err)
				continue
			}
			hops.Go(func() {
				if sleep(ctx, time.Until(d.DueAt)) {
					d.Levels = 0
					s.append(wheel.Record(&d, s.topics, s.layout))
				}
			})
		}
	}
}

// send appends a first attempt.
func (s *sim) send(endpoint, key string, n int) string {
	d := firstAttempt(endpoint, key, n)
	s.put(d)
	return d.ID
}

// put appends a delivery.
func (s *sim) put(d *schemas.Delivery) {
	s.append(&kgo.Record{
		Topic: s.topics.Deliveries, Key: []byte(d.Lane()), Value: d.Event.Data, Headers: schemas.AppendDeliveryHeaders[kgo.RecordHeader](nil, d),
	})
}

// firstAttempt returns a delivery of the event with a number.
func firstAttempt(endpoint, key string, n int) *schemas.Delivery {
	e := schemas.Event{
		ID: strconv.Itoa(n), Source: "/sim", Type: "t", Tenant: "acme", PartitionKey: key, DataContentType: "application/json",
		Time: "2026-11-22T10:00:00Z", Data: fmt.Appendf(nil, `"%d,%s"`, n, key),
	}
	id := e.EventID()
	return &schemas.Delivery{Event: e, ID: schemas.DeliveryID(id, endpoint, ""), EventID: id, Endpoint: endpoint, Attempt: 1, MadeAt: time.Now()}
}

// attempts decodes the log of outcomes.
func (s *sim) attempts() (out []schemas.Attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.logs[s.topics.Attempts] {
		a, err := schemas.DecodeAttempt(r.Value)
		if err != nil {
			s.t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

// simulate sends events for four endpoints, one of them ordered, another ordered
// and blocking, one with a rate limit, one with a breaker that opens soon; kills the worker at random moments, and checks what is
// promised: nothing is lost, each delivery ends once, nothing is early, and an
// ordered key is never overtaken, whoever dies when.
func simulate(t *testing.T, seed uint64) {
	s := newSim(t, seed)
	second := registry.Duration(time.Second)
	schedule := registry.Retry{Schedule: []registry.Duration{second, 2 * second, 5 * second}}
	quiet := registry.Breaker{Failures: 1000, MinAttempts: 100_000}
	s.endpoint(registry.Endpoint{ID: "ep_skip", Ordered: true, Retry: schedule, Breaker: quiet})
	s.endpoint(registry.Endpoint{ID: "ep_block", Ordered: true, OnExhausted: registry.BlockExhausted, Retry: schedule, Breaker: quiet})
	s.endpoint(registry.Endpoint{ID: "ep_free", Retry: schedule, RateLimit: registry.RateLimit{PerSecond: 40, Burst: 5}, Breaker: quiet})
	s.endpoint(registry.Endpoint{ID: "ep_weak", Retry: schedule, Breaker: registry.Breaker{Failures: 2, ProbeAfter: 2 * second, MaxProbeAfter: 4 * second}})
	share := s.rng.IntN(40)
	// By chance also where an attempt is made again: it may bring something else.
	s.failing = func(_ string, attempt int) bool { return s.draw(100) < share && attempt < 7 }

	pace := []int{60, 600, 3000}[s.rng.IntN(3)] // milliseconds
	s.refusing = []int{0, 30, 300}[s.rng.IntN(3)]

	ctx, stop := context.WithCancel(t.Context())
	var world sync.WaitGroup
	world.Go(func() { s.turnWheel(ctx) })
	sent := map[string]int{}
	world.Go(func() {
		for n := range 300 {
			endpoint := []string{"ep_skip", "ep_block", "ep_free", "ep_weak"}[s.draw(4)]
			key := []string{"", "a", "b", "c"}[s.draw(4)]
			id := s.send(endpoint, key, n)
			s.mu.Lock()
			sent[id] = n
			s.mu.Unlock()
			if !sleep(ctx, time.Duration(s.draw(pace))*time.Millisecond) {
				return
			}
		}
	})

	l := s.start("w0")
	for n := range 1 + s.draw(8) {
		sleep(ctx, time.Duration(s.draw(100*pace))*time.Millisecond)
		if s.draw(3) == 0 {
			s.sleepwalk() // and the worker has not heard of it when it dies
			sleep(ctx, time.Duration(s.draw(3000))*time.Millisecond)
		}
		l.die()

		l = s.start(fmt.Sprint("w", n+1))
	}
	for until := time.Now().Add(time.Hour); ; {
		sleep(ctx, time.Second)
		s.mu.Lock()
		all := len(sent) == 300
		s.mu.Unlock()
		if all && len(s.ended()) == 300 || time.Now().After(until) {
			break
		}
	}
	if len(s.ended()) < 300 {
		l.describe()
	}
	sleep(ctx, 2*rewriteAfter) // chunks that are finished go
	l.die()
	stop()
	world.Wait()
	s.check(sent)
}

func (s *sim) draw(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.IntN(n)
}

// ended counts the final outcomes of each delivery.
func (s *sim) ended() map[string]int {
	out := map[string]int{}
	for _, a := range s.attempts() {
		if a.Outcome.Final() {
			out[a.Delivery]++
		}
	}
	return out
}

func (s *sim) check(sent map[string]int) {
	ended := s.ended()
	for id, n := range sent {
		if ended[id] != 1 {
			s.t.Errorf("seed %d: event %d ended %d times", s.seed, n, ended[id])
		}
	}
	s.checkDue()
	s.checkRepeats()
	s.checkOrder(sent)
	s.checkParked()
}

// checkParked checks that no chunk is left in lanes.
func (s *sim) checkParked() {
	l := newLedger()
	for _, r := range s.logs[s.topics.Lanes] {
		l.apply(r)
	}
	left, err := l.estate(-1, s.committed.epoch)
	if err != nil || len(left.chunks) > 0 {
		s.t.Errorf("seed %d: still parked at the end: %v, %v", s.seed, left.chunks, err)
	}
}

// checkRepeats checks that no attempt was made again once its outcome stood in
// the log.
func (s *sim) checkRepeats() {
	known := map[string]time.Time{}
	for _, r := range s.logs[s.topics.Attempts] {
		if a, err := schemas.DecodeAttempt(r.Value); err == nil && a.Outcome != schemas.OutcomeRepeat {
			if name := fmt.Sprint(a.Delivery, a.Attempt); known[name].IsZero() {
				known[name] = r.Timestamp
			}
		}
	}
	for _, p := range s.posts {
		if at := known[fmt.Sprint(p.delivery, p.attempt)]; !at.IsZero() && p.at.After(at) {
			s.t.Errorf("seed %d: attempt %d of event %d was made again %s after its outcome was written", s.seed, p.attempt, p.offset, p.at.Sub(at))
		}
	}
}

// checkDue checks that no attempt came before the time that the outcome before it
// had set.
func (s *sim) checkDue() {
	due := map[string]time.Time{}
	note := func(delivery string, attempt int, at time.Time) {
		name := fmt.Sprint(delivery, attempt)
		if old, ok := due[name]; !ok || at.Before(old) {
			due[name] = at.Truncate(time.Millisecond)
		}
	}
	for _, a := range s.attempts() {
		if a.NextAt != nil {
			note(a.Delivery, a.Attempt+1, *a.NextAt)
		}
	}
	for _, r := range s.logs[s.topics.Schedule] { // the outcome may not have been written
		if d, err := schemas.DecodeDelivery(r.Key, r.Value, r.Headers); err == nil {
			note(d.ID, d.Attempt, d.DueAt)
		}
	}
	for _, p := range s.posts {
		if at, ok := due[fmt.Sprint(p.delivery, p.attempt)]; ok && p.at.Before(at) {
			s.t.Errorf("seed %d: attempt %d of event %d is %s early", s.seed, p.attempt, p.offset, at.Sub(p.at))
		}
		if _, ok := due[fmt.Sprint(p.delivery, p.attempt)]; !ok && p.attempt > 1 {
			s.t.Errorf("seed %d: attempt %d of event %d came without an outcome of the one before", s.seed, p.attempt, p.offset)
		}
	}
}

// checkOrder checks that of each key of an ordered endpoint no event was posted
// before all earlier ones had ended.
func (s *sim) checkOrder(sent map[string]int) {
	endedAt := map[string]time.Time{}
	for _, r := range s.logs[s.topics.Attempts] {
		if a, err := schemas.DecodeAttempt(r.Value); err == nil && a.Outcome.Final() {
			endedAt[a.Delivery] = r.Timestamp
		}
	}
	before := map[string][]post{} // first post of each delivery, by endpoint and key
	seen := map[string]bool{}
	for _, p := range s.posts {
		line := p.endpoint + "/" + p.key
		if p.endpoint == "ep_free" || p.endpoint == "ep_weak" {
			continue
		}
		for _, earlier := range before[line] {
			if earlier.offset > p.offset && !seen[p.delivery] {
				s.t.Errorf("seed %d: %s: event %d came after event %d", s.seed, line, p.offset, earlier.offset)
			}
			if earlier.offset < p.offset && p.at.Before(endedAt[earlier.delivery]) {
				s.t.Errorf("seed %d: %s: event %d came before event %d had ended", s.seed, line, p.offset, earlier.offset)
			}
		}
		if !seen[p.delivery] {
			seen[p.delivery] = true
			before[line] = append(before[line], p)
		}
	}
	for _, a := range s.attempts() {
		if a.Endpoint == "ep_block" && a.Outcome == schemas.OutcomeExhausted {
			s.t.Errorf("seed %d: a delivery of an endpoint that blocks is exhausted", s.seed)
		}
		if _, ok := sent[a.Delivery]; !ok {
			s.t.Errorf("seed %d: an outcome of a delivery that nobody sent: %+v", s.seed, a)
		}
	}
}

// TestSimulation is the model of exact resume, order and parking.
func TestSimulation(t *testing.T) {
	for seed := uint64(*firstSeed); seed < uint64(*firstSeed+*simulations); seed++ {
		synctest.Test(t, func(t *testing.T) { simulate(t, seed) })
		if t.Failed() {
			return
		}
	}
}

// simulations is how many seeds are tried, from firstSeed on.
var simulations = flag.Int("simulations", 40, "how many seeds of the simulation to try")

var firstSeed = flag.Int("first-seed", 0, "the first seed of the simulation")

// openSealer seals nothing.
type openSealer struct{}

func (openSealer) SealToken(plain []byte) (string, error) { return string(plain), nil }

func (openSealer) Open(sealed, _, _, _ string) ([]byte, error) { return []byte(sealed), nil }

// A record that failed under an owner that died before it was parked is the only
// one of its lane: the next owner attempts it again, when it is due.
func TestFailedBeforeOurTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.failing = func(_ string, attempt int) bool { return attempt == 1 }
		s.endpoint(registry.Endpoint{ID: "ep_1", Ordered: true, Retry: registry.Retry{Schedule: []registry.Duration{registry.Duration(time.Second)}}})
		l := s.start("w0")
		s.send("ep_1", "k", 1)
		for len(s.attempts()) == 0 {
			sleep(t.Context(), time.Millisecond)
		}
		l.die()
		l = s.start("w1")
		// Now and then a poll, or a request, takes many seconds.
		for until := time.Now().Add(time.Hour); len(s.attempts()) < 2 && time.Now().Before(until); {
			sleep(t.Context(), time.Second)
		}
		sleep(t.Context(), time.Minute)
		l.die()
		if got := s.attempts(); len(got) != 2 || got[1].Outcome != schemas.OutcomeDelivered || got[1].Attempt != 2 {
			t.Errorf("outcomes %+v", got)
		}
		s.checkDue()
	})
}
