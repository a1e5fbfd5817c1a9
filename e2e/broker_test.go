package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/postrider/postrider/e2e/services"
)

// (5) The broker is gone for ten seconds under load: ingest answers 503 with
// Retry-After meanwhile, no process ends, nothing accepted is lost, and
// everything goes on by itself once it is back.
func TestBrokerRestart(t *testing.T) {
	k, err := services.StartKafka(t.Context(), services.Options{})
	need(t, err == nil, fmt.Sprintf("a real Kafka: %v", err))
	t.Cleanup(k.Stop)
	g := newGatewayOn(t, k.Brokers).startAll()
	g.tenant()
	a, b := newSink(t, oneInFive()), newSink(t, nil)
	retry := settings{
		"retry":         map[string]any{"schedule": []string{"1s", "1s", "2s", "2s", "2s", "4s", "4s", "4s"}},
		"subscriptions": []any{map[string]any{"types": []string{"order.paid"}}},
	}
	endpoints := []string{g.endpoint(a.URL, retry), g.endpoint(b.URL, retry)}
	l := g.sendLoad("order.paid", 100)
	wait(t.Context(), 3*time.Second)

	k.Kill(0)
	lost := messages(1)[0] // of type order.paid
	g.refused(lost)
	for _, role := range roles() {
		eventually(t, time.Minute, role+" says that it is not ready", func() bool {
			got, err := g.call(role+"-1", "GET", "/readyz", nil, nil)
			return err == nil && got.status == http.StatusServiceUnavailable
		})
	}
	wait(t.Context(), 5*time.Second)
	if err := k.Start(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for _, role := range roles() {
		g.ready(role + "-1")
	}
	before := l.accepted()
	eventually(t, time.Minute, "events are accepted again", func() bool { return l.accepted() > before+200 })
	late := newSink(t, nil) // control and fan-out go on, too
	g.endpoint(late.URL, settings{"subscriptions": []any{map[string]any{"types": []string{"late"}}}})
	id := g.event("late", 1)
	eventually(t, time.Minute, "a new endpoint gets its event", func() bool { return len(late.missing([]string{id})) == 0 })
	if err := g.sendForm(forms()[0], "", []message{lost}); err != nil {
		t.Errorf("the refused event again: %v", err)
	}
	events := append(l.end(), lost.event())
	const lease = 2 * 100 // attempts of an endpoint in two seconds: what may be made again
	for i, s := range []*sink{a, b} {
		eventually(t, 2*time.Minute, "everything arrived", func() bool { return len(s.missing(events)) == 0 })
		repeats := s.repeats()
		t.Logf("sink %d: %d requests, %d repeated", i, len(s.arrivals()), repeats)
		if repeats > lease {
			t.Errorf("sink %d: %d requests repeated, at most %d may be", i, repeats, lease)
		}
	}
	if l.refused.Load() == 0 {
		t.Error("the load was never refused")
	}
	tr := g.settledTruth(len(events)*len(endpoints) + 1)
	tr.check(g, events, endpoints, lease*len(endpoints))
}

// refused sends a message until it is answered 503, and checks that answer.
func (g *gateway) refused(m message) {
	g.t.Helper()
	header := http.Header{"Content-Type": {"application/json"}}
	var got answer
	eventually(g.t, time.Minute, "a 503", func() bool {
		var err error
		got, err = g.call("ingest-1", "POST", "/v1/events", header, bytes.NewReader(m.plain()))
		return err == nil && got.status == http.StatusServiceUnavailable
	})
	var p struct {
		ID   string `json:"id"`
		Code string `json:"code"`
	}
	if err := json.Unmarshal(got.body, &p); err != nil {
		g.t.Fatalf("%v: %s", err, got.body)
	}
	if got.header.Get("Retry-After") == "" || p.ID != m.event() || p.Code != "outcome_unknown" && p.Code != "overloaded" {
		g.t.Errorf("Retry-After %q, %s", got.header.Get("Retry-After"), got.body)
	}
}
