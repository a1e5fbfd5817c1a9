package control

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/postrider/postrider/internal/auth"
	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/httpd"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/testkit"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(
		m,
		// fasthttp's own: one wakes every 10 s to see that its server has ended,
		// the other keeps the Date header for the whole process.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
	)
}

const adminKey = "the-admin-key-of-these-tests"

// testDB keeps a shared Redis apart from the tests of other packages.
const testDB = 9

// rig is a control role on an empty Kafka and Redis, behind a real listener.
type rig struct {
	t      *testing.T
	kafka  broker.Config
	layout broker.Layout
	client *kgo.Client
	redis  *redis.Client
	view   *registry.View
	deps   Deps
	server *Server
	now    atomic.Pointer[time.Time] // nil: the real time
	url    string
	http   *http.Client
	// stopView stops the projector.
	stopView func()
}

// newRig starts everything; the options change control's configuration.
func newRig(t *testing.T, options ...func(*Config)) *rig {
	t.Helper()
	r := newBackend(t)
	r.start(options...)
	return r
}

// newBackend starts all but control.
func newBackend(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, kafka: testkit.Kafka(t), redis: startRedis(t), http: &http.Client{Timeout: time.Minute}}
	cl, err := r.kafka.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	report, err := broker.Ensure(t.Context(), cl, r.kafka)
	if err != nil {
		t.Fatal(err)
	}
	r.client, r.layout = cl, report.Layout
	topic := r.kafka.Topics().Registry
	r.view = registry.NewView(r.redis, report.TopicIDs[topic])
	keyset, err := registry.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	seal, err := registry.NewSealer(keyset)
	if err != nil {
		t.Fatal(err)
	}
	client, err := egress.New(egress.Config{Resolver: resolver{}, AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}})
	if err != nil {
		t.Fatal(err)
	}
	r.deps = Deps{
		Writer: registry.NewWriter(registry.WriterConfig{Client: cl, Topic: topic, Redis: r.redis, View: r.view}),
		View:   r.view, Auth: auth.New(auth.Config{View: r.view, AdminKey: adminKey}), Sealer: seal, Egress: client,
	}
	projector := registry.NewProjector(registry.ProjectorConfig{Kafka: r.kafka, Redis: r.redis})
	r.stopView = testkit.Background(t, projector.Run)
	t.Cleanup(r.http.CloseIdleConnections)
	return r
}

// start adds a control role to the backend, and points the client at it.
func (r *rig) start(options ...func(*Config)) (stop func()) {
	r.t.Helper()
	cfg := Config{Kafka: r.kafka, Layout: r.layout, Clock: func() time.Time {
		if at := r.now.Load(); at != nil {
			return *at
		}
		return time.Now()
	}}
	for _, o := range options {
		o(&cfg)
	}
	server, err := New(cfg, r.deps)
	if err != nil {
		r.t.Fatal(err)
	}
	web := httpd.New(httpd.Config{})
	if err := server.Register(web.App()); err != nil {
		r.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.server, r.url = server, "http://"+ln.Addr().String()
	r.t.Cleanup(func() {
		if err := server.Close(); err != nil {
			r.t.Error(err)
		}
	})
	stopWeb := testkit.Background(r.t, func(ctx context.Context) error { return web.Serve(ctx, ln) })
	stopRun := testkit.Background(r.t, server.Run)
	return func() { stopRun(); stopWeb() }
}

func startRedis(t *testing.T) *redis.Client {
	t.Helper()
	if rdb, ok := testkit.RealRedis(t, testDB); ok {
		return rdb
	}
	return testkit.EmbeddedRedis(t, registry.StartEmbedded)
}

// resolver knows three hosts.
type resolver struct{}

func (resolver) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	switch host {
	case "example.com", "hooks.example.com":
		return []netip.Addr{netip.MustParseAddr("93.184.215.14")}, nil
	case "inside.example.com":
		return []netip.Addr{netip.MustParseAddr("10.1.2.3")}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// reply is an answer of the API.
type reply struct {
	status int
	header http.Header
	raw    []byte
	body   map[string]any
}

func (a reply) text(name string) string { s, _ := a.body[name].(string); return s }

// option changes a request.
type option func(*http.Request)

func with(name, value string) option {
	return func(q *http.Request) { q.Header.Set(name, value) }
}

func as(token string) option { return with("Authorization", "Bearer "+token) }

// call makes a request as the admin. A string body is sent as it is, any other is
// encoded.
func (r *rig) call(method, path string, body any, options ...option) reply {
	r.t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		doc, err := json.Marshal(b)
		if err != nil {
			r.t.Fatal(err)
		}
		reader = bytes.NewReader(doc)
	}
	q, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, reader)
	if err != nil {
		r.t.Fatal(err)
	}
	if reader != nil {
		q.Header.Set("Content-Type", "application/json")
	}
	as(adminKey)(q)
	for _, o := range options {
		o(q)
	}
	resp, err := r.http.Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	out := reply{status: resp.StatusCode, header: resp.Header, raw: raw}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &out.body); err != nil {
			r.t.Fatalf("%s %s: status %d, body %q: %v", method, path, out.status, raw, err)
		}
	}
	return out
}

// must is call for a request that has to succeed with the status.
func (r *rig) must(status int, method, path string, body any, options ...option) reply {
	r.t.Helper()
	out := r.call(method, path, body, options...)
	if out.status != status {
		r.t.Fatalf("%s %s: status %d, want %d: %s", method, path, out.status, status, out.raw)
	}
	return out
}

// tenant makes a tenant and returns the path of what belongs to it.
func (r *rig) tenant(id string) string {
	r.t.Helper()
	r.must(http.StatusCreated, http.MethodPut, "/v1/tenants/"+id, map[string]any{"name": id})
	return "/v1/tenants/" + id
}

// endpoint makes an endpoint and returns its id and path.
func (r *rig) endpoint(tenant string) (id, path string) {
	r.t.Helper()
	made := r.must(http.StatusCreated, http.MethodPost, tenant+"/endpoints", map[string]any{"url": "https://example.com/hooks"})
	return made.text("id"), tenant + "/endpoints/" + made.text("id")
}
