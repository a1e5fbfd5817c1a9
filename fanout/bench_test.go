package fanout

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// BenchmarkFanout measures the whole stage on the embedded broker: b.N events that
// wait in events, until their deliveries are committed.
func BenchmarkFanout(b *testing.B) {
	for _, width := range []int{1, 100} {
		b.Run(fmt.Sprintf("1to%d", width), func(b *testing.B) {
			r := newRig(b)
			for n := range width {
				r.view.subscribe("acme", n, "", "order.*")
			}
			payload := []byte(`{"pad":"` + strings.Repeat("x", 500) + `"}`)
			for n := range b.N {
				ev := event("acme", strconv.Itoa(n), "order.paid")
				ev.Data = payload
				r.cl.Produce(b.Context(), r.record(ev, int32(n%8)), func(_ *kgo.Record, err error) {
					if err != nil {
						b.Error(err)
					}
				})
			}
			if err := r.cl.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			r.start("a")
			r.settle()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(b.N*width)/b.Elapsed().Seconds(), "deliveries/s")
		})
	}
}

// BenchmarkLatency measures one event at a time, from its acknowledgement on:
// poll, barrier, claim, match and the whole transaction.
func BenchmarkLatency(b *testing.B) {
	r := newRig(b)
	ep := r.view.subscribe("acme", 1, "", "order.*")
	r.start("a")
	cl, err := r.broker.NewReader(map[string]map[int32]int64{r.topics.Deliveries: {r.layout.Partition(ep): 0}})
	if err != nil {
		b.Fatal(err)
	}
	defer cl.Close()
	once := func(id string) {
		r.produce(r.record(event("acme", id, "order.paid"), 0))
		for got := 0; got == 0; got = cl.PollFetches(b.Context()).NumRecords() {
			continue
		}
	}
	once("first")
	b.ResetTimer()
	for n := range b.N {
		once(strconv.Itoa(n))
	}
}
