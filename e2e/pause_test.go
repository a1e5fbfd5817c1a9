package e2e

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

// (7) Pause, 10,000 events, resume: none arrives while the endpoint is paused,
// all arrive once afterwards, in the order of their offsets where one at a time
// is in flight, with newer events behind them; and another endpoint's deliveries
// wait for their attempts no longer than before while the 10,000 drain.
func TestPauseAndResume(t *testing.T) {
	g := newGateway(t).startAll()
	g.tenant()
	s, beat := newSink(t, nil), newSink(t, nil)
	beat.keep = true
	subscribed := func(typ string, s settings) settings {
		s["subscriptions"] = []any{map[string]any{"types": []string{typ}}}
		return s
	}
	endpoint := g.endpoint(s.URL, subscribed("order.paid", settings{"max_in_flight": 1}))
	other := g.endpoint(beat.URL, subscribed("beat", settings{}))
	l := g.sendLoad("beat", 50)
	wait(t.Context(), 5*time.Second)

	path := "/v1/tenants/acme/endpoints/" + endpoint
	paused := time.Now()
	g.insist("POST", path+"/pause", nil, nil)
	var events []string
	for range 40 {
		events = append(events, g.batch("order.paid", 250)...)
		wait(t.Context(), 100*time.Millisecond)
	}
	eventually(t, time.Minute, "all are parked", func() bool { return g.metric("deliver-1", "postrider_deliver_parked") == 10_000 })
	wait(t.Context(), time.Second)
	if n := len(s.arrivals()); n > 0 {
		t.Errorf("%d requests while paused", n)
	}
	resumed := time.Now()
	g.insist("POST", path+"/resume", nil, nil)
	events = append(events, g.events(500)...)
	eventually(t, 3*time.Minute, "everything arrived", func() bool { return s.accepted() == len(events) })
	drained := time.Now()

	all := append(l.end(), events...)
	eventually(t, time.Minute, "every beat arrived", func() bool { return beat.accepted() == len(all)-len(events) })
	tr := g.settledTruth(len(all))
	tr.check(g, events, []string{endpoint}, 0)
	if n := s.repeats(); n > 0 {
		t.Errorf("%d requests were repeated", n)
	}
	g.inOrder(t, s, endpoint)
	waits := g.waits(t, other)
	before, meanwhile := between(waits, time.Time{}, paused), between(waits, resumed, drained)
	t.Logf("p90 and p99 from delivery to attempt: %s, %s before (%d), %s, %s in the drain (%d)", percentile(before, 90),
		percentile(before, 99), len(before), percentile(meanwhile, 90), percentile(meanwhile, 99), len(meanwhile))
	whole := beat.latencies(t)
	t.Logf("p90 and p99 of all stages together: %s, %s before, %s, %s in the drain", percentile(between(whole, time.Time{}, paused), 90),
		percentile(between(whole, time.Time{}, paused), 99), percentile(between(whole, resumed, drained), 90), percentile(between(whole, resumed, drained), 99))
	if len(before) < 50 || len(meanwhile) < 20 { // a quick drain meets few
		t.Errorf("too few deliveries to compare: %d before, %d in the drain", len(before), len(meanwhile))
	}
	// A worker that drains one lane before it goes on with others would let them
	// wait for the rest of the drain.
	if got, limit := percentile(meanwhile, 90), max(5*percentile(before, 90), drained.Sub(resumed)/8); got > limit {
		t.Errorf("p90 from delivery to attempt of the other endpoint %s in the drain, more than %s", got, limit)
	}
}

// timed is how long something took that began at a time.
type timed struct {
	began time.Time
	took  time.Duration
}

// waits returns how long each delivery of an endpoint waited for its first
// attempt: what a worker's other endpoints can do to it. Ingest, Kafka and
// fan-out, which know nothing of lanes, are not in it.
func (g *gateway) waits(t *testing.T, endpoint string) []timed {
	t.Helper()
	started := map[string]time.Time{}
	g.scan(g.broker().Topics().Attempts, func(r *kgo.Record) {
		if a, err := schemas.DecodeAttempt(r.Value); err == nil && a.Endpoint == endpoint && a.Attempt == 1 {
			started[a.Delivery] = a.StartedAt
		}
	})
	var out []timed
	g.scan(g.broker().Topics().Deliveries, func(r *kgo.Record) {
		if d, err := schemas.DecodeDelivery(r.Key, r.Value, r.Headers); err == nil && d.Endpoint == endpoint && d.Attempt == 1 {
			out = append(out, timed{r.Timestamp, started[d.ID].Sub(r.Timestamp)})
		}
	})
	return out
}

// between returns the durations of what began in a span of time.
func between(all []timed, from, to time.Time) (out []time.Duration) {
	for _, one := range all {
		if one.began.After(from) && one.began.Before(to) {
			out = append(out, one.took)
		}
	}
	return out
}

// inOrder checks that an endpoint's requests came in the order of its deliveries.
func (g *gateway) inOrder(t *testing.T, s *sink, endpoint string) {
	t.Helper()
	offsets := map[string]int64{}
	g.scan(g.broker().Topics().Deliveries, func(r *kgo.Record) {
		if d, err := schemas.DecodeDelivery(r.Key, r.Value, r.Headers); err == nil && d.Endpoint == endpoint {
			offsets[d.EventID] = r.Offset
		}
	})
	wrong, last := 0, int64(-1)
	for _, a := range s.arrivals() {
		at, ok := offsets[a.ID]
		if !ok || at <= last {
			wrong++
		}
		last = at
	}
	if wrong > 0 {
		t.Errorf("%d of %d requests out of order", wrong, len(offsets))
	}
}

// latencies returns how long the events of a load took from being sent to their
// arrival. The sink must keep its requests.
func (s *sink) latencies(t *testing.T) []timed {
	t.Helper()
	var out []timed
	for _, a := range s.arrivals() {
		body, err := base64.StdEncoding.DecodeString(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		var event struct {
			Data struct {
				Sent int64 `json:"sent"`
			} `json:"data"`
		}
		if err := json.Unmarshal(body, &event); err != nil || event.Data.Sent == 0 {
			t.Fatalf("%v: %s", err, body)
		}
		sent := time.UnixMicro(event.Data.Sent)
		out = append(out, timed{sent, a.At.Sub(sent)})
	}
	return out
}

func percentile(of []time.Duration, p int) time.Duration {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	return sorted[min(len(sorted)*p/100, len(sorted)-1)]
}

// metric returns the sum over all labels of a process's metric, -1 if it has none.
func (g *gateway) metric(instance, name string) float64 {
	got, err := g.call(instance, "GET", "/metrics", nil, nil)
	if err != nil {
		return -1
	}
	sum, found := 0.0, false
	for line := range strings.Lines(string(got.body)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		fields := strings.Fields(rest[strings.LastIndexByte(rest, '}')+1:])
		if value, err := strconv.ParseFloat(fields[0], 64); err == nil {
			sum, found = sum+value, true
		}
	}
	if !found {
		return -1
	}
	return sum
}
