package wheel

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
)

// outOfRange deals with a level whose log does not have what is to be read next. Where
// the log begins above that, the level goes on at its start. Where it ends below, it
// is asked again now and then.
func (w *Wheel) outOfRange(ctx context.Context, partition int32) {
	at := broker.Position(w.consumer, w.topics.Schedule, partition)
	if at < 0 {
		return // it was taken away since
	}
	gap, err := broker.FindGap(ctx, w.producer, w.topics.Schedule, partition, at)
	switch {
	case err != nil:
		w.deps.Logger.WarnContext(ctx, "find the log", "topic", w.topics.Schedule, "partition", partition, "error", err)
		w.change(partition, func(l *level) { l.barred = time.Now().Add(barFor) })
	case gap == nil:
	case gap.Deleted():
		w.losses.Tell(ctx, w.deps.Logger, w.topics.Schedule, partition, gap)
		w.change(partition, func(l *level) { l.floor = max(l.floor, gap.Start) })
		w.consumer.SetOffsets(map[string]map[int32]kgo.EpochOffset{w.topics.Schedule: {partition: {Epoch: -1, Offset: gap.Start}}})
	default:
		w.losses.Tell(ctx, w.deps.Logger, w.topics.Schedule, partition, gap)
		w.change(partition, func(l *level) { l.barred = time.Now().Add(barFor) })
	}
}

// change changes a level that is ours.
func (w *Wheel) change(partition int32, how func(*level)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.parts[partition]; l != nil {
		how(l)
	}
}
