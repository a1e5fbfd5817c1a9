package broker

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// listLatest and listEarliest are Kafka's names for the ends of a log.
const (
	listLatest   = -1
	listEarliest = -2
)

// LastStableOffset returns the offset after the last record that a committed
// reader can see in a partition: the high watermark, or the first record of the
// oldest open transaction if that is lower. One request to the leader, which the
// client knows from its metadata.
func LastStableOffset(ctx context.Context, cl *kgo.Client, topic string, partition int32) (int64, error) {
	return listOffset(ctx, cl, topic, partition, listLatest)
}

// StartOffset returns the first offset that a partition still has.
func StartOffset(ctx context.Context, cl *kgo.Client, topic string, partition int32) (int64, error) {
	return listOffset(ctx, cl, topic, partition, listEarliest)
}

func listOffset(ctx context.Context, cl *kgo.Client, topic string, partition int32, at int64) (int64, error) {
	part := kmsg.NewListOffsetsRequestTopicPartition()
	part.Partition = partition
	part.Timestamp = at
	asked := kmsg.NewListOffsetsRequestTopic()
	asked.Topic = topic
	asked.Partitions = append(asked.Partitions, part)
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	req.IsolationLevel = 1 // read_committed
	req.Topics = append(req.Topics, asked)

	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return 0, fmt.Errorf("list offset of %s/%d: %w", topic, partition, err)
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if t.Topic != topic || p.Partition != partition {
				continue
			}
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return 0, fmt.Errorf("list offset of %s/%d: %w", topic, partition, err)
			}
			return p.Offset, nil
		}
	}
	return 0, fmt.Errorf("list offset of %s/%d: the broker gave no answer", topic, partition)
}

// TopicID returns Kafka's id of a topic. A topic that was deleted and created
// again under its name has another id, and its offsets mean something else.
func TopicID(ctx context.Context, cl *kgo.Client, topic string) ([16]byte, error) {
	details, err := kadm.NewClient(cl).ListTopics(ctx, topic)
	if err != nil {
		return [16]byte{}, fmt.Errorf("look up topic %s: %w", topic, err)
	}
	d := details[topic]
	if d.Err != nil {
		return [16]byte{}, fmt.Errorf("look up topic %s: %w", topic, d.Err)
	}
	return d.ID, nil
}
