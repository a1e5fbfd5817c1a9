// Package wheel delays retries. It is a hierarchical timing wheel made of Kafka
// partitions: level k holds a record for exactly 2^k seconds, so that the
// records of a partition fall due in the order in which they arrived, and a
// reader sleeps until its head is due.
//
// In: topic schedule, deliveries with the levels they still have to pass. Out:
// the next level's partition, or topic deliveries when none is left. A hop is
// acknowledged before it is committed: a crash repeats hops and loses none; the
// owner of the endpoint drops the copies.
//
// Nothing is ever early, up to the difference between the clocks of the broker
// and the reader, which is a metric.
package wheel

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/metric"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/schemas"
)

// Group is the consumer group of all wheels, without the prefix.
const Group = "wheel"

// Bounds of a reader.
const (
	// holdMax and holdBytes are how many records, and bytes of them, one partition
	// holds in memory before it is paused, and pollMax how many one poll returns.
	holdMax   = 4096
	holdBytes = 8 << 20
	pollMax   = 2048
	// movingMax is how many records of one partition are on their way to the next
	// at once, movingBytes how many bytes of all, and movingPause the wait while
	// there are so many. The producer has room for them.
	movingMax   = 8192
	movingBytes = 32 << 20
	movingPause = 50 * time.Millisecond
	// farAway is from when on a head's due time is worth a pause.
	farAway = 5 * time.Second
	// commitEvery is how often progress is committed.
	commitEvery = time.Second
	// barFor is how long a partition is left alone that can't be read for now.
	barFor = time.Second
	// idlePoll is the longest wait of one poll.
	idlePoll = time.Second
)

// Config is the wheel's own configuration.
type Config struct {
	// Instance is the stable name of the process: its group instance id.
	Instance string
}

// Deps is what a wheel works with.
type Deps struct {
	Broker broker.Config
	Layout broker.Layout
	Health *telemetry.Health
	Logger *slog.Logger
	Meter  metric.Meter
}

// Wheel reads the levels that the group assigns to it.
type Wheel struct {
	cfg    Config
	deps   Deps
	topics broker.Topics

	hops  metric.Int64Counter
	late  metric.Float64Histogram
	skews metric.Float64Gauge

	consumer *kgo.Client
	producer *kgo.Client
	losses   broker.Losses

	mu     sync.Mutex
	parts  map[int32]*level
	moving int // bytes of records on their way
}

// New returns a wheel. It connects when it runs.
func New(cfg Config, deps Deps) (*Wheel, error) {
	w := &Wheel{cfg: cfg, deps: deps, topics: deps.Broker.Topics(), parts: map[int32]*level{}}
	var err1, err2, err3 error
	w.hops, err1 = deps.Meter.Int64Counter("postrider.wheel.hops", metric.WithDescription("Records passed on by the wheel."))
	w.late, err2 = deps.Meter.Float64Histogram("postrider.wheel.late", metric.WithUnit("s"),
		metric.WithDescription("How long after its due time a record was passed on."))
	w.skews, err3 = deps.Meter.Float64Gauge("postrider.wheel.clock_skew", metric.WithUnit("s"),
		metric.WithDescription("How far the broker's clock is ahead of ours; above 2 s retries may be early."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("create metrics: %w", err)
	}
	return w, nil
}

// First returns the record of schedule by which a delivery begins its delay, as
// d.Levels says.
func (w *Wheel) First(d *schemas.Delivery) *kgo.Record {
	return Record(d, w.topics, w.deps.Layout)
}

// Record returns the record of a delivery's next hop: the partition of its next
// level, or of its endpoint in deliveries where no level is left.
func Record(d *schemas.Delivery, topics broker.Topics, layout broker.Layout) *kgo.Record {
	next := *d
	level, rest, ok := Next(d.Levels)
	next.Levels = rest
	r := &kgo.Record{
		Topic: topics.Deliveries, Partition: layout.Partition(d.Lane()),
		Key: []byte(d.Lane()), Value: d.Event.Data,
	}
	if ok {
		h := fnv.New32a()
		_, _ = h.Write([]byte(d.ID))
		shard := int32(h.Sum32() % uint32(layout.ScheduleShards)) //nolint:gosec // smaller than the shards
		r.Topic, r.Partition = topics.Schedule, layout.SchedulePartition(level, shard)
	}
	r.Headers = schemas.AppendDeliveryHeaders[kgo.RecordHeader](nil, &next)
	return r
}

// Run turns the wheel until ctx is done; then it commits and leaves.
func (w *Wheel) Run(ctx context.Context) error {
	if err := w.connect(); err != nil {
		return err
	}
	defer w.producer.Close()
	defer w.leave(context.WithoutCancel(ctx))
	w.deps.Health.Check("deliver.wheel_data_loss", w.losses.Check)
	beat := w.deps.Health.Watchdog("deliver.wheel", 30*time.Second)
	defer beat.Stop()
	var committed time.Time
	for {
		beat.Tick()
		now := time.Now()
		if now.Sub(committed) >= commitEvery {
			committed = now
			w.commit(ctx)
		}
		poll, cancel := context.WithTimeout(ctx, w.advance(ctx, now))
		fetches := w.consumer.PollRecords(poll, pollMax)
		cancel()
		if ctx.Err() != nil || fetches.IsClientClosed() {
			w.stop() //nolint:contextcheck // ctx is done here
			return nil
		}
		var fatal error
		fetches.EachError(func(topic string, partition int32, err error) {
			fatal = errors.Join(fatal, w.fetchError(ctx, topic, partition, err))
		})
		w.take(fetches) //nolint:contextcheck // a metric needs none
		w.consumer.AllowRebalance()
		if fatal != nil {
			return fatal
		}
	}
}

func (w *Wheel) connect() (err error) {
	opts, err := w.deps.Broker.Options()
	if err != nil {
		return fmt.Errorf("wheel: %w", err)
	}
	w.producer, err = kgo.NewClient(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(2*time.Millisecond),
		kgo.MaxBufferedRecords(movingBytes/512))...)
	if err != nil {
		return fmt.Errorf("wheel: connect producer: %w", err)
	}
	gopts, err := w.deps.Broker.GroupOptions(Group, w.cfg.Instance, w.topics.Schedule)
	if err == nil {
		// Rebalances wait for take: records that were polled under an older
		// assignment must not be taken for those of a newer one.
		w.consumer, err = kgo.NewClient(append(gopts, kgo.BlockRebalanceOnPoll(),
			kgo.OnPartitionsAssigned(w.assigned), kgo.OnPartitionsRevoked(w.revoked), kgo.OnPartitionsLost(w.lost))...)
	}
	if err != nil {
		w.producer.Close()
		return fmt.Errorf("wheel: connect consumer: %w", err)
	}
	return nil
}

