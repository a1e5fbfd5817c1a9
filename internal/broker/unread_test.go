package broker

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The oldest unread record is found by what the group has committed, whether anybody
// reads or not: over markers, behind what was deleted, and until all is read.
func TestUnreadFindsTheOldest(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		cl, _ := ensured(t, c)
		topic := c.Topics().Deliveries
		adm := kadm.NewClient(cl)
		r := pointReader(t, c)
		u := NewUnread(c, "readers", slog.New(slog.DiscardHandler), topic)
		at := place{topic, 0}
		measure := func() (firstUnread, bool) {
			t.Helper()
			if err := u.measure(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			f, ok := u.first[at]
			return f, ok
		}
		wants := func(offset int64) {
			t.Helper()
			s, err := r.Read(t.Context(), topic, 0, offset, 1)
			if err != nil || len(s.Records) == 0 {
				t.Fatal(s, err)
			}
			f, ok := measure()
			if !ok || !f.at.Equal(s.Records[0].Timestamp) || u.Age() < time.Since(f.at)-time.Second {
				t.Errorf("unread since %v (%v), want the time of offset %d, %v", f.at, ok, offset, s.Records[0].Timestamp)
			}
		}
		commit := func(partition int32, offset int64) {
			t.Helper()
			var o kadm.Offsets
			o.AddOffset(topic, partition, offset, -1)
			if err := adm.CommitAllOffsets(t.Context(), c.Group("readers"), o); err != nil {
				t.Fatal(err)
			}
		}
		commit(1, 0)
		if f, ok := measure(); ok {
			t.Errorf("nothing was written, and is unread since %v", f)
		}
		tx := client(t, c, kgo.TransactionalID(c.Group("tx")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		settleTx(t, tx, topic, "aborted", kgo.TryAbort) // 0, marker 1
		for _, value := range []string{"a", "b", "c"} { // 2 to 4
			produceAt(t, c, topic, value, time.Now().Add(-time.Hour))
		}
		wants(2) // no commit at all: from 0
		commit(0, 3)
		wants(3)
		wants(3)
		var cut kadm.Offsets
		cut.AddOffset(topic, 0, 4, -1)
		if _, err := adm.DeleteRecords(t.Context(), cut); err != nil {
			t.Fatal(err)
		}
		u.first = map[place]firstUnread{}
		wants(4)
		commit(0, 5)
		if f, ok := measure(); ok {
			t.Errorf("all is read, and is unread since %v", f)
		}
	})
}

// produceAt writes a record with a time of its own, where the broker takes it.
func produceAt(t *testing.T, c Config, topic, value string, at time.Time) {
	t.Helper()
	cl := client(t, c, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(value), Timestamp: at}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// While Kafka can't be asked the age grows from what was known last.
func TestUnreadGrowsWithoutKafka(t *testing.T) {
	t.Parallel()
	c := Config{Brokers: []string{"127.0.0.1:1"}, Embedded: true, Retention: Retention{Events: 48 * time.Hour}}
	r := pointReader(t, c)
	u := NewUnread(c, "readers", slog.New(slog.DiscardHandler), c.Topics().Events, c.Topics().Attempts)
	if u.Age() != 0 || u.Retention() != 48*time.Hour {
		t.Errorf("at the beginning: age %s, retention %s", u.Age(), u.Retention())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := u.measure(ctx, r); err == nil {
		t.Error("nobody answers, and all is known")
	}
	u.measured = time.Now().Add(-time.Hour)
	if u.Age() < time.Hour {
		t.Errorf("age %s an hour after anything was known", u.Age())
	}
	// A partition that can't be read counts from when it was known to be read up.
	if err := u.look(ctx, r, place{c.Topics().Events, 1}, 5, 9); err == nil || u.first[place{c.Topics().Events, 1}].at != u.measured {
		t.Errorf("unread since %v, %v", u.first, err)
	}
	u.measured = time.Now()
	if u.Age() < time.Hour {
		t.Errorf("age %s of a partition that could not be read for an hour", u.Age())
	}
}
