package broker

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A batch of a few kilobytes that unpacks to more than MaxBatchBytes stops its
// partition; set past the batch, the reader goes on.
func TestBadBatchIsSkipped(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		cl, _ := ensured(t, c)
		topic := c.Topics().Events
		produce(t, c, topic, 0, "before")
		bomb(t, c, topic)
		produce(t, c, topic, 0, "after")

		reader, err := c.NewReader(map[string]map[int32]int64{topic: {0: 0}})
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		var got []string
		for len(got) < 2 {
			fs := pollOnce(t, reader)
			fs.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
			for _, fe := range fs.Errors() {
				large, ok := errors.AsType[*kgo.ErrDecompressTooLarge](fe.Err)
				if !ok || !errors.Is(fe.Err, kgo.ErrMaxDecompress) {
					t.Fatalf("error %v, want a batch that is too large", fe.Err)
				}
				first, last, err := BadBatch(t.Context(), cl, topic, fe.Partition, large.Offset)
				if err != nil {
					t.Fatal(err)
				}
				if first != large.Offset || large.NextOffset != last+1 {
					t.Fatalf("batch %d to %d, kgo says %d to before %d", first, last, large.Offset, large.NextOffset)
				}
				reader.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: {0: {Epoch: -1, Offset: last + 1}}})
			}
		}
		if got[0] != "before" || got[1] != "after" {
			t.Errorf("read %.20q", got)
		}
		for _, offset := range []int64{0, 3} { // batches of one good record
			first, last, err := BadBatch(t.Context(), cl, topic, 0, offset)
			if err != nil || first != offset || last != offset {
				t.Errorf("batch at %d: %d to %d, error %v", offset, first, last, err)
			}
		}
		for _, offset := range []int64{4, 5} { // at and beyond the end
			if first, last, err := BadBatch(t.Context(), cl, topic, 0, offset); err == nil {
				t.Errorf("batch at %d: %d to %d, want an error", offset, first, last)
			}
		}
	})
}

// bomb writes two records of 33 MiB of zeros to partition 0, a few kilobytes of
// zstd; in one batch, as long as the client doesn't have to split it.
func bomb(t *testing.T, c Config, topic string) {
	t.Helper()
	cl := client(t, c,
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(80<<20),
		kgo.MaxBufferedBytes(128<<20),
		kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.WithCompressor(nil),
		kgo.ManualFlushing(), // all in one batch
	)
	zeros := make([]byte, 33<<20)
	var first kgo.FirstErrPromise
	for range 2 {
		cl.Produce(t.Context(), &kgo.Record{Topic: topic, Value: zeros}, first.Promise())
	}
	if err := errors.Join(cl.Flush(t.Context()), first.Err()); err != nil {
		t.Fatal(err)
	}
}

func header(first int64, lastDelta, length int32, magic byte) []byte {
	b := make([]byte, batchHeader)
	binary.BigEndian.PutUint64(b, uint64(first))
	binary.BigEndian.PutUint32(b[batchLengthAt:], uint32(length))
	b[batchMagicAt] = magic
	binary.BigEndian.PutUint32(b[batchLastDeltaAt:], uint32(lastDelta))
	return b
}

func TestBatchAt(t *testing.T) {
	t.Parallel()
	two := append(header(10, 4, batchHeader-batchPrefix, 2), header(20, 0, 5000, 2)...)
	for _, tt := range []struct {
		name        string
		raw         []byte
		offset      int64
		first, last int64
		fails       bool
	}{
		{"first", two, 10, 10, 14, false},
		{"inside", two, 14, 10, 14, false},
		{"hole", two, 15, 20, 20, false},
		{"cut short behind its header", two, 20, 20, 20, false},
		{"beyond", two, 21, 0, 0, true},
		{"empty", nil, 0, 0, 0, true},
		{"cut header", two[:60], 0, 0, 0, true},
		{"old format", header(0, 0, 100, 1), 0, 0, 0, true},
		{"negative length", header(0, 0, -5, 2), 0, 0, 0, true},
		{"negative delta", header(9, -5, 100, 2), 0, 0, 0, true},
		{"negative offset", header(-1, 5, 100, 2), 0, 0, 0, true},
	} {
		first, last, err := batchAt(tt.raw, tt.offset)
		if (err != nil) != tt.fails || err == nil && (first != tt.first || last != tt.last) {
			t.Errorf("%s: %d to %d, error %v", tt.name, first, last, err)
		}
	}
}

func FuzzBatchAt(f *testing.F) {
	f.Add(header(10, 4, batchHeader-batchPrefix, 2), int64(10))
	f.Add(header(1<<62, 1<<30, 1<<30, 2), int64(0))
	f.Add([]byte{}, int64(-1))
	f.Fuzz(func(t *testing.T, raw []byte, offset int64) {
		first, last, err := batchAt(raw, offset)
		if err == nil && (first < 0 || last < first || last < offset) {
			t.Errorf("batch %d to %d at %d", first, last, offset)
		}
	})
}
