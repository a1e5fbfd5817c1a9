package wheel

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/schemas"
)

// level is one partition of schedule: what it holds in memory, and how far it
// was passed on.
type level struct {
	partition int32
	wait      time.Duration
	held      []*kgo.Record // in the order of the log
	bytes     int           // of held
	moving    []*hop        // passed on, oldest first
	reached   kgo.EpochOffset
	paused    bool
	committed int64
	floor     int64     // the log holds nothing below
	barred    time.Time // until then it is not fetched
}

// hop is a record on its way to the next partition.
type hop struct {
	partition int32
	offset    int64
	epoch     int32
	size      int
	done      bool
}

func newLevel(partition int32) *level {
	return &level{
		partition: partition, committed: -1, floor: -1, reached: kgo.EpochOffset{Offset: -1},
		wait: time.Duration(1<<(partition%broker.WheelLevels)) * time.Second,
	}
}

// due returns when a record may be passed on: exactly the level's wait after
// the broker appended it.
func (l *level) due(r *kgo.Record) time.Time { return r.Timestamp.Add(l.wait) }

// hold adds what was read to what waits in memory.
func (l *level) hold(records []*kgo.Record) {
	l.held = append(l.held, records...)
	for _, r := range records {
		l.bytes += size(r)
	}
}

// drop forgets the first n records that wait in memory.
func (l *level) drop(n int) {
	for i, r := range l.held[:n] {
		l.bytes -= size(r)
		l.held[i] = nil
	}
	if l.held = l.held[n:]; len(l.held) == 0 {
		l.held = nil
	}
}

// filled reports whether a part, one over n, of what may wait in memory does.
func (l *level) filled(n int) bool { return len(l.held) >= holdMax/n || l.bytes >= holdBytes/n }

// size is about how many bytes a record takes in memory.
func size(r *kgo.Record) int {
	n := 512 + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}

// settle forgets the hops that are acknowledged together with all before them.
func (l *level) settle() {
	n := 0
	for n < len(l.moving) && l.moving[n].done {
		l.reached = kgo.EpochOffset{Epoch: l.moving[n].epoch, Offset: l.moving[n].offset + 1}
		l.moving[n] = nil
		n++
	}
	l.moving = l.moving[n:]
}

// progress returns the offset to commit, if it is above what was committed.
func (l *level) progress() (kgo.EpochOffset, bool) {
	l.settle()
	at := l.reached
	if at.Offset < l.floor {
		at = kgo.EpochOffset{Epoch: -1, Offset: l.floor}
	}
	return at, at.Offset > l.committed
}

// take adds what was polled to the levels.
func (w *Wheel) take(fetches kgo.Fetches) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		l := w.parts[p.Partition]
		if l == nil || len(p.Records) == 0 {
			return
		}
		l.hold(p.Records)
		if skew := p.Records[len(p.Records)-1].Timestamp.Sub(now); skew > 0 {
			w.skews.Record(context.Background(), skew.Seconds())
		}
	})
}

// advance passes on what is due, pauses and resumes levels, and returns how long
// to wait for the next head.
func (w *Wheel) advance(ctx context.Context, now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	wait := idlePoll
	for _, l := range w.parts {
		l.settle()
		n := 0
		for n < len(l.held) && len(l.moving) < movingMax && w.moving < movingBytes && !now.Before(l.due(l.held[n])) {
			w.late.Record(ctx, now.Sub(l.due(l.held[n])).Seconds())
			w.pass(ctx, l, l.held[n])
			n++
		}
		if l.drop(n); len(l.held) == 0 {
			w.pause(l, now.Before(l.barred))
			continue
		}
		head := l.due(l.held[0]).Sub(now)
		if head <= 0 { // too many on their way
			head = movingPause
		}
		wait = min(wait, head)
		switch {
		case head > farAway || l.filled(1) || now.Before(l.barred):
			w.pause(l, true)
		case !l.filled(4):
			w.pause(l, false)
		}
	}
	return max(wait, time.Millisecond)
}

func (w *Wheel) pause(l *level, paused bool) {
	if l.paused == paused {
		return
	}
	l.paused = paused
	part := map[string][]int32{w.topics.Schedule: {l.partition}}
	if paused {
		w.consumer.PauseFetchPartitions(part)
	} else {
		w.consumer.ResumeFetchPartitions(part)
	}
}

// pass hands a record to its next partition. A record that can't be read goes
// to rejected.
func (w *Wheel) pass(ctx context.Context, l *level, r *kgo.Record) {
	h := &hop{partition: r.Partition, offset: r.Offset, epoch: r.LeaderEpoch, size: size(r)}
	l.moving = append(l.moving, h)
	w.moving += h.size
	d, err := schemas.DecodeDelivery(r.Key, r.Value, r.Headers)
	var next *kgo.Record
	if err != nil {
		next = broker.RejectedRecord(w.topics.Rejected, r, schemas.RejectMalformed, err.Error())
	} else {
		next = Record(&d, w.topics, w.deps.Layout)
	}
	w.hops.Add(ctx, 1, metric.WithAttributes(attribute.Bool("postrider.wheel.last", next.Topic == w.topics.Deliveries)))
	w.send(next, h) //nolint:contextcheck // a hop outlives the round that passes it on
}

// send writes a hop until it is acknowledged; a hop that never is stops the
// level's commit, so that the record is passed on again after a restart.
func (w *Wheel) send(r *kgo.Record, h *hop) {
	w.producer.TryProduce(context.Background(), r, func(r *kgo.Record, err error) {
		if errors.Is(err, kgo.ErrClientClosed) {
			return
		}
		if err != nil {
			w.deps.Logger.Error("pass on a scheduled delivery", "topic", r.Topic, "partition", r.Partition, "error", err)
			again := &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers}
			if errors.Is(err, kerr.MessageTooLarge) { // that won't change
				from := &kgo.Record{Topic: w.topics.Schedule, Partition: h.partition, Offset: h.offset, Key: r.Key}
				again = broker.RejectedRecord(w.topics.Rejected, from, schemas.RejectOversized, r.Topic+" does not take a record of that size")
			}
			time.AfterFunc(time.Second, func() { w.send(again, h) })
			return
		}
		w.mu.Lock()
		h.done = true
		w.moving -= h.size
		w.mu.Unlock()
	})
}
