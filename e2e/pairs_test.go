package e2e

import (
	"encoding/base64"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// receiver is an endpoint with its own sink and what it should get.
type receiver struct {
	*sink
	endpoint, secret string
	wants            func(message) bool
}

// (1) 5,000 events over HTTP in all forms and 5,000 from Kafka clients of others,
// for three endpoints with different filters: exactly the expected pairs arrive,
// once each, and the receivers' own libraries verify every request.
func TestEveryPairOnce(t *testing.T) {
	g := newGateway(t).startAll()
	g.tenant()
	add := func(subscription map[string]any, wants func(message) bool) *receiver {
		r := &receiver{sink: newSink(t, nil), wants: wants}
		r.keep = true
		r.endpoint = g.endpoint(r.URL, settings{"subscriptions": []any{subscription}})
		r.secret = g.secret(r.endpoint)
		return r
	}
	receivers := []*receiver{
		add(map[string]any{"types": []string{"order.paid"}}, func(m message) bool { return m.Type == "order.paid" }),
		add(map[string]any{"types": []string{"order.*"}}, func(m message) bool { return strings.HasPrefix(m.Type, "order.") }),
		add(map[string]any{"filter": "data.total > 100"}, func(m message) bool { return m.Total > 100 }),
	}
	all := messages(10_000)
	g.sendForms(all[:5000])
	direct := all[5000:]
	t.Run("kcat", func(t *testing.T) {
		_, err := exec.LookPath("kcat")
		need(t, err == nil, "kcat")
		g.sendKcat(t, direct[:300], 24)
		direct = direct[300:]
	})
	g.sendKafka(direct) // all of them where there is no kcat

	want := map[string]int{}
	for _, r := range receivers {
		for _, m := range all {
			if r.wants(m) {
				want[m.event()+"/"+r.endpoint] = 1
			}
		}
	}
	arrived := func() (n int) {
		for _, r := range receivers {
			n += r.accepted()
		}
		return n
	}
	eventually(t, 3*time.Minute, "every pair arrived", func() bool { return arrived() >= len(want) })
	tr := g.settledTruth(len(want))
	if diff := cmp.Diff(want, tr.pairs); diff != "" {
		t.Errorf("deliveries (-want +got):\n%.2000s", diff)
	}
	tr.check(g, nil, nil, 0)
	var requests []captured
	for _, r := range receivers {
		requests = append(requests, r.check(t, all)...)
	}
	t.Run("signatures", func(t *testing.T) {
		verify(t, requests)
		for i := range requests {
			requests[i].Scheme = "svix"
		}
		verify(t, requests)
	})
}

// check compares what a receiver got with what it wants, payloads included, and
// returns the requests for verify-outbound.
func (r *receiver) check(t *testing.T, all []message) []captured {
	t.Helper()
	want := map[string]string{}
	for _, m := range all {
		if r.wants(m) {
			want[m.event()] = m.Type + m.data()
		}
	}
	got, out := map[string]string{}, []captured(nil)
	for _, a := range r.arrivals() {
		body, err := base64.StdEncoding.DecodeString(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		var envelope struct {
			Type string          `json:"type"`
			Data json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(body, &envelope); err != nil {
			t.Fatalf("body %q: %v", body, err)
		}
		if _, twice := got[a.ID]; twice {
			t.Errorf("event %s came to %s twice", a.ID, r.endpoint)
		}
		got[a.ID] = envelope.Type + string(envelope.Data)
		out = append(out, captured{Scheme: "standardwebhooks", Method: "POST", Headers: a.Header, Body: a.Body, Secret: r.secret})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("arrivals at %s (-want +got):\n%.2000s", r.endpoint, diff)
	}
	return out
}
