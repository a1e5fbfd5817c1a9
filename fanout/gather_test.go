package fanout

import (
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
)

// A whole poll's worth of events that come in fetches of one batch each ends in one
// transaction: its one marker follows the deliveries.
func TestGathersWhatComesInNumbers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ep := r.view.subscribe("acme", 1, "", "order.*")
	// Flushed by hand: on a busy machine the linger would cut a batch short, and too
	// few records in the first poll are not worth waiting for more.
	cl, err := r.broker.NewClient(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ManualFlushing())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	const each = 250
	for n := 0; n < maxPoll; n += each {
		for i := range each {
			cl.Produce(t.Context(), r.record(event("acme", strconv.Itoa(n+i), "order.paid"), 0), nil)
		}
		if err := cl.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f, err := New(Config{
		Broker: r.broker, Layout: r.layout, Instance: "a", Redis: r.rdb, View: r.view,
		Options: []kgo.Opt{kgo.FetchMaxPartitionBytes(1), kgo.FetchMaxBytes(1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.gatherFor = time.Minute // ends when the poll is full
	r.run(f)
	r.settle()
	end, err := broker.LastStableOffset(t.Context(), r.cl, r.topics.Deliveries, r.layout.Partition(ep))
	if err != nil || end != maxPoll+1 {
		t.Errorf("deliveries end at %d, want %d and one marker; error %v", end, maxPoll, err)
	}
}
