package deliver

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/postrider/postrider/deliver/wheel"
	"github.com/postrider/postrider/internal/backoff"
	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/oauth"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/telemetry"
)

// Group is the consumer group of all workers, without the prefix.
const Group = "deliver"

const group = Group

// Groups returns the consumer groups of the role with the topic that each
// reads, for broker.EnsureGroup.
func Groups(t broker.Topics) map[string][]string {
	return map[string][]string{group: {t.Deliveries}, wheel.Group: {t.Schedule}}
}

// Worker delivers the partitions that the group assigns to it.
type Worker struct {
	cfg    Config
	deps   Deps
	topics broker.Topics
	log    *slog.Logger
	meters meters

	consumer *kgo.Client // member of the group, reads deliveries
	producer *kgo.Client // writes outcomes, chunks, owner records
	tailer   *kgo.Client // follows lanes of the owned partitions
	points   *broker.PointReader
	out      recordWriter // producer
	reader   recordReader // points
	bounds   logBounds
	wheel    *wheel.Wheel
	tail     *registry.Tail

	tasks   sync.WaitGroup  // attempts, take-overs, lifts
	life    context.Context //nolint:containedctx // ends when the last attempt may be given up
	endLife context.CancelFunc

	commits    chan struct{} // asks for a commit at once; capacity 1
	committing sync.Mutex    // one commit at a time; taken before mu

	mu    sync.Mutex
	homes map[int32]*home
	// assignment numbers the partitions that the group gives us now, so that one
	// that was taken away and given again can be told apart.
	assignment  map[int32]int
	assignments int

	slots     *slots
	stopping  bool
	pacedAt   time.Time // when lanes' paces were last looked at
	waiting   int       // bytes of records in memory
	unwritten int       // outcomes not acknowledged yet, by weight
	running   map[*entry]struct{}
	queued    map[*lane]struct{} // lanes with records in queue
	pending   map[*lane]struct{} // lanes with offsets to flush
	ending    map[*lane]struct{} // lanes of deleted endpoints that have more than may end at once
	alarms    *alarms
	reports   *rate.Limiter
	// unreported are lanes of which the registry may have to be told something.
	unreported map[*lane]struct{}
	behind     map[*lane]struct{} // lanes whose knowledge is not new enough
	asking     ring[*lane]        // those of them to be read, each once
	loads      chan struct{}      // wakes the loader; capacity 1
	tailNext   int64
	shards     int        // how many lanes of one endpoint there can be, by those that there were
	settled    *sync.Cond // signalled when inflight or unwritten falls
	tokens     *oauth.Tokens
	losses     broker.Losses
	parkedLost losses
}

// New returns a worker. It connects when it runs.
func New(cfg Config, deps Deps) (*Worker, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m, err := newMeters(deps.Meter, cfg.DetailMetrics)
	if err != nil {
		return nil, fmt.Errorf("create metrics: %w", err)
	}
	w := &Worker{
		cfg: cfg, deps: deps, topics: deps.Broker.Topics(), log: deps.Logger, meters: m,
		homes: map[int32]*home{}, assignment: map[int32]int{}, slots: newSlots(cfg.Slots, cfg.most(), cfg.TenantShare), running: map[*entry]struct{}{},
		queued: map[*lane]struct{}{}, pending: map[*lane]struct{}{}, unreported: map[*lane]struct{}{}, behind: map[*lane]struct{}{},
		ending: map[*lane]struct{}{},
		loads:  make(chan struct{}, 1), commits: make(chan struct{}, 1),
		alarms: newAlarms(), reports: rate.NewLimiter(reportRate, reportRate),
	}
	w.settled = sync.NewCond(&w.mu)
	deps.Health.Check("deliver.loss", func(context.Context) error { return w.parkedLost.err() })
	if w.tokens, err = oauth.New(deps.Egress, cfg.MaxLanes); err != nil {
		return nil, err
	}
	if err := w.observe(deps.Meter); err != nil {
		return nil, fmt.Errorf("create metrics: %w", err)
	}
	deps.Health.Check("deliver", w.standstill)
	return w, nil
}

