package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postrider/postrider/e2e/services"
)

// chaosRun is how a run is asked for: make chaos sets it by its environment.
type chaosRun struct {
	duration time.Duration
	seed     uint64
	rate     int
}

// chaosFromEnv reads CHAOS, CHAOS_DURATION, CHAOS_SEED and CHAOS_RATE. Without
// CHAOS it is a short run that is always the same.
func chaosFromEnv(t *testing.T) chaosRun {
	t.Helper()
	run := chaosRun{duration: 30 * time.Second, seed: 217, rate: 40}
	if os.Getenv("CHAOS") == "" {
		return run
	}
	run = chaosRun{duration: 5 * time.Minute, seed: uint64(time.Now().UnixNano()) % 1_000_000, rate: 60}
	var err error
	if v := os.Getenv("CHAOS_DURATION"); v != "" {
		if run.duration, err = time.ParseDuration(v); err != nil || run.duration < 15*time.Second || run.duration > time.Hour {
			t.Fatalf("CHAOS_DURATION %q: want 15s to 1h", v)
		}
	}
	if v := os.Getenv("CHAOS_SEED"); v != "" {
		if run.seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("CHAOS_SEED %q: want a number", v)
		}
	}
	if v := os.Getenv("CHAOS_RATE"); v != "" {
		if run.rate, err = strconv.Atoi(v); err != nil || run.rate < 6 || run.rate > 2000 {
			t.Fatalf("CHAOS_RATE %q: want 6 to 2000 events a second", v)
		}
	}
	return run
}

// chaos is a run: an installation on three brokers with proxies everywhere, its
// load, its endpoints and its faults.
type chaos struct {
	t     *testing.T
	run   chaosRun
	g     *gateway
	kafka *services.Kafka
	rdb   *redis.Client
	net   *network
	log   *topicLog
	load  *knowingLoad

	receivers *receivers
	urls      []string // of the receivers, each behind a proxy
	targets   []target
	left      []string // kinds that this build has no settings for
	operator  *operator

	started    time.Time // of the installation
	began      time.Time // of the load
	broker     int       // the one that has a fault
	background sync.WaitGroup
	claimsLost bool
	crashes    []string // processes that ended by themselves, and were started again
	slowEnds   int      // processes that did not end within their drain time
	faults     []*fault

	mu    sync.Mutex
	names map[string]string // first part of a path → endpoint
}

// Random kills, restarts, freezes and cuts of everything under load; afterwards
// each event and each delivery is accounted for, from the topics alone. `make
// chaos` runs it for five minutes; without CHAOS in the environment it is short
// and always the same.
func TestChaos(t *testing.T) {
	run := chaosFromEnv(t)
	t.Logf("chaos: CHAOS_SEED=%d CHAOS_DURATION=%s CHAOS_RATE=%d", run.seed, run.duration, run.rate)
	c := newChaos(t, run)
	c.prepare()
	c.operate()
	c.judge()
}

// newChaos starts brokers, Redis, proxies and processes.
func newChaos(t *testing.T, run chaosRun) *chaos {
	t.Helper()
	c := &chaos{t: t, run: run, started: time.Now(), net: newNetwork(t), names: map[string]string{}}
	opts := services.Options{Brokers: 3}
	for _, instance := range linked() {
		opts.Ways = append(opts.Ways, c.net.way(instance+"/kafka"))
	}
	k, err := services.StartKafka(t.Context(), opts)
	need(t, err == nil, fmt.Sprintf("a real Kafka: %v", err))
	t.Cleanup(k.Stop)
	c.kafka, c.g = k, newGatewayOn(t, k.Brokers)
	c.g.strict, c.g.ways = true, map[string]way{}
	t.Cleanup(c.keepLogs)
	c.rdb = c.g.rdb()
	for i, instance := range linked() {
		url, err := c.net.redis(instance+"/redis", c.g.url)
		if err != nil {
			t.Fatal(err)
		}
		c.g.ways[instance] = way{k.Ways[i], url}
	}
	for _, instance := range instances() {
		role, _, _ := strings.Cut(instance, "-")
		c.g.start(role, instance)
	}
	for _, instance := range instances() {
		c.g.ready(instance)
	}
	return c
}

// keepLogs copies the brokers' logs to those of the processes where the test
// failed.
func (c *chaos) keepLogs() {
	if !c.t.Failed() {
		return
	}
	for i := range c.kafka.Brokers {
		if log, err := os.ReadFile(c.kafka.Log(i)); err == nil {
			_ = os.WriteFile(filepath.Join(c.g.logDir(), fmt.Sprintf("broker-%d.log", i+1)), log, 0o600)
		}
	}
	c.t.Logf("again: CHAOS_SEED=%d CHAOS_DURATION=%s CHAOS_RATE=%d make chaos; logs: %s", c.run.seed, c.run.duration, c.run.rate, c.g.logDir())
}

