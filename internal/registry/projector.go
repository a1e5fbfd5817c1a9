package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/backoff"
	"github.com/postrider/postrider/internal/broker"
)

// Timings of the projector.
const (
	leaseTTL   = 2 * time.Second
	leaseRenew = leaseTTL / 4
	// standbyWait is how often a projector without the lease asks for it.
	standbyWait = leaseTTL / 4
	// tombstones is how long Kafka keeps tombstones of registry unless the
	// configuration says otherwise.
	tombstones = 7 * 24 * time.Hour
)

// leaseKey is held by the projector at work. It saves work; that several at
// work do no harm is up to the script.
const leaseKey = "view:lease"

// Reasons for which a projector starts over; it goes on by itself.
var (
	errLeaseLost = errors.New("lease lost")
	errRestart   = errors.New("view changed under the projector")
)

// ProjectorConfig says what a [Projector] reads and where it writes.
type ProjectorConfig struct {
	// Kafka is where the topic is. The projector opens its own client. Half of
	// Retention.Tombstones is the age at which the view's position is too old.
	Kafka broker.Config
	// Redis is where the view is. Required.
	Redis redis.UniversalClient
	// OnLostUpdate, if set, gets each record that was built on another version
	// of its entity than the one before it: an update was lost. It is called by
	// Run and holds up the view while it runs; it is told at most once of a
	// record, not at all if the projector dies at that moment.
	OnLostUpdate func(Record)
	// Tick, if set, is called in every round, at most about a second apart while
	// all is well: a sign of life for a watchdog.
	Tick func()
	// Logger gets what is skipped and what fails; nil means silence.
	Logger *slog.Logger
}

// Projector keeps the view in Redis up to the log. Any number may run; one at a
// time works.
type Projector struct {
	cfg                 ProjectorConfig
	topic               string
	limit               time.Duration
	apply, begin, sweep *redis.Script
	generations         generations
	fault               atomic.Pointer[error]
}

// NewProjector returns a projector that does nothing until Run.
func NewProjector(cfg ProjectorConfig) *Projector {
	setDefaults(&cfg.Tick, &cfg.Logger)
	if cfg.OnLostUpdate == nil {
		cfg.OnLostUpdate = func(Record) {}
	}
	limit := cfg.Kafka.Retention.Tombstones / 2
	if limit == 0 {
		limit = tombstones / 2
	}
	return &Projector{
		cfg: cfg, topic: cfg.Kafka.Topics().Registry, limit: limit,
		apply: redis.NewScript(applySource), begin: redis.NewScript(beginSource), sweep: redis.NewScript(sweepSource),
	}
}

