package e2e

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// downtime is how long the endpoint is away in the tests of (4).
const downtime = 20 * time.Second

// (4) An endpoint that refuses connections for a while gets everything once it
// is back; meanwhile the healthy one gets all.
func TestEndpointRefuses(t *testing.T) {
	address := freeAddress(t)
	s := &sink{counts: map[string]int{}}
	s.Server = httptest.NewServer(http.NotFoundHandler()) // for its Close only
	t.Cleanup(s.Close)
	var server *httptest.Server
	up := func() {
		ln, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		server = &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.HandlerFunc(s.serve)}}
		server.Start()
		t.Cleanup(server.Close)
	}
	up()
	outage(t, s, "http://"+address, func() { server.CloseClientConnections(); server.Close() }, up)
}

// (4) The same with an endpoint that takes requests and doesn't answer.
func TestEndpointHangs(t *testing.T) {
	var hanging atomic.Bool
	s := newSink(t, func(r *http.Request) int {
		if hanging.Load() {
			<-r.Context().Done()
			return http.StatusServiceUnavailable // nobody hears it
		}
		return http.StatusOK
	})
	outage(t, s, s.URL, func() { hanging.Store(true) }, func() { hanging.Store(false) })
}

// outage takes the endpoint of s down under load and brings it back.
func outage(t *testing.T, s *sink, url string, down, up func()) {
	t.Helper()
	g := newGateway(t).startAll()
	g.tenant()
	healthy := newSink(t, nil)
	retry := map[string]any{"schedule": []string{"1s", "2s", "4s", "8s", "16s", "16s"}}
	endpoints := []string{
		g.endpoint(url, settings{"retry": retry, "timeout": "1s"}),
		g.endpoint(healthy.URL, nil),
	}
	l := g.sendLoad("order.paid", 100)
	wait(t.Context(), 2*time.Second)
	down()
	wait(t.Context(), downtime)
	sent := l.so()
	eventually(t, time.Minute, "the healthy endpoint got all", func() bool { return len(healthy.missing(sent)) == 0 })
	missing := len(s.missing(sent))
	if missing < len(sent)/2 {
		t.Errorf("the endpoint that is down misses only %d of %d events", missing, len(sent))
	}
	up()
	wait(t.Context(), 2*time.Second)
	events := l.end()
	eventually(t, 2*time.Minute, "everything arrived", func() bool {
		return len(s.missing(events)) == 0 && len(healthy.missing(events)) == 0
	})
	t.Logf("%d events, %d of them waited", len(events), missing)
	tr := g.settledTruth(len(events) * len(endpoints))
	tr.check(g, events, endpoints, 0)
	if n := healthy.repeats(); n > 0 {
		t.Errorf("%d requests were repeated at the healthy endpoint", n)
	}
}

// (13) Slow endpoints hurt only themselves: while five of twenty take ten
// seconds for each request, the others get everything, with fewer slots than
// the slow ones could fill.
func TestSlowEndpoints(t *testing.T) {
	const events, all, slow = 1000, 20, 5
	g := newGateway(t)
	for _, role := range roles() {
		var env []string
		if role == "deliver" {
			env = []string{"POSTRIDER_SLOTS=64"}
		}
		g.start(role, role+"-1", env...)
	}
	for _, role := range roles() {
		g.ready(role + "-1")
	}
	g.tenant()
	release := make(chan struct{})
	var open [slow]atomic.Int64
	sinks, endpoints := make([]*sink, all), make([]string, all)
	for i := range all {
		var answer func(*http.Request) int
		if i < slow {
			answer = func(r *http.Request) int {
				open[i].Add(1)
				defer open[i].Add(-1)
				select {
				case <-release:
				case <-r.Context().Done():
				case <-time.After(10 * time.Second):
				}
				return http.StatusOK
			}
		}
		sinks[i] = newSink(t, answer)
		endpoints[i] = g.endpoint(sinks[i].URL, settings{"timeout": "60s"})
	}
	ids := g.events(events)
	eventually(t, 2*time.Minute, "the fast endpoints got everything", func() bool {
		for _, s := range sinks[slow:] {
			if s.accepted() < events {
				return false
			}
		}
		return true
	})
	for i, s := range sinks[:slow] {
		if n := s.accepted(); n > events/2 {
			t.Errorf("slow endpoint %d has accepted %d: it doesn't hang any more", i, n)
		}
		// Between two requests it may have none for a moment.
		eventually(t, time.Minute, "a slow endpoint has requests open", func() bool { return open[i].Load() > 0 })
	}
	close(release)
	eventually(t, 2*time.Minute, "the slow endpoints got everything", func() bool {
		for _, s := range sinks[:slow] {
			if len(s.missing(ids)) > 0 {
				return false
			}
		}
		return true
	})
	tr := g.settledTruth(events * all)
	tr.check(g, ids, endpoints, 0)
}
