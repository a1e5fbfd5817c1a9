package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// gapWait bounds how long FindGap asks.
const gapWait = 5 * time.Second

// GapError is a position of a consumer that its partition's log does not have. It says
// what was lost.
type GapError struct {
	Topic     string
	Partition int32
	// Position is the offset to be read next. The log begins at Start and ends
	// before End.
	Position, Start, End int64
}

// Deleted reports whether the log begins above the position: what lay between was
// deleted before it was read, and reading goes on at Start. Else the log ends below
// the position: its end was cut off, and only time or an operator can help.
func (g *GapError) Deleted() bool { return g.Position < g.Start }

// Error implements error.
func (g *GapError) Error() string {
	if g.Deleted() {
		return fmt.Sprintf("lost_by_retention: %s/%d: offsets %d to %d were deleted before the group was done with them", g.Topic, g.Partition, g.Position, g.Start-1)
	}
	return fmt.Sprintf("truncated: %s/%d: offset %d is to be read next, but the log ends at %d", g.Topic, g.Partition, g.Position, g.End)
}

// FindGap finds out why Kafka answers a fetch at a position with
// OFFSET_OUT_OF_RANGE. It returns nil where the log has the position after all, and
// gives up after 5 s.
func FindGap(ctx context.Context, cl *kgo.Client, topic string, partition int32, position int64) (*GapError, error) {
	ctx, cancel := context.WithTimeout(ctx, gapWait)
	defer cancel()
	start, err := StartOffset(ctx, cl, topic, partition)
	if err != nil {
		return nil, err
	}
	end, err := LastStableOffset(ctx, cl, topic, partition)
	if err != nil {
		return nil, err
	}
	if start <= position && position <= end {
		return nil, nil //nolint:nilnil // no gap is no error
	}
	return &GapError{Topic: topic, Partition: partition, Position: position, Start: start, End: end}, nil
}

// Position returns the offset that a group's member reads next in a partition, by
// what it polled or what was committed when it was given the partition; -1 where it
// does not have the partition. Behind the last record that was polled there may be
// markers that were read, too.
func Position(cl *kgo.Client, topic string, partition int32) int64 {
	if at, ok := cl.UncommittedOffsets()[topic][partition]; ok {
		return at.Offset
	}
	if at, ok := cl.CommittedOffsets()[topic][partition]; ok {
		return at.Offset
	}
	return -1
}
