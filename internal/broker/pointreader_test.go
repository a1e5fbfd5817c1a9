package broker

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func pointReader(t *testing.T, c Config) *PointReader {
	t.Helper()
	r, err := NewPointReader(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// settleTx writes a value in a transaction of its own, and waits for its marker.
func settleTx(t *testing.T, tx *kgo.Client, topic, value string, end kgo.TransactionEndTry) {
	t.Helper()
	if err := tx.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	rec := &kgo.Record{Topic: topic, Value: []byte(value)}
	if err := tx.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := tx.EndTransaction(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { // a real broker writes the marker a moment later
		stable, err := LastStableOffset(t.Context(), tx, topic, 0)
		return err == nil && stable == rec.Offset+2
	})
}

// offsets returns the offset of each value in a slice.
func offsets(s Slice) map[string]int64 {
	at := map[string]int64{}
	for _, r := range s.Records {
		at[string(r.Value)] = r.Offset
	}
	return at
}

// From every offset the reader shows what is committed from there on, and steps
// over markers and aborted records.
func TestPointReaderStepsOverHoles(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		ensured(t, c)
		topic := c.Topics().Deliveries
		tx := client(t, c, kgo.TransactionalID(c.Group("tx")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		settleTx(t, tx, topic, "aborted", kgo.TryAbort)     // 0, marker 1
		settleTx(t, tx, topic, "committed", kgo.TryCommit)  // 2, marker 3
		produce(t, c, topic, 0, "plain")                    // 4
		settleTx(t, tx, topic, "aborted too", kgo.TryAbort) // 5, marker 6
		r := pointReader(t, c)
		all := map[string]int64{"committed": 2, "plain": 4}
		for offset, want := range []map[string]int64{all, all, all, {"plain": 4}, {"plain": 4}, {}, {}, {}} {
			got := map[string]int64{}
			next := int64(offset)
			for next < 7 {
				s, err := r.Read(t.Context(), topic, 0, next, 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				if s.LogStart != 0 || s.Stable != 7 {
					t.Errorf("log from %d to %d, want 0 to 7", s.LogStart, s.Stable)
				}
				if s.Next <= next {
					t.Fatalf("read at %d goes on at %d", next, s.Next)
				}
				maps.Copy(got, offsets(s))
				next = s.Next
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("from offset %d (-want +got):\n%s", offset, diff)
			}
		}
		// At the end there is nothing, and no wait.
		s, err := r.Read(t.Context(), topic, 0, 7, 1<<20)
		if err != nil || len(s.Records) > 0 || s.Next != 7 {
			t.Errorf("at the end: %d records, next %d, error %v", len(s.Records), s.Next, err)
		}
	})
}

// An open transaction hides what stands behind it.
func TestPointReaderStopsAtAnOpenTransaction(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		ensured(t, c)
		topic := c.Topics().Deliveries
		produce(t, c, topic, 0, "before")
		tx := client(t, c, kgo.TransactionalID(c.Group("tx")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err := tx.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := tx.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("open")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		produce(t, c, topic, 0, "behind")
		s, err := pointReader(t, c).Read(t.Context(), topic, 0, 0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]int64{"before": 0}, offsets(s)); diff != "" || s.Next != 1 || s.Stable != 1 {
			t.Errorf("next %d, stable %d, records (-want +got):\n%s", s.Next, s.Stable, diff)
		}
		if err := tx.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPointReaderOutOfRange(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		cl, _ := ensured(t, c)
		topic := c.Topics().Deliveries
		produceAndCut(t, c, cl, topic)
		r := pointReader(t, c)
		for _, offset := range []int64{0, 9} {
			s, err := r.Read(t.Context(), topic, 0, offset, 1<<20)
			if !errors.Is(err, kerr.OffsetOutOfRange) || s.LogStart != 2 || s.Stable != 3 {
				t.Errorf("at %d: log from %d to %d, error %v; want 2 to 3, OffsetOutOfRange", offset, s.LogStart, s.Stable, err)
			}
		}
		s, err := r.Read(t.Context(), topic, 0, 2, 1<<20)
		if diff := cmp.Diff(map[string]int64{"c": 2}, offsets(s)); err != nil || diff != "" {
			t.Errorf("error %v, records (-want +got):\n%s", err, diff)
		}
		if _, err := r.Read(t.Context(), topic, 0, -1, 1<<20); err == nil {
			t.Error("a negative offset is read")
		}
	})
}

// A batch that unpacks to more than MaxBatchBytes is an error of its own; the
// records around it can be read.
func TestPointReaderBoundsBatches(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		ensured(t, c)
		topic := c.Topics().Events
		produce(t, c, topic, 0, "before")
		bomb(t, c, topic)
		end := produce(t, c, topic, 0, "after")[0]
		r := pointReader(t, c)
		for offset, want := range map[int64]string{0: "before", end: "after"} {
			s, err := r.Read(t.Context(), topic, 0, offset, 1)
			if diff := cmp.Diff(map[string]int64{want: offset}, offsets(s)); err != nil || diff != "" {
				t.Errorf("at %d: error %v, records (-want +got):\n%s", offset, err, diff)
			}
		}
		_, err := r.Read(t.Context(), topic, 0, 1, 1<<20)
		if large, ok := errors.AsType[*kgo.ErrDecompressTooLarge](err); !ok || large.Offset != 1 {
			t.Errorf("error %v, want a batch at 1 that is too large", err)
		}
	})
}

// A reader that knows the old leader finds the new one.
func TestPointReaderFollowsTheLeader(t *testing.T) {
	t.Parallel()
	const topic = "moving"
	cluster, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(1, topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	c := Config{Brokers: cluster.ListenAddrs(), Embedded: true}
	produce(t, c, topic, 0, "a")
	r := pointReader(t, c)
	for _, node := range []int32{0, 1, 0} {
		if err := cluster.MoveTopicPartition(topic, 0, node); err != nil {
			t.Fatal(err)
		}
		s, err := r.Read(t.Context(), topic, 0, 0, 1<<20)
		if diff := cmp.Diff(map[string]int64{"a": 0}, offsets(s)); err != nil || diff != "" {
			t.Errorf("leader %d: error %v, records (-want +got):\n%s", node, err, diff)
		}
	}
}

// Without a broker a read ends with its context.
func TestPointReaderEndsWithItsContext(t *testing.T) {
	t.Parallel()
	r := pointReader(t, Config{Brokers: []string{"127.0.0.1:1"}, Embedded: true})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := r.Read(ctx, "none", 0, 0, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want DeadlineExceeded", err)
	}
}
