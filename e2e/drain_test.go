package e2e

import (
	"net/http"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/broker"
)

// (S) SIGTERM of each role under load, with attempts under way that take two
// seconds: every process ends with 0, nothing is lost, and no attempt is made
// twice, also not by the worker that takes over.
func TestSIGTERMDrains(t *testing.T) {
	g := newGateway(t).startAll()
	g.start("deliver", "deliver-2")
	g.ready("deliver-2")
	g.tenant()
	slow := newSink(t, func(r *http.Request) int {
		wait(r.Context(), 2*time.Second)
		return http.StatusOK
	})
	flaky := newSink(t, oneInFive())
	retry := settings{"retry": map[string]any{"schedule": []string{"1s", "1s", "2s", "2s", "2s", "4s", "4s", "4s"}}}
	endpoints := []string{g.endpoint(flaky.URL, retry)}
	// Either worker owns four of the eight partitions, so both have slow endpoints;
	// together these keep up with the load.
	endpoints = append(endpoints, g.apart(6, slow.URL, retry)...)
	l := g.sendLoad("order.paid", 20)
	wait(t.Context(), 4*time.Second)
	for _, instance := range []string{"deliver-1", "deliver-2", "fanout-1", "ingest-1", "control-1"} {
		if g.proc(instance).role == "deliver" {
			eventually(t, 2*time.Minute, instance+" has attempts in flight", func() bool {
				return g.metric(instance, "postrider_deliver_in_flight") > 0
			})
		}
		if code := g.stop(instance); code != 0 {
			t.Errorf("%s ended with %d", instance, code)
		}
		g.start(g.proc(instance).role, instance)
		g.ready(instance)
		wait(t.Context(), 2*time.Second)
	}
	events := l.end()
	tr := g.settledTruth(len(events) * len(endpoints))
	tr.check(g, events, endpoints, 0)
	if n := flaky.repeats(); n > 0 {
		t.Errorf("%d attempts were made twice", n)
	}
	if got, want := len(slow.arrivals()), len(events)*(len(endpoints)-1); got != want {
		t.Errorf("%d requests at the slow sink, want %d: each delivery succeeds at once", got, want)
	}
}

// apart makes endpoints that live in n different partitions.
func (g *gateway) apart(n int, url string, s settings) (ids []string) {
	g.t.Helper()
	layout := broker.Layout{Deliveries: 8, ScheduleShards: 1}
	taken := map[int32]bool{}
	for range 200 {
		id := g.endpoint(url, s)
		if p := layout.Partition(id); !taken[p] {
			taken[p] = true
			if ids = append(ids, id); len(ids) == n {
				return ids
			}
			continue
		}
		g.insist("DELETE", "/v1/tenants/acme/endpoints/"+id, nil, nil)
	}
	g.t.Fatalf("no %d endpoints in different partitions", n)
	return nil
}
