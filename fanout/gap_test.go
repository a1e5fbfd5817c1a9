package fanout

import (
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

// commitAt sets the group's commit of a partition of events.
func (r *rig) commitAt(partition int32, offset int64) {
	r.tb.Helper()
	var at kadm.Offsets
	at.AddOffset(r.topics.Events, partition, offset, -1)
	if err := kadm.NewClient(r.cl).CommitAllOffsets(r.tb.Context(), r.broker.Group(Group), at); err != nil {
		r.tb.Fatal(err)
	}
}

// cut deletes the records of a partition of events below an offset, as retention does.
func (r *rig) cut(partition int32, below int64) {
	r.tb.Helper()
	var at kadm.Offsets
	at.AddOffset(r.topics.Events, partition, below, -1)
	if _, err := kadm.NewClient(r.cl).DeleteRecords(r.tb.Context(), at); err != nil {
		r.tb.Fatal(err)
	}
}

// until waits for a condition.
func (r *rig) until(what string, ok func() bool) {
	r.tb.Helper()
	deadline := time.Now().Add(settleWait)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			r.tb.Fatalf("not reached: %s", what)
		}
		<-tick.C
	}
}

// Records that retention deletes before they are read are told of for good, and what
// is left is delivered; a new process begins behind the gap.
func TestLogBeginsAboveCommit(t *testing.T) {
	eachKafka(t, func(t *testing.T, r *rig) {
		r.view.subscribe("acme", 1, "", "*")
		for n := range 10 {
			r.produce(r.record(event("acme", strconv.Itoa(n), "order.paid"), 0))
		}
		r.produce(r.record(event("acme", "gone", "order.paid"), 1))
		r.cut(0, 4)
		r.cut(1, 1) // nothing is left
		f, stop := r.start("a")
		r.deliveries(6)
		err := f.Ready(t.Context())
		for _, want := range []string{"lost_by_retention: " + r.topics.Events + "/0: offsets 0 to 3", r.topics.Events + "/1: offsets 0 to 0"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("ready: %v, want %q", err, want)
			}
		}
		stop()
		f, _ = r.start("a")
		r.produce(r.record(event("acme", "later", "order.paid"), 1))
		r.deliveries(7)
		if err := f.Ready(t.Context()); err != nil {
			t.Errorf("ready after a restart: %v", err)
		}
	})
}

// A partition whose log ends below the commit waits, without spinning, and holds up
// nobody; it goes on once its log has grown.
func TestLogEndsBelowCommit(t *testing.T) {
	eachKafka(t, func(t *testing.T, r *rig) {
		r.view.subscribe("acme", 1, "", "*")
		r.commitAt(0, 3)
		var turns atomic.Int64
		f, _ := r.start("a", func(c *Config) { c.Beat = func() { turns.Add(1) } })
		r.until("not ready", func() bool {
			err := f.Ready(t.Context())
			return err != nil && strings.Contains(err.Error(), "truncated: "+r.topics.Events+"/0: offset 3 is to be read next, but the log ends at 0")
		})
		r.produce(r.record(event("acme", "other", "order.paid"), 1))
		r.read(r.topics.Deliveries, 1)
		for n := range 4 {
			r.produce(r.record(event("acme", strconv.Itoa(n), "order.paid"), 0))
		}
		records := r.read(r.topics.Deliveries, 2)
		d, err := schemas.DecodeDelivery(records[1].Key, records[1].Value, records[1].Headers)
		if err != nil || len(records) != 2 || d.Event.ID != "3" {
			t.Errorf("%d deliveries, the last one of event %q, error %v", len(records), d.Event.ID, err)
		}
		if f.Ready(t.Context()) == nil {
			t.Error("ready after a loss")
		}
		if n := turns.Load(); n > 1000 {
			t.Errorf("%d turns: it spins", n)
		}
	})
}

// A commit stands behind the markers of transactions: else it would be below the
// start of a log that was emptied since, and look like a loss.
func TestCommitPassesMarkers(t *testing.T) {
	eachKafka(t, func(t *testing.T, r *rig) {
		r.view.subscribe("acme", 1, "", "*")
		_, stop := r.start("a")
		r.inTransaction(r.record(event("acme", "1", "order.paid"), 0))
		r.read(r.topics.Deliveries, 1)
		r.produce(r.record(event("acme", "2", "order.paid"), 1)) // has it commit again
		r.deliveries(2)
		stop()
		r.cut(0, -1)
		f, _ := r.start("a")
		r.produce(r.record(event("acme", "3", "order.paid"), 0))
		r.deliveries(3)
		if err := f.Ready(t.Context()); err != nil {
			t.Errorf("ready: %v", err)
		}
	})
}

// inTransaction writes records in a transaction of somebody else.
func (r *rig) inTransaction(records ...*kgo.Record) {
	r.tb.Helper()
	cl, err := r.broker.NewClient(kgo.TransactionalID(r.broker.Group("other")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		r.tb.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		r.tb.Fatal(err)
	}
	if err := cl.ProduceSync(r.tb.Context(), records...).FirstErr(); err != nil {
		r.tb.Fatal(err)
	}
	if err := cl.EndTransaction(r.tb.Context(), kgo.TryCommit); err != nil {
		r.tb.Fatal(err)
	}
}