// prepare makes receivers, tenants and endpoints.
func (c *chaos) prepare() {
	c.receivers = &receivers{answer: map[string]func(http.ResponseWriter, *http.Request) int{}}
	server := httptest.NewServer(c.receivers)
	c.t.Cleanup(server.Close)
	for _, name := range receiverNames() {
		address, err := c.net.link(name, server.Listener.Addr().String())
		if err != nil {
			c.t.Fatal(err)
		}
		c.urls = append(c.urls, "http://"+address)
	}
	c.g.tenant()
	c.g.insist("PUT", "/v1/tenants/doomed", map[string]any{"name": "Doomed"}, nil)
	has := c.g.endpointMembers()
	for i, k := range kinds() {
		if k.needs != "" && !has[k.needs] {
			c.left = append(c.left, k.name)
			continue
		}
		c.receivers.answer[k.name] = k.answer
		c.targets = append(c.targets, target{k, c.make(i, k, has["breaker"])})
	}
	var doomed struct {
		ID string `json:"id"`
	}
	c.g.insist("POST", "/v1/tenants/doomed/endpoints", settings{"url": c.url(0) + "/doomed", "timeout": "3s"}, &doomed)
	c.know("doomed", doomed.ID)
	var err error
	if c.log, err = newTopicLog(c.g); err != nil {
		c.t.Fatal(err)
	}
}

func (c *chaos) make(i int, k kind, breaker bool) string {
	s := settings{"timeout": "3s", "retry": patient()}
	if breaker {
		s["breaker"] = briefBreaker()
	}
	maps.Copy(s, k.settings)
	subscription := map[string]any{"types": k.types}
	if slices.Contains(k.types, typeFiltered) {
		subscription["filter"] = "data.total > 100"
	}
	s["subscriptions"] = []any{subscription}
	id := c.g.endpoint(c.url(i)+"/"+k.name, s)
	if k.state != "" {
		c.g.verb(id, k.state)
	}
	c.know(k.name, id)
	return id
}

// url is that of a receiver.
func (c *chaos) url(i int) string { return c.urls[i%len(c.urls)] }

// know remembers which endpoint a path leads to.
func (c *chaos) know(name, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names[name] = id
}

// id returns the endpoint of a kind.
func (c *chaos) id(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.names[name]
}

// endpointMembers returns the settings that endpoints have in this build.
func (g *gateway) endpointMembers() map[string]bool {
	g.t.Helper()
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any `json:"properties"`
			} `json:"schemas"`
		} `json:"components"`
	}
	g.insist("GET", "/openapi.json", nil, &doc)
	out := map[string]bool{}
	for name := range doc.Components.Schemas["NewEndpoint"].Properties {
		out[name] = true
	}
	if !out["url"] {
		g.t.Fatal("the API's description has no NewEndpoint with a url")
	}
	return out
}

// awaitReady waits until every process is ready, and says why one is not.
func (c *chaos) awaitReady() {
	c.t.Helper()
	why := ""
	defer func() {
		if c.t.Failed() {
			c.t.Logf("not ready: %s", why)
		}
	}()
	eventually(c.t, 2*time.Minute, "all processes are ready", func() bool {
		c.supervise()
		for _, instance := range instances() {
			got, err := c.g.call(instance, "GET", "/readyz", nil, nil)
			if err != nil || got.status != http.StatusOK {
				why = fmt.Sprintf("%s: %v %s", instance, err, got.body)
				return false
			}
		}
		return true
	})
}

// operate runs load, operator and faults for the time of the run.
func (c *chaos) operate() {
	following, stop := context.WithCancel(c.t.Context())
	var follower sync.WaitGroup
	follower.Go(func() { c.log.follow(following) })
	defer follower.Wait()
	defer stop()

	c.t.Logf("ready after %s", time.Since(c.started).Round(time.Second))
	c.faults = c.plan(c.run.seed, c.run.duration)
	c.began = time.Now()
	c.load = c.g.startLoad(c.run.rate, c.run.seed)
	c.operator = &operator{c: c, acts: map[string]int{}}
	operating, rest := context.WithTimeout(c.t.Context(), c.run.duration)
	defer rest()
	c.operator.start(operating)
	c.operator.done.Go(func() {
		wait(operating, c.run.duration/2)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(operating), 2*time.Minute)
		defer cancel()
		c.operator.act(ctx, "delete tenant", ask{method: "DELETE", path: "/v1/tenants/doomed"}, nil)
	})
	c.unleash(c.faults)
	c.awaitReady()
	settling, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	c.operator.settle(settling)
	c.load.end()
}
