package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/backoff"
)

// PointReader reads committed records at any offset, without a group, a session
// or a position of its own: a caller says where to read each time. It has
// connections of its own, so that no long poll of a consumer holds it up. Safe
// for concurrent use.
type PointReader struct {
	cl     *kgo.Client
	unpack kgo.Decompressor

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
	cl, err := cfg.NewClient()
	if err != nil {
		return nil, err
	}
	return &PointReader{cl: cl, unpack: Decompressor(cl), topics: map[string]kadm.TopicDetail{}}, nil
}

// Close closes the reader's connections.
func (r *PointReader) Close() { r.cl.Close() }

// Read returns committed records from offset on, about maxBytes of them (unpacked)
// and at least one batch where there is one. It does not wait for records to come. An
// offset below the start of the log, or above its end, is kerr.OffsetOutOfRange,
// with the bounds set in the slice. A batch that unpacks to more than
// [MaxBatchBytes] is *kgo.ErrDecompressTooLarge.
func (r *PointReader) Read(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32) (Slice, error) {
	return r.patiently(ctx, wanted{topic: topic, partition: partition, offset: offset, maxBytes: maxBytes})
}

// ReadBatch is [PointReader.Read] for the batch that has an offset, whole: also with
// the records before it.
func (r *PointReader) ReadBatch(ctx context.Context, topic string, partition int32, offset int64) (Slice, error) {
	return r.patiently(ctx, wanted{topic: topic, partition: partition, offset: offset, maxBytes: 1, whole: true})
}

// wanted says what is read; whole wants the first batch from its beginning.
type wanted struct {
	topic     string
	partition int32
	offset    int64
	maxBytes  int32
	whole     bool
}

func (r *PointReader) patiently(ctx context.Context, w wanted) (Slice, error) {
	var s Slice
	var err error
	for try := range pointReadTries {
		if try > 0 && !backoff.Pause(ctx, leaderPause) {
			return Slice{}, fmt.Errorf("read %s/%d@%d: %w", w.topic, w.partition, w.offset, errors.Join(ctx.Err(), err))
		}
		s, err = r.read(ctx, w)
		if err == nil || !kerr.IsRetriable(err) {
			break
		}
		r.mu.Lock()
		delete(r.topics, w.topic)
		r.mu.Unlock()
	}
	if err != nil {
		return s, fmt.Errorf("read %s/%d@%d: %w", w.topic, w.partition, w.offset, err)
	}
	return s, nil
}

func (r *PointReader) read(ctx context.Context, w wanted) (Slice, error) {
	detail, err := r.detail(ctx, w.topic)
	if err != nil {
		return Slice{}, err
	}
	f, err := fetchOf(detail, w.partition)
	if err != nil {
		return Slice{}, err
	}
	f.Offset, f.MaxBytes = w.offset, w.maxBytes
	part, err := f.Do(ctx, r.cl)
	if part == nil {
		if err == nil {
			err = kerr.ThrottlingQuotaExceeded
		}
		return Slice{}, err
	}
	s := Slice{Next: w.offset, LogStart: part.LogStartOffset, Stable: part.LastStableOffset}
	if errors.Is(err, kerr.OffsetOutOfRange) {
		return r.outOfRange(ctx, f, err)
	}
	if err != nil {
		return s, err
	}
	part.RecordBatches = cutBatches(part.RecordBatches, w.offset, int(w.maxBytes))
	if first, _, err := batchAt(part.RecordBatches, w.offset); err == nil && w.whole {
		f.Offset = min(f.Offset, first)
	}
	got, next := f.Records(part, r.unpack)
	if got.Err != nil && len(got.Records) == 0 {
		return s, got.Err
	}
	s.Records, s.Next = got.Records, next
	return s, nil
}

// outOfRange asks for the bounds, which a broker leaves out of such an answer.
func (r *PointReader) outOfRange(ctx context.Context, f Fetch, cause error) (Slice, error) {
	s := Slice{Next: f.Offset}
	var err error
	if s.LogStart, err = StartOffset(ctx, r.cl, f.Topic, f.Partition); err != nil {
		return Slice{}, err
	}
	if s.Stable, err = LastStableOffset(ctx, r.cl, f.Topic, f.Partition); err != nil {
		return Slice{}, err
	}
	return s, cause
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
	r.mu.Lock()
	r.topics[topic] = detail
	r.mu.Unlock()
	return detail, nil
}
