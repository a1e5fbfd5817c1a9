package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// PointReader reads committed records at any offset, without a group, a session
// or a position of its own: a caller says where to read each time. It has
// connections of its own, so that no long poll of a consumer holds it up. Safe
// for concurrent use.
type PointReader struct {
	cl *kgo.Client

	mu     sync.Mutex
	topics map[string]kadm.TopicDetail
}

// Slice is a run of committed records of one partition.
type Slice struct {
	Records []*kgo.Record
	// Next is the offset to read on from: behind the last record, or behind what
	// was skipped (markers, aborted records).
	Next int64
	// LogStart and Stable bound what can be read: offsets from LogStart up to,
	// not including, Stable.
	LogStart, Stable int64
}

// pointReadTries bounds how often a read is repeated when a leader moves.
const pointReadTries = 10

// NewPointReader returns a reader with its own client.
func NewPointReader(cfg Config) (*PointReader, error) {
	opts, err := cfg.Options()
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, err
	}
	return &PointReader{cl: cl, topics: map[string]kadm.TopicDetail{}}, nil
}

// Close closes the reader's connections.
func (r *PointReader) Close() { r.cl.Close() }

// Read returns committed records from offset on, about maxBytes of them and at
// least one batch where there is one. It does not wait for records to come. An
// offset below the start of the log is kerr.OffsetOutOfRange, with LogStart set
// in the slice.
func (r *PointReader) Read(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32) (Slice, error) {
	var s Slice
	var err error
	for try := range pointReadTries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return Slice{}, ctx.Err()
			case <-time.After(badBatchPause):
			}
		}
		s, err = r.read(ctx, topic, partition, offset, maxBytes)
		if err == nil || !kerr.IsRetriable(err) || errors.Is(err, kerr.OffsetOutOfRange) {
			break
		}
		r.mu.Lock()
		delete(r.topics, topic)
		r.mu.Unlock()
	}
	if err != nil {
		return s, fmt.Errorf("read %s/%d@%d: %w", topic, partition, offset, err)
	}
	return s, nil
}

func (r *PointReader) read(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32) (Slice, error) {
	detail, err := r.detail(ctx, topic)
	if err != nil {
		return Slice{}, err
	}
	where, ok := detail.Partitions[partition]
	if !ok {
		return Slice{}, kerr.UnknownTopicOrPartition
	}
	req := fetchRequest(detail, partition, offset, maxBytes)
	answer, err := r.cl.Broker(int(where.Leader)).RetriableRequest(ctx, req)
	if err != nil {
		return Slice{}, fmt.Errorf("%w: %w", kerr.NetworkException, err)
	}
	resp, ok := answer.(*kmsg.FetchResponse)
	if !ok || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return Slice{}, errNoBatch
	}
	part := &resp.Topics[0].Partitions[0]
	if err := errors.Join(kerr.ErrorForCode(resp.ErrorCode), kerr.ErrorForCode(part.ErrorCode)); err != nil {
		return Slice{LogStart: part.LogStartOffset, Stable: part.LastStableOffset}, err
	}
	got, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: offset, IsolationLevel: kgo.ReadCommitted(), Topic: topic, Partition: partition,
	}, part, kgo.DefaultDecompressor(), nil)
	if got.Err != nil && len(got.Records) == 0 {
		return Slice{}, got.Err
	}
	return Slice{Records: got.Records, Next: next, LogStart: part.LogStartOffset, Stable: part.LastStableOffset}, nil
}

// detail returns where a topic's partitions are led, from memory where it can.
func (r *PointReader) detail(ctx context.Context, topic string) (kadm.TopicDetail, error) {
	r.mu.Lock()
	detail, ok := r.topics[topic]
	r.mu.Unlock()
	if ok {
		return detail, nil
	}
	details, err := kadm.NewClient(r.cl).ListTopics(ctx, topic)
	if err != nil {
		return kadm.TopicDetail{}, fmt.Errorf("%w: %w", kerr.NetworkException, err)
	}
	if detail = details[topic]; detail.Err != nil {
		return detail, detail.Err
	}
	for _, p := range detail.Partitions {
		if p.Err != nil {
			return detail, p.Err
		}
	}
	r.mu.Lock()
	r.topics[topic] = detail
	r.mu.Unlock()
	return detail, nil
}

// fetchRequest asks for committed records of one partition, without waiting.
func fetchRequest(detail kadm.TopicDetail, partition int32, offset int64, maxBytes int32) *kmsg.FetchRequest {
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition = partition
	part.CurrentLeaderEpoch = -1
	part.FetchOffset = offset
	part.PartitionMaxBytes = maxBytes
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = detail.Topic
	topic.TopicID = detail.ID
	topic.Partitions = append(topic.Partitions, part)
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID = -1
	req.MaxBytes = maxBytes
	req.MinBytes = 0
	req.IsolationLevel = 1
	req.SessionEpoch = -1
	req.Topics = append(req.Topics, topic)
	return req
}
