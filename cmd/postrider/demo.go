package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/postrider/postrider/internal/signature"
	"github.com/postrider/postrider/schemas"
)

const (
	demoTenant = "demo"
	// demoStart bounds the wait for the gateway.
	demoStart = 2 * time.Minute
	demoPoll  = 100 * time.Millisecond
	demoPace  = 400 * time.Millisecond // between two events
)

// demoEndpoint is one endpoint of the show and the receiver behind it.
type demoEndpoint struct {
	name, about string
	body        settings
	failFirst   int

	id       string
	received atomic.Int64
	verified atomic.Int64
}

func demoEndpoints() []*demoEndpoint {
	return []*demoEndpoint{
		{name: "healthy", about: "gets every event", body: settings{}},
		{
			name: "flaky", about: "stripe.* only; refuses each event twice, retried within seconds", failFirst: 2,
			body: settings{
				"subscriptions": []settings{{"types": []string{"stripe.*"}}},
				"retry":         settings{"schedule": []string{"1s", "2s"}},
			},
		},
		{
			name: "filtered", about: "shopify.* with a total_price above 100",
			body: settings{"subscriptions": []settings{{
				"types": []string{"shopify.*"}, "filter": "has(data.total_price) && double(data.total_price) > 100.0",
			}}},
		},
	}
}

// demo shows what the gateway does. It is a client like any other: it uses
// nothing but the public HTTP API.
type demo struct {
	api       string
	adminKey  string
	show      *demoShow
	pace      time.Duration
	endpoints []*demoEndpoint

	client   *apiClient
	token    string
	attempts chan schemas.Attempt
	live     chan struct{} // closed when every later attempt will be seen
}

func newDemo(api, adminKey string, term *terminal) *demo {
	return &demo{
		api: api, adminKey: adminKey, show: &demoShow{term: term, names: map[string]string{}}, pace: demoPace,
		endpoints: demoEndpoints(), attempts: make(chan schemas.Attempt, 256), live: make(chan struct{}),
	}
}

// run shows until ctx ends, which is no error.
func (d *demo) run(ctx context.Context) error {
	err := d.play(ctx)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // asked to end
	}
	return err
}

