package broker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Fetch is one fetch request for one partition, outside of kgo's consumer: it
// needs no group, session or position, and shows what the consumer hides, such
// as the end of the log.
type Fetch struct {
	Topic string
	// ID is the topic's id, see [TopicID].
	ID [16]byte
	// Partition is read from its Leader, a broker's node id.
	Partition, Leader int32
	// Epoch is the leader's epoch; -1 asks a leader of any epoch.
	Epoch int32
	// Offset is the first one wanted.
	Offset int64
	// MaxBytes is about how much is returned; the first batch comes whole,
	// however large it is.
	MaxBytes int32
	// Wait is how long the broker waits for records; 0: not at all. The unit on
	// the wire is a millisecond.
	Wait time.Duration
	// Uncommitted wants open and aborted transactions, too.
	Uncommitted bool
}

// Do sends the request once. The answer is nil, without an error, if the broker
// says nothing about the partition, as it does when it throttles. An error that
// the broker names for the partition comes together with the answer. Where no
// answer came at all the error is kerr.NetworkException, which is retriable.
func (f Fetch) Do(ctx context.Context, cl *kgo.Client) (*kmsg.FetchResponseTopicPartition, error) {
	answer, err := cl.Broker(int(f.Leader)).Request(ctx, f.request())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kerr.NetworkException, err)
	}
	resp, ok := answer.(*kmsg.FetchResponse)
	if !ok {
		return nil, fmt.Errorf("answer of type %T", answer)
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, err
	}
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			p := &resp.Topics[i].Partitions[j]
			return p, kerr.ErrorForCode(p.ErrorCode)
		}
	}
	return nil, nil //nolint:nilnil // no answer for the partition is no error
}

func (f Fetch) request() *kmsg.FetchRequest {
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition = f.Partition
	part.CurrentLeaderEpoch = f.Epoch
	part.FetchOffset = f.Offset
	part.PartitionMaxBytes = f.MaxBytes
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID = f.Topic, f.ID
	topic.Partitions = append(topic.Partitions, part)
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID = -1
	req.MaxWaitMillis = int32(min(f.Wait, time.Minute).Milliseconds()) //nolint:gosec // at most a minute
	req.MinBytes = either(f.Wait > 0, int32(1), 0)
	req.MaxBytes = math.MaxInt32 // the one partition's bound holds; kfake names no aborted transactions above this one
	req.IsolationLevel = either(f.Uncommitted, int8(0), 1)
	req.SessionEpoch = -1 // no fetch session
	req.Topics = append(req.Topics, topic)
	return req
}

// Records unpacks an answer to the records of [f.Offset, next), without those of
// aborted transactions; unpack is the client's [Decompressor].
func (f Fetch) Records(part *kmsg.FetchResponseTopicPartition, unpack kgo.Decompressor) (got kgo.FetchPartition, next int64) {
	return kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: f.Offset, IsolationLevel: kgo.ReadCommitted(), Topic: f.Topic, Partition: f.Partition,
	}, part, unpack, nil)
}

// Decompressor returns a client's own, which unpacks no batch to more than
// [MaxBatchBytes]. kgo gives every client one.
func Decompressor(cl *kgo.Client) kgo.Decompressor {
	return cl.OptValue(kgo.WithDecompressor).(kgo.Decompressor)
}

// fetchOf returns a fetch of a partition from its leader.
func fetchOf(detail kadm.TopicDetail, partition int32) (Fetch, error) {
	where, ok := detail.Partitions[partition]
	if err := errors.Join(detail.Err, where.Err); err != nil {
		return Fetch{}, err
	}
	if !ok {
		return Fetch{}, kerr.UnknownTopicOrPartition
	}
	if where.Leader < 0 {
		return Fetch{}, kerr.LeaderNotAvailable
	}
	return Fetch{Topic: detail.Topic, ID: detail.ID, Partition: partition, Leader: where.Leader, Epoch: -1}, nil
}
