package e2e

import (
	"net/http"
	"testing"
	"time"
)

// (3) FLUSHALL under load, and again while control writes go on: nothing is
// missing, nothing is unmatched that should match, and endpoints and keys work
// again by themselves.
func TestFlushall(t *testing.T) {
	d := disturb(newGateway(t))
	rdb := d.g.rdb()
	d.loseView(func() { d.g.flushall(rdb) })
	d.startWriter()
	for range 3 {
		d.loseView(func() { d.g.flushall(rdb) })
		wait(t.Context(), time.Second)
	}
	d.end()
}

// (10) Redis comes back with a dump that is ten seconds old.
func TestRedisFromOldDump(t *testing.T) {
	d := disturb(newGateway(t))
	d.startWriter()
	wait(t.Context(), 2*time.Second)
	if err := d.g.redis.SaveDump(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait(t.Context(), 10*time.Second)
	d.loseView(func() {
		d.g.redis.Kill()
		if err := d.g.redis.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	d.end()
}

// (10) One bucket of the view is lost, first with its marker, then the hash of
// the tenant alone.
func TestBucketLost(t *testing.T) {
	d := disturb(newGateway(t))
	d.startWriter()
	wait(t.Context(), time.Second)
	rdb := d.g.rdb()
	tag := d.g.bucketOf(rdb, "acme")
	drop := func(pattern string) func() {
		return func() {
			keys := keysOf(t.Context(), t, rdb, pattern)
			if n, err := rdb.Del(t.Context(), keys...).Result(); err != nil || n == 0 {
				t.Fatalf("deleted %d of %q: %v", n, keys, err)
			}
		}
	}
	d.loseView(drop(tag + ":*"))
	wait(t.Context(), 2*time.Second)
	d.loseView(drop(tag + ":*:acme"))
	d.end()
}

// disturbance is a gateway under load whose Redis loses what it knows.
type disturbance struct {
	t           *testing.T
	g           *gateway
	paid, fresh *sink
	endpoint    string
	load        *load
	writer      *writer
}

// disturb starts a gateway and the load.
func disturb(g *gateway) *disturbance {
	t := g.t
	g.startAll().tenant()
	d := &disturbance{t: t, g: g, paid: newSink(t, nil), fresh: newSink(t, nil)}
	d.endpoint = g.endpoint(d.paid.URL, settings{"subscriptions": []any{map[string]any{"types": []string{"order.*"}}}})
	d.load = g.sendLoad("order.paid", 250)
	wait(t.Context(), time.Second)
	return d
}

// startWriter has control write from now on.
func (d *disturbance) startWriter() { d.writer = d.g.writeControl("control-1", d.fresh.URL) }

// loseView takes something from the view and holds that the endpoint and the
// tenant's key work again by themselves, and are never said to be unknown.
func (d *disturbance) loseView(lose func()) {
	d.t.Helper()
	producer := d.g.key("producer") // no process has it in its cache
	lose()
	from := time.Now()
	var read, sent int
	eventually(d.t, 90*time.Second, "endpoint and key work again", func() bool {
		read = d.check(ask{instance: "control-1", method: "GET", path: "/v1/tenants/acme/endpoints/" + d.endpoint})
		sent = d.check(ask{
			instance: "ingest-1", method: "POST", path: "/v1/events", token: producer,
			body: settings{"type": "order.key", "data": 1},
		})
		return read == http.StatusOK && sent == http.StatusAccepted
	})
	d.g.whole(d.g.client())
	d.t.Logf("whole again after %s", time.Since(from).Round(time.Millisecond))
}

// check asks and holds that the answer is a success or "not now".
func (d *disturbance) check(a ask) int {
	d.t.Helper()
	status, answer, err := d.g.ask(a)
	if err == nil && status >= 300 && status != http.StatusServiceUnavailable {
		d.t.Errorf("%s %s: %d %.300s", a.method, a.path, status, answer)
	}
	return status
}

// end stops the load and holds what must be true.
func (d *disturbance) end() {
	d.t.Helper()
	pairs := d.writer.end()
	events := d.load.end()
	eventually(d.t, 2*time.Minute, "everything arrived", func() bool { return len(d.paid.missing(events)) == 0 })
	d.fresh.arrived(d.t, pairs)
	d.t.Logf("%d events, %d new endpoints, %d answers of 503", len(events), len(pairs), d.load.refused.Load())
	tr := d.g.settledTruth(len(events) + len(pairs))
	tr.check(d.g, events, []string{d.endpoint}, 0)
	tr.reached(d.g, pairs)
	all := append(eventsOf(pairs), events...)
	decided := d.g.decisions()
	decided.matched(d.g, all)
	tr.accounted(d.g, decided, all)
}
