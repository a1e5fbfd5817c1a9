package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/postrider/postrider/internal/broker"
)

// ErrLogLost says that the log is not the one that was read before: the topic
// was created anew, cut at the end, or no longer has the offset asked for.
var ErrLogLost = errors.New("registry log lost records")

// fetchWait is how long the broker holds a fetch that finds nothing, and
// fetchBytes about how much one fetch returns: it becomes one round of scripts
// in Redis.
const (
	fetchWait  = 500 * time.Millisecond
	fetchBytes = 1 << 20
)

// logReader reads the one partition of topic registry without a group. It
// fetches by itself, because it must know its position also where there is no
// record (the end of the log after compaction): kgo's consumer tells only of
// records. Its client must not be used for other fetches, they would queue
// behind the long poll. Not for concurrent use.
type logReader struct {
	client *kgo.Client
	admin  *kadm.Client
	unpack kgo.Decompressor
	topic  string

	// next is the offset to read next. start is what it means: not below the
	// log's start.
	next, start int64
	// id is the topic's, once known.
	id [16]byte
	// leader is -1 if unknown; epoch is its epoch, lastEpoch that of the last
	// record read, -1 if none was.
	leader           int32
	epoch, lastEpoch int32
}

// chunk is what one fetch returned.
type chunk struct {
	records []*kgo.Record
	// All records of [from, next) are in records; the log ended at end.
	from, next, end int64
	// asked is when the fetch was sent.
	asked time.Time
}

func newLogReader(cl *kgo.Client, topic string, next int64) *logReader {
	return &logReader{
		client: cl, admin: kadm.NewClient(cl), unpack: broker.Decompressor(cl), topic: topic,
		next: next, leader: -1, lastEpoch: -1,
	}
}

// fetch returns the next records, waiting for some at most wait. After an error
// that does not wrap ErrLogLost it can be called again.
func (r *logReader) fetch(ctx context.Context, wait time.Duration) (chunk, error) {
	if r.leader < 0 {
		if err := r.locate(ctx); err != nil {
			return chunk{}, err
		}
	}
	asked := time.Now()
	f := broker.Fetch{
		Topic: r.topic, ID: r.id, Leader: r.leader, Epoch: r.epoch,
		Offset: max(r.next, r.start), MaxBytes: fetchBytes, Wait: wait,
	}
	part, err := f.Do(ctx, r.client)
	if err != nil {
		r.leader = -1
		if errors.Is(err, kerr.OffsetOutOfRange) {
			err = fmt.Errorf("%w: %w", ErrLogLost, err)
		}
		return chunk{}, fmt.Errorf("fetch %s at %d: %w", r.topic, r.next, err)
	}
	if part == nil { // throttled: the broker says nothing
		return chunk{from: r.next, next: r.next, end: r.next + 1, asked: asked}, nil
	}
	got, next := f.Records(part, r.unpack)
	if got.Err != nil {
		return chunk{}, fmt.Errorf("read %s at %d: %w", r.topic, next, got.Err)
	}
	if len(part.RecordBatches) == 0 {
		// Nothing up to the last stable offset: what is missing was compacted away.
		next = max(next, got.LastStableOffset)
	}
	if n := len(got.Records); n > 0 {
		r.lastEpoch = got.Records[n-1].LeaderEpoch
	}
	c := chunk{records: got.Records, from: r.next, next: next, end: got.LastStableOffset, asked: asked}
	r.next = next
	return c, nil
}

// locate finds the leader and makes sure that the log is still the same.
func (r *logReader) locate(ctx context.Context) error {
	topics, err := r.admin.ListTopics(ctx, r.topic)
	if err != nil {
		return fmt.Errorf("look up topic %s: %w", r.topic, err)
	}
	topic := topics[r.topic]
	part, ok := topic.Partitions[0]
	if err := errors.Join(topic.Err, part.Err); err != nil {
		return fmt.Errorf("look up topic %s: %w", r.topic, err)
	}
	if !ok || part.Leader < 0 {
		return fmt.Errorf("look up topic %s: %w", r.topic, kerr.LeaderNotAvailable)
	}
	if r.id != ([16]byte{}) && r.id != topic.ID {
		return fmt.Errorf("%w: topic %s was created anew", ErrLogLost, r.topic)
	}
	if r.lastEpoch >= 0 && part.LeaderEpoch > r.epoch {
		if err := r.checkCut(ctx, part.LeaderEpoch); err != nil {
			return err
		}
	}
	if r.next == 0 {
		if r.start, err = broker.StartOffset(ctx, r.client, r.topic, 0); err != nil {
			return err
		}
	}
	r.id, r.leader, r.epoch = topic.ID, part.Leader, part.LeaderEpoch
	return nil
}

// checkCut asks a new leader whether the log still reaches as far in the epoch
// of the last record read (KIP-320).
func (r *logReader) checkCut(ctx context.Context, epoch int32) error {
	part := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	part.CurrentLeaderEpoch = epoch
	part.LeaderEpoch = r.lastEpoch
	asked := kmsg.NewOffsetForLeaderEpochRequestTopic()
	asked.Topic = r.topic
	asked.Partitions = append(asked.Partitions, part)
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	req.ReplicaID = -1
	req.Topics = append(req.Topics, asked)
	resp, err := req.RequestWith(ctx, r.client)
	if err != nil {
		return fmt.Errorf("check the log of %s: %w", r.topic, err)
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return fmt.Errorf("check the log of %s: the broker gave no answer", r.topic)
	}
	got := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
		return fmt.Errorf("check the log of %s: %w", r.topic, err)
	}
	if got.EndOffset < r.next {
		return fmt.Errorf("%w: %w", ErrLogLost, &kgo.ErrDataLoss{
			Topic: r.topic, ConsumedTo: r.next, ConsumedToEpoch: r.lastEpoch,
			ResetTo: got.EndOffset, ResetToEpoch: got.LeaderEpoch,
		})
	}
	return nil
}
