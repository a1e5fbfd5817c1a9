package fanout

import (
	"context"
	"fmt"
	"time"

	"github.com/postrider/postrider/internal/broker"
)

// barFor is how long a partition is left alone that can't be read for now.
const barFor = time.Second

// barred are partitions that are not fetched until a time.
type barred struct {
	parts map[string][]int32
	until time.Time
}

// outOfRange deals with a partition whose log does not have what is to be read next.
// Where the log begins above that, the batch's commit goes past the gap. Where it
// ends below, the partition is asked again now and then.
func (s *session) outOfRange(ctx context.Context, topic string, partition int32) {
	at := broker.Position(s.txn.Client(), topic, partition)
	if at < 0 {
		return // it was taken away since
	}
	gap, err := broker.FindGap(ctx, s.txn.Client(), topic, partition, at)
	switch {
	case err != nil:
		s.status.note(fmt.Errorf("poll %s/%d: find its log: %w", topic, partition, err))
		s.bar(topic, partition)
	case gap == nil:
	case gap.Deleted():
		s.addGap(gap)
		s.status.losses.Tell(ctx, s.cfg.Logger, topic, partition, gap)
	default:
		s.status.losses.Tell(ctx, s.cfg.Logger, topic, partition, gap)
		s.bar(topic, partition)
	}
}

func (s *session) addGap(gap *broker.GapError) {
	for _, known := range s.batch.gaps {
		if known.Topic == gap.Topic && known.Partition == gap.Partition {
			return
		}
	}
	s.batch.gaps = append(s.batch.gaps, gap)
}

// bar has a partition left alone for a while.
func (s *session) bar(topic string, partition int32) {
	if s.barred.parts == nil {
		s.barred.parts = map[string][]int32{}
	}
	s.barred.parts[topic] = append(s.barred.parts[topic], partition)
	s.barred.until = time.Now().Add(barFor)
	s.txn.Client().PauseFetchPartitions(map[string][]int32{topic: {partition}})
}

// admit fetches what was barred again, once its time is over.
func (s *session) admit() {
	if s.barred.parts != nil && time.Now().After(s.barred.until) {
		s.txn.Client().ResumeFetchPartitions(s.barred.parts)
		s.barred = barred{}
	}
}
