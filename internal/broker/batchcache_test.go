package broker

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// The batch of one record is read whole, once for all of its records; a record that
// is not there is no error.
func TestBatchCacheReadsABatchOnce(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		cl, _ := ensured(t, c)
		topic := c.Topics().Deliveries
		tx := client(t, c, kgo.TransactionalID(c.Group("tx")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		settleTx(t, tx, topic, "aborted", kgo.TryAbort) // 0, marker 1
		var batch []*kgo.Record
		for _, value := range []string{"a", "b", "c"} { // 2 to 4
			batch = append(batch, &kgo.Record{Topic: topic, Value: []byte(value)})
		}
		lingering := client(t, c, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(50*time.Millisecond))
		if err := lingering.ProduceSync(t.Context(), batch...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		cache := NewBatchCache(pointReader(t, c), 1<<20, time.Hour)
		reads, read := 0, cache.read
		cache.read = func(ctx context.Context, topic string, partition int32, offset int64) (Slice, error) {
			reads++
			return read(ctx, topic, partition, offset)
		}
		value := func(offset int64) string {
			t.Helper()
			r, err := cache.Record(t.Context(), topic, 0, offset)
			switch {
			case err != nil:
				t.Fatal(err)
			case r == nil:
				return "none"
			}
			return string(r.Value)
		}
		if got := value(4) + value(2) + value(3) + value(2); got != "caba" || reads != 1 {
			t.Errorf("records %s in %d reads", got, reads)
		}
		for _, offset := range []int64{0, 1, 99} {
			if got := value(offset); got != "none" {
				t.Errorf("at %d: %s", offset, got)
			}
		}
		produce(t, c, topic, 0, "later")
		if got := value(5); got != "later" {
			t.Errorf("a later record: %s", got)
		}
		var cut kadm.Offsets
		cut.AddOffset(topic, 0, 3, -1) // in the middle of the batch
		if _, err := kadm.NewClient(cl).DeleteRecords(t.Context(), cut); err != nil {
			t.Fatal(err)
		}
		cache = NewBatchCache(pointReader(t, c), 1<<20, time.Hour)
		if got := value(4) + value(3) + value(2); got != "cbnone" {
			t.Errorf("half of the batch is deleted: %s", got)
		}
	})
}

// model answers reads of a partition with one batch for every ten offsets.
func model(reads *int, size int) func(context.Context, string, int32, int64) (Slice, error) {
	return func(_ context.Context, _ string, _ int32, offset int64) (Slice, error) {
		*reads++
		if offset >= 1000 {
			return Slice{}, kerr.OffsetOutOfRange
		}
		first := offset / 10 * 10
		s := Slice{Next: first + 10}
		for at := first; at < first+9; at++ { // the last one is a marker
			s.Records = append(s.Records, &kgo.Record{Offset: at, Value: make([]byte, size)})
		}
		return s, nil
	}
}

// Whatever is asked for, the right record comes, and the cache keeps to its bound.
func TestBatchCacheIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var reads int
		size := rapid.SampledFrom([]int{10, 1000, 10_000}).Draw(t, "size")
		cache := NewBatchCache(nil, 100_000, time.Hour)
		cache.read = model(&reads, size)
		for _, offset := range rapid.SliceOf(rapid.Int64Range(0, 1010)).Draw(t, "offsets") {
			r, err := cache.Record(t.Context(), "t", 0, offset)
			if want := offset < 1000 && offset%10 != 9; err != nil || (r != nil) != want || want && r.Offset != offset {
				t.Fatalf("at %d: %v, %v", offset, r, err)
			}
			sum, batches := 0, 0
			for _, part := range cache.parts {
				batches += len(part)
				for _, e := range part {
					sum += kept(e).bytes
				}
			}
			if cache.bytes > cache.maxBytes || sum != cache.bytes || batches != cache.order.Len() {
				t.Fatalf("%d bytes, counted %d; %d batches, %d in order", sum, cache.bytes, batches, cache.order.Len())
			}
			if again, found := cache.Cached("t", 0, offset); size < 10_000 && offset < 1000 && (!found || again != r) {
				t.Fatalf("%d is not in memory: %v", offset, again)
			}
		}
	})
}

// A batch is forgotten in time: Kafka may have deleted its records.
func TestBatchCacheForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads int
		cache := NewBatchCache(nil, 100_000, time.Minute)
		cache.read = model(&reads, 10)
		for _, want := range []int{1, 1, 2} {
			if _, err := cache.Record(t.Context(), "t", 0, 5); err != nil || reads != want {
				t.Errorf("%d reads, want %d (%v)", reads, want, err)
			}
			<-time.After(40 * time.Second)
		}
		if len(cache.parts[place{"t", 0}]) > 1 {
			t.Error("the old batch is still there")
		}
	})
}
