package broker

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestLastStableOffset(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		cl, _ := ensured(t, c)
		topic := c.Topics().Deliveries
		expect := func(when string, want int64) {
			t.Helper()
			if got, err := LastStableOffset(t.Context(), cl, topic, 0); err != nil || got != want {
				t.Errorf("%s: %d, error %v, want %d", when, got, err, want)
			}
		}
		expect("empty", 0)
		produce(t, c, topic, 0, "a", "b")
		expect("two records", 2)

		tx := client(t, c, kgo.TransactionalID(c.Group("tx")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err := tx.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := tx.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("c")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		produce(t, c, topic, 0, "hidden by the open transaction")
		expect("open transaction", 2)
		if err := tx.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
		await(t, func() bool { // a real broker writes the marker a moment later
			got, err := LastStableOffset(t.Context(), cl, topic, 0)
			return err == nil && got == 5
		})
		if _, err := LastStableOffset(t.Context(), cl, topic, 99); err == nil {
			t.Error("an unknown partition has an offset")
		}
	})
}

// Aborted records never show, and the offsets of what does have holes.
func TestReaderSeesCommittedOnly(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		ensured(t, c)
		topic := c.Topics().Deliveries
		tx := client(t, c, kgo.TransactionalID(c.Group("tx")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		for value, end := range map[string]kgo.TransactionEndTry{"aborted": kgo.TryAbort, "committed": kgo.TryCommit} {
			if err := tx.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := tx.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := tx.EndTransaction(t.Context(), end); err != nil {
				t.Fatal(err)
			}
		}
		produce(t, c, topic, 0, "last")
		reader, err := c.NewReader(map[string]map[int32]int64{topic: {0: 0}})
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		got := read(t, reader, 2)
		if string(got[0].Value) != "committed" || string(got[1].Value) != "last" || got[1].Offset != 4 {
			t.Errorf("read %q and %q at %d", got[0].Value, got[1].Value, got[1].Offset)
		}
	})
}
