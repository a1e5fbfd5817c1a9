package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/backoff"
)

// Fields of a record batch's header (format v2).
const (
	batchHeader      = 61 // bytes up to the records
	batchLengthAt    = 8
	batchMagicAt     = 16
	batchLastDeltaAt = 23
	batchPrefix      = 12 // base offset and length, which the length doesn't count
)

// errNoBatch says that a fetch returned no batch with the offset.
var errNoBatch = errors.New("no batch there")

// badBatchTries and leaderPause bound the wait for a partition whose leader
// moves.
const (
	badBatchTries = 5
	leaderPause   = metadataMinAge
)

// BadBatch returns the first and the last offset of the batch that holds offset
// (or of the first one after it, where offset is a hole), without unpacking or
// checking it, so that a consumer that can't read the batch can be set to last+1.
//
// offset is that of a *kgo.ErrDecompressTooLarge, or the partition's next offset
// for a batch that is damaged in another way: for such a one kgo's error names no
// range.
func BadBatch(ctx context.Context, cl *kgo.Client, topic string, partition int32, offset int64) (first, last int64, err error) {
	for range badBatchTries {
		var raw []byte
		raw, err = fetchRaw(ctx, cl, topic, partition, offset)
		if err == nil {
			first, last, err = batchAt(raw, offset)
		}
		if err == nil {
			return first, last, nil
		}
		if !kerr.IsRetriable(err) || !backoff.Pause(ctx, leaderPause) {
			break
		}
	}
	return 0, 0, fmt.Errorf("read batch %s/%d@%d: %w", topic, partition, offset, errors.Join(ctx.Err(), err))
}

// fetchRaw asks the leader for as little as it gives: one whole batch.
func fetchRaw(ctx context.Context, cl *kgo.Client, topic string, partition int32, offset int64) ([]byte, error) {
	details, err := kadm.NewClient(cl).ListTopics(ctx, topic)
	if err != nil {
		return nil, err
	}
	f, err := fetchOf(details[topic], partition)
	if err != nil {
		return nil, err
	}
	f.Offset, f.MaxBytes, f.Uncommitted = offset, 1, true
	part, err := f.Do(ctx, cl)
	if err != nil {
		return nil, err
	}
	if part == nil {
		return nil, errNoBatch
	}
	return part.RecordBatches, nil
}

// batchAt walks the batches in raw to the first one that ends at or after
// offset. The last of them may be cut short, as long as its header is there.
func batchAt(raw []byte, offset int64) (first, last int64, err error) {
	for len(raw) >= batchHeader {
		if magic := raw[batchMagicAt]; magic != 2 {
			return 0, 0, fmt.Errorf("record format v%d: only v2 is known", magic)
		}
		first = int64(binary.BigEndian.Uint64(raw))                                  //nolint:gosec // an offset
		length := int64(int32(binary.BigEndian.Uint32(raw[batchLengthAt:])))         //nolint:gosec // signed on the wire
		last = first + int64(int32(binary.BigEndian.Uint32(raw[batchLastDeltaAt:]))) //nolint:gosec // signed on the wire
		if first < 0 || last < first || length < batchHeader-batchPrefix {
			return 0, 0, fmt.Errorf("batch header: first offset %d, last %d, length %d", first, last, length)
		}
		if last >= offset {
			return first, last, nil
		}
		raw = raw[min(int64(len(raw)), length+batchPrefix):]
	}
	return 0, 0, errNoBatch
}
