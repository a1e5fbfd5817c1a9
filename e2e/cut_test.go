package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/e2e/services"
	"github.com/postrider/postrider/internal/broker"
)

// lease is how long after its last accepted commit a worker may start attempts, and
// leaseSlack how much later a request may be seen on a busy machine. The next owner
// comes after ten seconds at the earliest.
const (
	lease      = 2 * time.Second
	leaseSlack = 3 * time.Second
)

// (8) A worker that is cut off from Kafka stops POSTing within the lease. The
// next one takes over, and when the first is back nothing is missing; what was
// repeated is at most what was in flight or started within the lease.
func TestCutOffWorker(t *testing.T) {
	k, err := services.StartKafka(t.Context(), services.Options{Relay: true})
	need(t, err == nil, fmt.Sprintf("a real Kafka: %v", err))
	t.Cleanup(k.Stop)
	g := newGatewayOn(t, k.Brokers)
	relay := k.Relays[0]
	g.kafka = []string{relay.Address} // for this process alone
	g.start("deliver", "deliver-1")
	g.kafka = k.Brokers
	for _, role := range []string{"control", "ingest", "fanout"} {
		g.start(role, role+"-1")
	}
	for _, role := range roles() {
		g.ready(role + "-1")
	}
	g.tenant()
	var quick atomic.Bool
	s := newSink(t, func(r *http.Request) int {
		if !quick.Load() {
			wait(r.Context(), 200*time.Millisecond)
		}
		return http.StatusOK
	})
	// The endpoints take half of what is sent: the worker always has records in
	// its memory that it could start.
	var endpoints []string
	for i := range 8 {
		endpoints = append(endpoints, g.endpoint(s.URL+"/"+strconv.Itoa(i), settings{"max_in_flight": 4}))
	}
	l := g.sendLoad("order.paid", 40)
	eventually(t, time.Minute, "the endpoints are busy", func() bool { return g.metric("deliver-1", "postrider_deliver_in_flight") >= 16 })
	wait(t.Context(), time.Second)

	relay.Cut()
	cut := time.Now()
	wait(t.Context(), lease+leaseSlack)
	g.start("deliver", "deliver-2")
	g.ready("deliver-2")
	var since map[int32]time.Time
	eventually(t, 3*time.Minute, "the second worker owns all partitions", func() bool {
		since = g.ownedBy("deliver-2")
		return len(since) == 8
	})
	wait(t.Context(), 3*time.Second)
	during := s.arrivals()
	relay.Mend()
	quick.Store(true)
	wait(t.Context(), 5*time.Second)
	events := l.end()

	late, leased := 0, 0
	for _, a := range during {
		i, err := strconv.Atoi(a.Path[1:])
		if err != nil {
			t.Fatal(err)
		}
		owner := since[broker.Layout{Deliveries: 8, ScheduleShards: 1}.Partition(endpoints[i])]
		after := a.At.Sub(cut)
		switch {
		case a.At.After(owner):
		case after > lease+leaseSlack:
			if late++; late <= 10 {
				t.Errorf("a request started %s after the cut, before another worker owned the partition", after)
			}
		case after > -time.Second:
			leased++
		}
	}
	tr := g.settledTruth(len(events) * len(endpoints))
	tr.check(g, events, endpoints, leased)
	repeats := s.repeats()
	if repeats > leased {
		t.Errorf("%d requests were repeated, only %d were in flight or within the lease", repeats, leased)
	}
	if repeats == 0 {
		t.Error("nothing was in flight when the cut came")
	}
	t.Logf("%d requests from 1 s before the cut to the end of the lease, %d repeated", leased, repeats)
}

// ownedBy returns the partitions whose newest owner record is an instance's,
// with the record's time.
func (g *gateway) ownedBy(instance string) map[int32]time.Time {
	g.t.Helper()
	owned := map[int32]time.Time{}
	g.scan(g.broker().Topics().Lanes, func(r *kgo.Record) {
		if string(r.Key) != "owner" {
			return
		}
		var v struct {
			Instance string `json:"instance"`
		}
		if err := json.Unmarshal(r.Value, &v); err != nil {
			g.t.Errorf("owner record: %v", err)
		}
		delete(owned, r.Partition)
		if v.Instance == instance {
			owned[r.Partition] = r.Timestamp
		}
	})
	return owned
}
