package deliver

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
)

// recordWriter writes records to Kafka. A *kgo.Client is one.
type recordWriter interface {
	TryProduce(ctx context.Context, r *kgo.Record, done func(*kgo.Record, error))
	ProduceSync(ctx context.Context, rs ...*kgo.Record) kgo.ProduceResults
}

// recordReader reads committed records from an offset on. A *broker.PointReader
// is one.
type recordReader interface {
	Read(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32) (broker.Slice, error)
}

// logBounds finds offsets of a log.
type logBounds interface {
	// End returns the offset behind the last committed record.
	End(ctx context.Context, topic string, partition int32) (int64, error)
	// After returns the first offset appended at a time or later, negative where
	// there is none.
	After(ctx context.Context, topic string, partition int32, at time.Time) (int64, error)
}

// kafkaBounds asks the brokers.
type kafkaBounds struct{ client *kgo.Client }

// End implements logBounds.
func (k kafkaBounds) End(ctx context.Context, topic string, partition int32) (int64, error) {
	return broker.LastStableOffset(ctx, k.client, topic, partition)
}

// After implements logBounds.
func (k kafkaBounds) After(ctx context.Context, topic string, partition int32, at time.Time) (int64, error) {
	offsets, err := kadm.NewClient(k.client).ListOffsetsAfterMilli(ctx, at.UnixMilli(), topic)
	if err != nil {
		return 0, fmt.Errorf("find the offset of a time in %s: %w", topic, err)
	}
	o, ok := offsets.Lookup(topic, partition)
	if !ok {
		return 0, fmt.Errorf("find the offset of a time in %s/%d: no answer", topic, partition)
	}
	if o.Err != nil {
		return 0, fmt.Errorf("find the offset of a time in %s/%d: %w", topic, partition, o.Err)
	}
	return o.Offset, nil
}

// deliveriesOf names a partition of deliveries for the consumer.
func (w *Worker) deliveriesOf(partition int32) map[string][]int32 {
	return map[string][]int32{w.topics.Deliveries: {partition}}
}

// pauseFetching and resumeFetching have the consumer leave out a partition of
// deliveries, and fetch it again. The consumer is gone once the group was left.
func (w *Worker) pauseFetching(partition int32) {
	if w.consumer != nil {
		w.consumer.PauseFetchPartitions(w.deliveriesOf(partition))
	}
}

func (w *Worker) resumeFetching(partition int32) {
	if w.consumer != nil {
		w.consumer.ResumeFetchPartitions(w.deliveriesOf(partition))
	}
}

// fetchFrom sets the consumer to an offset of a partition of deliveries.
func (w *Worker) fetchFrom(partition int32, offset int64) {
	if w.consumer != nil {
		w.consumer.SetOffsets(map[string]map[int32]kgo.EpochOffset{w.topics.Deliveries: {partition: {Epoch: -1, Offset: offset}}})
	}
}

// followFrom reads what others write to a partition of lanes from an offset on, until
// unfollow.
func (w *Worker) followFrom(partition int32, offset int64) {
	if w.tailer != nil {
		w.tailer.AddConsumePartitions(map[string]map[int32]kgo.Offset{w.topics.Lanes: {partition: kgo.NewOffset().At(offset)}})
	}
}

func (w *Worker) unfollow(partition int32) {
	if w.tailer != nil {
		w.tailer.RemoveConsumePartitions(map[string][]int32{w.topics.Lanes: {partition}})
	}
}