// Run delivers until ctx is done, then finishes the attempts under way within
// the drain time, commits and leaves. It returns nil after an orderly stop.
func (w *Worker) Run(ctx context.Context) error {
	w.life, w.endLife = context.WithCancel(context.WithoutCancel(ctx))
	defer w.endLife()
	if err := w.connect(ctx); err != nil {
		return err
	}
	defer w.close()
	w.deps.Health.Check("deliver.data_loss", w.losses.Check)

	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	g, work := errgroup.WithContext(work)
	polling, stopPolling := context.WithCancel(ctx)
	defer stopPolling()
	g.Go(func() error { return w.pollLoop(polling) })
	g.Go(func() error { return w.commitLoop(work) })
	g.Go(func() error { return w.sweepLoop(work) })
	g.Go(func() error { return w.alarmLoop(work) })
	g.Go(func() error { return w.loadLoop(work) })
	g.Go(func() error { return w.followLanes(work) })
	g.Go(func() error { return ignoreCanceled(w.tail.Run(work)) })
	g.Go(func() error { return w.wheel.Run(polling) })

	select {
	case <-ctx.Done():
	case <-work.Done(): // a loop failed
	}
	stopPolling()
	w.drainAll()
	stopWork()
	err := g.Wait()
	w.endLife()
	w.tasks.Wait()
	w.leaveGroup(context.WithoutCancel(ctx))
	return err
}