func (d *demo) play(ctx context.Context) error {
	client, err := newAPIClient(d.api, d.adminKey)
	if err != nil {
		return err
	}
	d.client = client
	if err := d.awaitGateway(ctx); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	routes := http.NewServeMux()
	if err := d.setUp(ctx, "http://"+ln.Addr().String(), routes); err != nil {
		_ = ln.Close()
		return fmt.Errorf("demo: set up: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return serve(ctx, ln, routes) })
	group.Go(func() error { return d.followAttempts(ctx) })
	group.Go(func() error { return d.perform(ctx) })
	return group.Wait()
}

// awaitGateway polls until the gateway is ready.
func (d *demo) awaitGateway(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoStart)
	defer cancel()
	for {
		_, err := d.client.do(ctx, apiRequest{method: http.MethodGet, path: "/readyz"})
		if err == nil {
			return nil
		}
		if !wait(ctx, demoPoll) {
			return fmt.Errorf("the gateway is not ready: %w", err)
		}
	}
}

// setUp makes the tenant anew, with its key and endpoints.
func (d *demo) setUp(ctx context.Context, receivers string, routes *http.ServeMux) error {
	tenant := apiPath("v1", "tenants", demoTenant)
	if _, err := d.client.send(ctx, http.MethodPut, tenant, settings{"name": "Demo"}); err != nil {
		return err
	}
	for _, of := range []string{"endpoints", "keys"} { // of an earlier show
		if err := d.clear(ctx, tenant+"/"+of); err != nil {
			return err
		}
	}
	var key struct {
		Token string `json:"token"`
	}
	if err := d.create(ctx, tenant+"/keys", settings{"role": "producer", "name": "demo"}, &key); err != nil {
		return err
	}
	d.token = key.Token
	for _, e := range d.endpoints {
		if err := d.setUpEndpoint(ctx, e, receivers, routes); err != nil {
			return err
		}
		d.show.names[e.id] = e.name
	}
	return nil
}

func (d *demo) setUpEndpoint(ctx context.Context, e *demoEndpoint, receivers string, routes *http.ServeMux) error {
	path := apiPath("v1", "tenants", demoTenant, "endpoints")
	e.body["url"], e.body["description"] = receivers+"/"+e.name, e.name+": "+e.about
	var made struct {
		ID string `json:"id"`
	}
	if err := d.create(ctx, path, e.body, &made); err != nil {
		return err
	}
	e.id = made.ID
	text, err := readSecret(ctx, d.client, path+apiPath(e.id, "secret"))
	if err != nil {
		return err
	}
	v, err := parseVerifier(signature.Spec{}, text)
	if err != nil {
		return err
	}
	r := newReceiver(verifiers{v}, func(a arrival) {
		e.received.Add(1)
		if a.Verified == "yes" {
			e.verified.Add(1)
		}
	})
	r.failFirst = e.failFirst
	routes.Handle("/"+e.name, r)
	return nil
}

func (d *demo) create(ctx context.Context, path string, body settings, into any) error {
	answer, err := d.client.send(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	return json.Unmarshal(answer, into)
}

// clear deletes all entities of a collection.
func (d *demo) clear(ctx context.Context, path string) error {
	rows, err := d.client.list(ctx, path, nil, 1000)
	if err != nil {
		return err
	}
	for _, row := range rows {
		var entity struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(row, &entity); err != nil {
			return err
		}
		if _, err := d.client.send(ctx, http.MethodDelete, path+apiPath(entity.ID), nil); err != nil {
			return err
		}
	}
	return nil
}

// followAttempts hands the tenant's attempts to perform.
func (d *demo) followAttempts(ctx context.Context) error {
	path := apiPath("v1", "tenants", demoTenant, "attempts", "stream")
	live := d.live
	return newStream(d.client, apiRequest{method: http.MethodGet, path: path}, func(e streamEvent) error {
		if e.comment == "ready" && live != nil {
			close(live)
			live = nil
		}
		if e.name != "attempt" {
			return nil
		}
		a, err := schemas.DecodeAttempt([]byte(e.data))
		if err != nil {
			return err
		}
		select {
		case d.attempts <- a:
		case <-ctx.Done():
		}
		return nil
	}).follow(ctx)
}

// perform sends the events and shows what becomes of them; afterwards it shows
// what others send, until ctx ends.
func (d *demo) perform(ctx context.Context) error {
	list, err := demoSamples()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-d.live:
	}
	d.show.opening(d.endpoints)
	pace := time.NewTicker(d.pace)
	defer pace.Stop()
	next, open := pace.C, 0 // open counts deliveries without an end
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-d.attempts:
			d.show.attempt(&a)
			if a.Outcome.Final() {
				open--
			}
		case <-next:
			made, err := d.send(ctx, list[0])
			if err != nil {
				return fmt.Errorf("demo: send %s: %w", list[0].eventType, err)
			}
			open += made
			if list = list[1:]; len(list) == 0 {
				next = nil
			}
		}
		if list != nil && len(list) == 0 && open <= 0 {
			list = nil
			d.show.closing(d)
		}
	}
}

// send sends one event and returns how many deliveries it will have.
func (d *demo) send(ctx context.Context, s sample) (int, error) {
	head, err := json.Marshal(settings{"type": s.eventType})
	if err != nil {
		return 0, err
	}
	body := withData(head, s.data)
	answer, err := d.client.do(ctx, apiRequest{
		method: http.MethodPost, path: apiPath("v1", "tenants", demoTenant, "subscriptions", "match"), body: body,
	})
	if err != nil {
		return 0, err
	}
	var found matchAnswer
	if err := json.Unmarshal(answer, &found); err != nil {
		return 0, err
	}
	began := time.Now()
	answer, err = d.client.do(ctx, apiRequest{
		method: http.MethodPost, path: "/v1/events", body: body, header: map[string]string{"Authorization": "Bearer " + d.token},
	})
	if err != nil {
		return 0, err
	}
	var accepted struct{ ID, Position string }
	if err := json.Unmarshal(answer, &accepted); err != nil {
		return 0, err
	}
	d.show.accepted(s, accepted.ID, time.Since(began))
	d.show.matched(s, &found)
	return found.endpoints(), nil
}