func (w *Wheel) fetchError(ctx context.Context, topic string, partition int32, err error) error {
	var lost *kgo.ErrDataLoss
	var tooLarge *kgo.ErrDecompressTooLarge
	switch {
	case errors.As(err, &lost): // the client goes on where the log was cut off
		w.losses.Tell(ctx, w.deps.Logger, w.topics.Schedule, partition, fmt.Errorf("truncated: %w", lost))
	case errors.Is(err, kerr.OffsetOutOfRange):
		w.outOfRange(ctx, partition)
	case errors.As(err, &tooLarge):
		// Only we write here: foreign records are for a person to look at.
		return fmt.Errorf("wheel: read %s/%d: %w", topic, partition, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), kerr.IsRetriable(err):
	default:
		w.deps.Logger.WarnContext(ctx, "read schedule", "partition", partition, "error", err)
	}
	return nil
}

func (w *Wheel) assigned(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range parts[w.topics.Schedule] {
		w.parts[p] = newLevel(p)
	}
}

// revoked lets hops under way be acknowledged, commits, and forgets the levels.
func (w *Wheel) revoked(ctx context.Context, cl *kgo.Client, parts map[string][]int32) {
	flush, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := w.producer.Flush(flush); err != nil {
		w.deps.Logger.WarnContext(ctx, "flush hops", "error", err)
	}
	w.commit(ctx)
	w.lost(ctx, cl, parts)
}

func (w *Wheel) lost(_ context.Context, cl *kgo.Client, parts map[string][]int32) {
	w.mu.Lock()
	for _, p := range parts[w.topics.Schedule] {
		delete(w.parts, p)
	}
	w.mu.Unlock()
	cl.ResumeFetchPartitions(parts) // a pause outlives an assignment
}

// stop waits for hops under way and commits them.
func (w *Wheel) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := w.producer.Flush(ctx); err != nil {
		w.deps.Logger.Warn("flush hops", "error", err)
	}
	w.commit(ctx)
}

// leave ends the membership, which is static, so that others take over at once
// and not after the session has timed out.
func (w *Wheel) leave(ctx context.Context) {
	w.consumer.CloseAllowingRebalance()
	if err := broker.LeaveGroup(ctx, w.producer, w.deps.Broker, Group, w.cfg.Instance); err != nil {
		w.deps.Logger.WarnContext(ctx, "leave the group", "error", err)
	}
}

// commit commits how far each level was passed on without a gap.
func (w *Wheel) commit(ctx context.Context) {
	w.mu.Lock()
	offsets := map[int32]kgo.EpochOffset{}
	for p, l := range w.parts {
		if at, ok := l.progress(); ok {
			offsets[p] = at
		}
	}
	w.mu.Unlock()
	if len(offsets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	w.consumer.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{w.topics.Schedule: offsets},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
			if err != nil {
				w.deps.Logger.WarnContext(ctx, "commit schedule", "error", err)
				return
			}
			w.committed(offsets, resp)
		})
}

// committed notes what the coordinator accepted; the rest is committed again.
func (w *Wheel) committed(offsets map[int32]kgo.EpochOffset, resp *kmsg.OffsetCommitResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if l := w.parts[p.Partition]; l != nil && p.ErrorCode == 0 {
				l.committed = max(l.committed, offsets[p.Partition].Offset)
			}
		}
	}
}
