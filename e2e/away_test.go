package e2e

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

// redisAway is how long Redis is away: longer than every bound of a look-up in
// it (5 s), and than records of an unknown endpoint stay in memory (1 s). A
// minute is no other case: nothing in deliver counts how long.
const redisAway = 15 * time.Second

// (P5) Redis is away under load: deliver goes on with the endpoints that it
// knows, retries included; the deliveries of one that it doesn't know park, are
// not given up, and go out by themselves when Redis is back.
func TestRedisAwayUnderLoad(t *testing.T) {
	g := newGateway(t).startAll()
	g.tenant()
	var count atomic.Int64
	known := newSink(t, slowly(30*time.Millisecond, func(*http.Request) int {
		if count.Add(1)%10 == 0 {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	}))
	fresh := newSink(t, nil)
	of := func(typ string, s settings) settings {
		s["subscriptions"] = []any{map[string]any{"types": []string{typ}}}
		return s
	}
	old := g.endpoint(known.URL, of("known", settings{"max_in_flight": 4, "retry": map[string]any{"schedule": []string{"1s", "1s", "2s", "2s", "2s", "4s"}}}))
	unknown := g.endpoint(fresh.URL, of("fresh", settings{}))
	first := g.event("known", 1)
	eventually(t, time.Minute, "the worker knows the first endpoint", func() bool { return len(known.missing([]string{first})) == 0 })

	// The worker sleeps while its work is laid out, so that it meets all of it
	// without Redis.
	g.freeze("deliver-1")
	events := append(g.batch("known", 500), first)
	late := g.batch("fresh", 20)
	eventually(t, time.Minute, "all deliveries are made", func() bool {
		n := 0
		g.scan(g.broker().Topics().Deliveries, func(*kgo.Record) { n++ })
		return n == len(events)+len(late)
	})
	g.redis.Kill()
	away := time.Now()
	g.thaw("deliver-1")
	eventually(t, 2*time.Minute, "the known endpoint gets everything, retries included", func() bool { return len(known.missing(events)) == 0 })
	eventually(t, time.Minute, "the others are parked", func() bool { return g.lanesOf(unknown).parked == len(late) })
	wait(t.Context(), redisAway-time.Since(away))
	if n := len(fresh.arrivals()); n > 0 {
		t.Errorf("%d requests to an endpoint that nobody could look up", n)
	}
	for _, a := range g.attemptsOf()[unknown] {
		t.Errorf("an outcome without Redis: %s %s", a.Outcome, a.Error)
	}
	if err := g.redis.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the others arrive", func() bool { return len(fresh.missing(late)) == 0 })
	tr := g.settledTruth(len(events) + len(late))
	tr.check(g, nil, nil, 0)
	if tr.ends[schemas.OutcomeDelivered] != len(events)+len(late) {
		t.Errorf("outcomes %v, want %d delivered", tr.ends, len(events)+len(late))
	}
	if known.repeats()+fresh.repeats() > 0 {
		t.Errorf("%d and %d requests were repeated", known.repeats(), fresh.repeats())
	}
	for _, endpoint := range []string{old, unknown} {
		eventually(t, time.Minute, "nothing is left parked", func() bool { return g.lanesOf(endpoint).parked == 0 })
	}
}
