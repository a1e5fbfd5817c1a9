package e2e

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/postrider/postrider/e2e/services"
)

// leaderOf returns the broker, from 0, that leads a partition of deliveries.
func (g *gateway) leaderOf(partition int32) int {
	g.t.Helper()
	cl, err := g.broker().NewClient()
	if err != nil {
		g.t.Fatal(err)
	}
	defer cl.Close()
	topic, leader := g.broker().Topics().Deliveries, -1
	eventually(g.t, time.Minute, fmt.Sprintf("partition %d has a leader", partition), func() bool {
		details, err := kadm.NewClient(cl).ListTopics(g.t.Context(), topic)
		if err == nil {
			leader = int(details[topic].Partitions[partition].Leader) - 1
		}
		return leader >= 0
	})
	return leader
}

// Three copies, two of them in sync: the broker that leads a partition of
// deliveries is killed under load and comes back. Nothing accepted is lost and nothing is made or decided twice; events go on being
// accepted with two brokers.
func TestLeaderKilled(t *testing.T) {
	k, err := services.StartKafka(t.Context(), services.Options{Brokers: 3})
	need(t, err == nil, fmt.Sprintf("a real Kafka: %v", err))
	t.Cleanup(k.Stop)
	g := newGatewayOn(t, k.Brokers)
	g.strict = true
	g.startAll().tenant()
	s := newSink(t, oneInFive())
	retry := settings{"retry": map[string]any{"schedule": []string{"1s", "1s", "2s", "2s", "2s", "4s", "4s", "4s"}}}
	var endpoints []string
	for i := range 4 {
		endpoints = append(endpoints, g.endpoint(s.URL+"/"+strconv.Itoa(i), retry))
	}
	l := g.sendLoad("order.paid", 40)
	wait(t.Context(), 2*time.Second)
	leader := g.leaderOf(0)
	k.Kill(leader)
	// A process may be killed, too, and starts without the third broker.
	g.kill("deliver-1")
	g.start("deliver", "deliver-1")
	g.ready("deliver-1")
	before := l.accepted()
	eventually(t, time.Minute, "events are accepted by two brokers", func() bool { return l.accepted() > before+80 })
	if err := k.Start(t.Context(), leader); err != nil {
		t.Fatal(err)
	}
	events := l.end()
	tr := g.settledTruth(len(events) * len(endpoints))
	// What the worker had in flight may be sent again, and what it sends within a
	// lease while it can't commit.
	twice := len(endpoints) * 40 * int(lease/time.Second)
	tr.check(g, events, endpoints, twice)
	d := g.decisions()
	d.matched(g, events)
	tr.accounted(g, d, events)
	repeats := s.repeats()
	t.Logf("%d events, %d requests, %d repeated", len(events), len(s.arrivals()), repeats)
	if repeats > twice {
		t.Errorf("%d requests were repeated, at most %d may be", repeats, twice)
	}
}