// Err returns why the projector can't work at the moment, or nil. Waiting for
// the lease is no error.
func (p *Projector) Err() error {
	if err := p.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// Run projects until ctx ends and then returns nil. It outlasts every failure
// of Redis and Kafka; [Projector.Err] tells of them.
func (p *Projector) Run(ctx context.Context) error {
	cl, err := p.cfg.Kafka.NewClient()
	if err != nil {
		return err
	}
	defer cl.Close()
	pause := newBackoff()
	for ctx.Err() == nil {
		p.cfg.Tick()
		err := p.turn(ctx, cl, pause)
		switch {
		case ctx.Err() != nil:
		case err == nil:
			pause.Reset()
			p.fault.Store(nil)
		case errors.Is(err, errLeaseLost):
			// Another projector works, or this one was asleep and asks for it again.
			p.cfg.Logger.DebugContext(ctx, "view projector gives way", "reason", err)
			pause.Wait(ctx)
		case errors.Is(err, errRestart):
			p.cfg.Logger.InfoContext(ctx, "view projector starts over", "reason", err)
			pause.Wait(ctx)
		default:
			p.fault.Store(&err)
			p.cfg.Logger.WarnContext(ctx, "view projector waits", "error", err)
			pause.Wait(ctx)
		}
	}
	return nil
}

// turn waits once for the lease, or works as long as it holds it.
func (p *Projector) turn(ctx context.Context, cl *kgo.Client, wait *backoff.Backoff) error {
	l := newLease(p.cfg.Redis, leaseKey, leaseTTL)
	got, err := l.acquire(ctx)
	if err != nil {
		return fmt.Errorf("acquire %s: %w", leaseKey, err)
	}
	if !got {
		backoff.Pause(ctx, standbyWait)
		return nil
	}
	defer l.release(ctx)
	return p.lead(ctx, cl, l, wait)
}

// lead projects until the lease is lost, something fails or ctx ends.
func (p *Projector) lead(ctx context.Context, cl *kgo.Client, l *lease, wait *backoff.Backoff) error {
	w, err := p.open(ctx, cl)
	if err != nil {
		return err
	}
	renewed := time.Now()
	for ctx.Err() == nil {
		p.cfg.Tick()
		if time.Since(renewed) > leaseRenew {
			renewed = time.Now()
			ours, err := l.renew(ctx)
			if err != nil {
				return fmt.Errorf("renew %s: %w", leaseKey, err)
			}
			if !ours {
				return errLeaseLost
			}
		}
		c, err := w.log.fetch(ctx, fetchWait)
		if err != nil {
			if errors.Is(err, ErrLogLost) {
				err = fmt.Errorf("%w: %w", errRestart, err)
			}
			return err
		}
		if err := w.project(ctx, c); err != nil {
			return err
		}
		wait.Reset()
		p.fault.Store(nil)
		if len(c.records) == 0 {
			if err := w.sweeper.step(ctx); err != nil {
				return fmt.Errorf("sweep old generations: %w", err)
			}
		}
	}
	return nil
}

// work is one holder's work between two looks at the markers.
type work struct {
	*Projector
	log       *logReader
	topicID   string
	positions [Buckets]position
	// end was the log's end at the beginning: what comes after it is the live
	// tail, in which compaction has taken nothing away yet.
	end     int64
	sweeper sweeper
}

// open looks at the markers, begins new generations where it must, and starts
// to read at the lowest position.
func (p *Projector) open(ctx context.Context, cl *kgo.Client) (*work, error) {
	markers, err := readMarkers(ctx, p.cfg.Redis)
	if err != nil {
		return nil, err
	}
	// After the markers: none of this log can be beyond that end.
	end, err := broker.LastStableOffset(ctx, cl, p.topic, 0)
	if err != nil {
		return nil, err
	}
	begins, err := broker.StartOffset(ctx, cl, p.topic, 0)
	if err != nil {
		return nil, err
	}
	id, err := broker.TopicID(ctx, cl, p.topic)
	if err != nil {
		return nil, err
	}
	w := &work{Projector: p, topicID: topicText(id), end: end, sweeper: sweeper{rdb: p.cfg.Redis, script: p.sweep}}
	for _, m := range markers {
		p.generations.see(m.Generation)
	}
	fits := logBounds{topic: w.topicID, start: begins, end: end, oldest: time.Now().Add(-p.limit)}
	start := end
	for b, m := range markers {
		if !m.valid || !fits.hold(m) {
			if m.Marker, err = w.rebuild(ctx, b, m); err != nil {
				return nil, err
			}
		}
		w.positions[b] = position{generation: formatInt(m.Generation), next: m.Next}
		start = min(start, m.Next)
	}
	w.log = newLogReader(cl, p.topic, start)
	w.log.id = id
	return w, nil
}

func (w *work) rebuild(ctx context.Context, b int, seen storedMarker) (Marker, error) {
	now := time.Now()
	fresh := freshMarker{bucket: b, topic: w.topicID, generation: w.generations.next(now), target: w.end, at: now.UnixMilli()}
	began, err := begin(ctx, w.cfg.Redis, w.begin, seen, fresh)
	if err != nil {
		return Marker{}, fmt.Errorf("begin generation of bucket %d: %w", b, err)
	}
	if !began {
		return Marker{}, fmt.Errorf("%w: bucket %d has another marker", errRestart, b)
	}
	w.cfg.Logger.DebugContext(ctx, "view generation begins", "bucket", b, "generation", fresh.generation, "target", fresh.target)
	return Marker{Generation: fresh.generation}, nil
}

// project brings every bucket to the chunk's end, those with records first.
func (w *work) project(ctx context.Context, c chunk) error {
	parts := batches(decodeAll(ctx, c, w.cfg.Logger), &w.positions, w.end)
	s := span{from: c.from, to: c.next, now: time.Now().UnixMilli(), limit: w.limit.Milliseconds()}
	if c.next >= c.end {
		s.seen = c.asked.UnixMilli()
	}
	var order []int
	var calls []call
	for _, empty := range []bool{false, true} {
		for b := range parts {
			if (len(parts[b].records) == 0) == empty {
				order = append(order, b)
				calls = append(calls, parts[b].call(b, w.topicID, w.positions[b].generation, s))
			}
		}
	}
	answers, err := runAll(ctx, w.cfg.Redis, w.apply, calls)
	if err != nil {
		return err
	}
	var refused []string
	for i, b := range order {
		answer, err := answers[i].Slice()
		if err != nil || len(answer) == 0 {
			return fmt.Errorf("answer of the view script: %v: %w", answer, err)
		}
		if answer[0] != "ok" {
			refused = append(refused, fmt.Sprintf("bucket %d: %v", b, answer[0]))
			continue
		}
		w.positions[b].next = max(w.positions[b].next, c.next)
		for _, at := range answer[2:] {
			if n, ok := at.(int64); ok && n < int64(len(parts[b].records)) {
				w.cfg.OnLostUpdate(parts[b].records[n])
			}
		}
	}
	if len(refused) > 0 {
		return fmt.Errorf("%w: %s", errRestart, strings.Join(refused, ", "))
	}
	return nil
}
