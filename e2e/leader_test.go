package e2e

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/postrider/postrider/e2e/services"
)

// coordinator returns the broker, from 0, that coordinates the workers' group.
func (g *gateway) coordinator() int {
	g.t.Helper()
	cl, err := g.broker().NewClient()
	if err != nil {
		g.t.Fatal(err)
	}
	defer cl.Close()
	group := g.broker().Group("deliver")
	found := kadm.NewClient(cl).FindGroupCoordinators(g.t.Context(), group)
	if err := found.Error(); err != nil {
		g.t.Fatal(err)
	}
	return int(found[group].NodeID) - 1
}

// leads returns how many partitions of deliveries a broker leads.
func (g *gateway) leads(broker int) (n int) {
	g.t.Helper()
	cl, err := g.broker().NewClient()
	if err != nil {
		g.t.Fatal(err)
	}
	defer cl.Close()
	details, err := kadm.NewClient(cl).ListTopics(g.t.Context(), g.broker().Topics().Deliveries)
	if err != nil {
		g.t.Fatal(err)
	}
	for _, topic := range details {
		for _, p := range topic.Partitions {
			if int(p.Leader)-1 == broker {
				n++
			}
		}
	}
	return n
}

// Three copies, two of them in sync: a broker that leads partitions of deliveries
// and coordinates their group is killed under load and comes back. Nothing accepted is lost and nothing is made or decided twice; events go on being
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
	leader := g.coordinator()
	if g.leads(leader) == 0 {
		t.Fatalf("broker %d leads no partition of deliveries", leader+1)
	}
	k.Kill(leader)
	// A process may be killed, too, and starts without the third broker. At first
	// the others name that one as the coordinator.
	g.kill("deliver-1")
	g.start("deliver", "deliver-1")
	g.ready("deliver-1")
	before := l.accepted()
	eventually(t, 2*time.Minute, "events are accepted by two brokers", func() bool { return l.accepted() > before+80 })
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