// leaveGroup gives up the membership, which is static, so that others take over at
// once and not after the session has timed out.
func (w *Worker) leaveGroup(ctx context.Context) {
	w.consumer.Close()
	w.consumer = nil
	if err := broker.LeaveGroup(ctx, w.producer, w.deps.Broker, group, w.cfg.Instance); err != nil {
		w.log.WarnContext(ctx, "leave the group", "error", err)
	}
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// connect makes the clients. The tail of the registry is there before the group
// is joined, so that no change of an endpoint falls between.
func (w *Worker) connect(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	opts, err := w.deps.Broker.Options()
	if err != nil {
		return fmt.Errorf("deliver: %w", err)
	}
	w.producer, err = kgo.NewClient(append(opts,
		kgo.RecordPartitioner(partitioner(w.topics)),
		kgo.ProducerLinger(2*time.Millisecond),
		kgo.MaxBufferedRecords(1<<17))...)
	if err != nil {
		return fmt.Errorf("deliver: connect producer: %w", err)
	}
	w.tailer, err = kgo.NewClient(append(opts, kgo.FetchMaxBytes(1<<20))...)
	if err != nil {
		return fmt.Errorf("deliver: connect lane reader: %w", err)
	}
	if w.points, err = broker.NewPointReader(w.deps.Broker); err != nil {
		return fmt.Errorf("deliver: connect reader: %w", err)
	}
	w.out, w.reader, w.bounds = w.producer, w.points, kafkaBounds{w.producer}
	for {
		w.tailNext, err = broker.LastStableOffset(ctx, w.producer, w.topics.Registry, 0)
		if err == nil {
			break
		}
		w.log.WarnContext(ctx, "read the end of the registry", "error", err)
		if !backoff.Pause(ctx, time.Second) {
			return fmt.Errorf("deliver: read the end of the registry: %w", err)
		}
	}
	w.tail = registry.NewTail(registry.TailConfig{
		Kafka: w.deps.Broker, From: w.tailNext, Apply: w.applyRegistry, Logger: w.log,
	})
	w.wheel, err = wheel.New(wheel.Config{Instance: w.cfg.Instance}, wheel.Deps{
		Broker: w.deps.Broker, Layout: w.deps.Layout, Health: w.deps.Health, Logger: w.log, Meter: w.deps.Meter,
	})
	if err != nil {
		return fmt.Errorf("deliver: %w", err)
	}
	gopts, err := w.deps.Broker.GroupOptions(group, w.cfg.Instance, w.topics.Deliveries)
	if err != nil {
		return fmt.Errorf("deliver: %w", err)
	}
	// The lock: the group's callbacks, which take it, need the consumer.
	w.mu.Lock()
	defer w.mu.Unlock()
	w.consumer, err = kgo.NewClient(append(gopts,
		kgo.RebalanceTimeout(w.cfg.Drain+20*time.Second),
		kgo.OnPartitionsAssigned(w.assigned),
		kgo.OnOffsetsFetched(w.offsetsFetched),
		kgo.OnPartitionsRevoked(w.revoked),
		kgo.OnPartitionsLost(w.lost),
		kgo.KeepControlRecords())...) // for takeUp
	if err != nil {
		return fmt.Errorf("deliver: connect consumer: %w", err)
	}
	return nil
}

func (w *Worker) close() {
	if w.consumer != nil {
		w.consumer.Close()
	}
	if w.tailer != nil {
		w.tailer.Close()
	}
	if w.points != nil {
		w.points.Close()
	}
	if w.producer != nil {
		w.producer.Close()
	}
}

// partitioner sends records of the topics that share a layout to the partition
// that they name, all others by key.
func partitioner(t broker.Topics) kgo.Partitioner {
	return kgo.BasicConsistentPartitioner(func(topic string) func(*kgo.Record, int) int {
		switch topic {
		case t.Deliveries, t.Attempts, t.Lanes, t.Schedule, t.Registry:
			return func(r *kgo.Record, _ int) int { return int(r.Partition) }
		}
		return func(r *kgo.Record, n int) int {
			h := fnv.New32a()
			_, _ = h.Write(r.Key)
			return int(h.Sum32() % uint32(n)) //nolint:gosec // smaller than n
		}
	})
}

// pollLoop takes up the records of the homes that are ready.
func (w *Worker) pollLoop(ctx context.Context) error {
	beat := w.beat("deliver.poll", 30*time.Second)
	defer beat.Stop()
	for {
		beat.Tick()
		if !w.waitWritten(ctx) {
			if ctx.Err() != nil {
				return nil
			}
			continue
		}
		poll, cancel := context.WithTimeout(ctx, 5*time.Second)
		fetches := w.consumer.PollRecords(poll, 2000)
		cancel()
		if ctx.Err() != nil || fetches.IsClientClosed() {
			return nil
		}
		var fatal error
		fetches.EachError(func(topic string, partition int32, err error) {
			if err := w.fetchError(ctx, partition, err); err != nil {
				fatal = errors.Join(fatal, fmt.Errorf("deliver: read %s/%d: %w", topic, partition, err))
			}
		})
		if fatal != nil {
			return fatal
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) { w.takeUp(ctx, p.Partition, p.Records) })
	}
}

// waitWritten waits until fewer outcomes than the bound are not acknowledged, so
// that records that end without an attempt can't pile up in memory. It reports
// false after a while or when ctx is done: the caller shows that it is alive and
// asks again.
func (w *Worker) waitWritten(ctx context.Context) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unwritten < w.maxUnwritten() {
		return true
	}
	until := time.Now().Add(5 * time.Second)
	wake := time.AfterFunc(time.Until(until)+time.Millisecond, w.wakeWaiting)
	defer wake.Stop()
	defer context.AfterFunc(ctx, w.wakeWaiting)()
	for w.unwritten >= w.maxUnwritten() && time.Now().Before(until) && ctx.Err() == nil {
		w.settled.Wait()
	}
	return w.unwritten < w.maxUnwritten()
}

// maxUnwritten is how many outcomes may be unacknowledged before nothing more is
// started or taken up.
func (w *Worker) maxUnwritten() int { return 2 * w.cfg.Slots }

func (w *Worker) beat(name string, limit time.Duration) *telemetry.Beat {
	return w.deps.Health.Watchdog(name, limit)
}
