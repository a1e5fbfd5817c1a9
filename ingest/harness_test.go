package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/postrider/postrider/internal/auth"
	"github.com/postrider/postrider/internal/httpd"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// net/http's own, gone when their connections idle out.
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		// fasthttp's worker pool stops its cleaner at its next tick.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
	)
}

// fakeView is a registry view in memory.
type fakeView struct {
	mu       sync.Mutex
	err      error
	hang     func(context.Context, registry.Ref) // may block
	asked    map[registry.Ref]int
	entities map[registry.Ref]string
}

func (v *fakeView) Entities(ctx context.Context, refs []registry.Ref) ([]registry.Found, error) {
	v.mu.Lock()
	hang := v.hang
	for _, ref := range refs {
		v.asked[ref]++
	}
	v.mu.Unlock()
	if hang != nil {
		hang(ctx, refs[0])
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return nil, v.err
	}
	out := make([]registry.Found, len(refs))
	for i, ref := range refs {
		value, ok := v.entities[ref]
		out[i] = registry.Found{
			Marker: registry.Marker{Generation: 1, Next: 1, Complete: true},
			Entry:  registry.Entry{Value: []byte(value)}, OK: ok,
		}
	}
	return out, nil
}

func (v *fakeView) setErr(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = err
}

func (v *fakeView) put(tb testing.TB, ref registry.Ref, entity any) {
	tb.Helper()
	value, err := json.Marshal(entity)
	if err != nil {
		tb.Fatal(err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.entities[ref] = string(value)
}

func (v *fakeView) putTenant(tb testing.TB, tenant registry.Tenant) {
	tb.Helper()
	v.put(tb, registry.Ref{Tenant: tenant.ID, Entity: registry.TenantEntity}, tenant)
}

func (v *fakeView) addKey(tb testing.TB, tenant string, role registry.Role) (token string) {
	tb.Helper()
	id, token, hash := auth.NewToken()
	v.put(tb, registry.Ref{Tenant: id, Entity: id}, registry.Key{ID: id, Tenant: tenant, Role: role, Hash: hash})
	return token
}

// fakeKafka acknowledges at once, unless err or hold say something else.
type fakeKafka struct {
	mu      sync.Mutex
	err     func(*kgo.Record) error
	hold    bool
	held    []func()
	records []*kgo.Record
}

func (k *fakeKafka) Produce(_ context.Context, r *kgo.Record, promise func(*kgo.Record, error)) {
	k.mu.Lock()
	r.Partition, r.Offset = 3, int64(len(k.records))
	var err error
	if k.err != nil {
		err = k.err(r)
	}
	k.records = append(k.records, r)
	answer := func() { promise(r, err) }
	hold := k.hold
	if hold {
		k.held = append(k.held, answer)
	}
	k.mu.Unlock()
	if !hold {
		answer()
	}
}

func (k *fakeKafka) produced() []*kgo.Record {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]*kgo.Record(nil), k.records...)
}

// releaseAll lets what was held be acknowledged.
func (k *fakeKafka) releaseAll() {
	k.mu.Lock()
	held := k.held
	k.held, k.hold = nil, false
	k.mu.Unlock()
	for _, answer := range held {
		answer()
	}
}

// gateway is ingest behind a real listener.
type gateway struct {
	url      string
	view     *fakeView
	kafka    *fakeKafka
	server   *Server
	client   *http.Client
	producer string // a producer's key of tenant acme
	admin    string // an admin's key of tenant acme
	platform string // a producer's key of the platform
}

const adminKey = "the-configured-admin-key"

// start runs a gateway with the tenants acme and other, and leaving, which is
// being deleted.
func start(tb testing.TB, cfg Config, deps Deps) *gateway {
	tb.Helper()
	g := &gateway{view: &fakeView{entities: make(map[registry.Ref]string), asked: make(map[registry.Ref]int)}, kafka: &fakeKafka{}}
	g.view.putTenant(tb, registry.Tenant{ID: "acme"})
	g.view.putTenant(tb, registry.Tenant{ID: "other"})
	g.view.putTenant(tb, registry.Tenant{ID: "leaving", Deleting: true})
	g.producer = g.view.addKey(tb, "acme", registry.RoleProducer)
	g.admin = g.view.addKey(tb, "acme", registry.RoleAdmin)
	g.platform = g.view.addKey(tb, registry.Platform, registry.RoleProducer)

	if cfg.Topic == "" {
		cfg.Topic = "events"
	}
	if deps.Producer == nil {
		deps.Producer = g.kafka
	}
	deps.Keys = auth.New(auth.Config{View: g.view, AdminKey: adminKey, Fresh: time.Nanosecond})
	var err error
	if g.server, err = New(cfg, deps); err != nil {
		tb.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	web := httpd.New(httpd.Config{})
	g.server.Register(web.App())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(ctx, ln) }()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	tb.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := <-ended; err != nil {
			tb.Errorf("serve: %v", err)
		}
	})
	g.url = "http://" + ln.Addr().String() + Path
	g.client = &http.Client{Transport: transport}
	return g
}

// answered is an answer, decoded.
type answered struct {
	status int
	header http.Header
	raw    string

	httpd.Problem
	Position string   `json:"position"`
	Accepted int      `json:"accepted"`
	Results  []result `json:"results"`
}

// headers are header names and values in turn.
type headers []string

// post sends a body with tenant acme's producer key, unless headers name
// another Authorization.
func (g *gateway) post(tb testing.TB, body string, h headers) answered {
	tb.Helper()
	return g.do(tb, http.MethodPost, []byte(body), h)
}

func (g *gateway) postJSON(tb testing.TB, body string) answered {
	tb.Helper()
	return g.post(tb, body, headers{"Content-Type", "application/json"})
}

func (g *gateway) do(tb testing.TB, method string, body []byte, h headers) answered {
	tb.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, g.url, bytes.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+g.producer)
	for i := 0; i < len(h); i += 2 {
		req.Header.Set(h[i], h[i+1])
		if h[i+1] == "" {
			req.Header.Del(h[i])
		}
	}
	res, err := g.client.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		tb.Fatal(err)
	}
	if !bytes.HasSuffix(raw, []byte("}\n")) {
		tb.Errorf("answer %q: want one line with its end", raw)
	}
	a := answered{status: res.StatusCode, header: res.Header, raw: string(raw)}
	if err := json.Unmarshal(raw, &a); err != nil {
		tb.Fatalf("status %d, answer %q: %v", res.StatusCode, raw, err)
	}
	return a
}

// event reads a produced record back, as fan-out will.
func event(tb testing.TB, r *kgo.Record) schemas.Event {
	tb.Helper()
	e, err := schemas.DecodeEvent(r.Value, r.Headers)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

func waitFor(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			tb.Fatalf("waited in vain until %s", what)
		}
	}
}

// discard acknowledges everything and keeps nothing.
type discard struct{}

func (discard) Produce(_ context.Context, r *kgo.Record, promise func(*kgo.Record, error)) {
	promise(r, nil)
}

// raw posts a body and returns the status alone.
func (g *gateway) raw(tb testing.TB, body []byte, h headers) int {
	tb.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, g.url, bytes.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+g.producer)
	req.Header.Set(h[0], h[1])
	res, err := g.client.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res.StatusCode
}
