package deliver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/signature"
	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/internal/testkit"
	"github.com/postrider/postrider/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a deliver role's surroundings: Kafka, Redis with a live view, and the
// keys to both.
type rig struct {
	t      *testing.T
	kafka  broker.Config
	layout broker.Layout
	topics broker.Topics
	client *kgo.Client
	view   *registry.View
	rdb    *redis.Client
	sealer *registry.Sealer
	log    *slog.Logger
	count  int
}

// onEach runs a test on the embedded parts, and on real ones where
// KAFKA_BROKERS and REDIS_URL name them.
func onEach(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Run("embedded", func(t *testing.T) {
		cfg := testkit.EmbeddedKafka(t)
		e, err := registry.StartEmbedded()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.Close)
		test(t, newRig(t, cfg, redis.NewClient(&redis.Options{Addr: e.Addr()})))
	})
	if os.Getenv("KAFKA_BROKERS") == "" || os.Getenv("REDIS_URL") == "" {
		return
	}
	t.Run("kafka", func(t *testing.T) {
		cfg, _ := testkit.RealKafka(t)
		rdb, _ := testkit.RealRedis(t, testDB)
		test(t, newRig(t, cfg, rdb))
	})
}

// testDB keeps a shared Redis apart from the tests of other packages.
const testDB = 3

func newRig(t *testing.T, cfg broker.Config, rdb *redis.Client) *rig {
	t.Helper()
	level := slog.LevelWarn
	if os.Getenv("DELIVER_LOG") != "" {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))
	cfg.Logger = slog.New(slog.DiscardHandler)
	cl, err := cfg.NewClient(kgo.RecordPartitioner(partitioner(cfg.Topics())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	t.Cleanup(func() { _ = rdb.Close() })
	report, err := broker.Ensure(t.Context(), cl, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for g, topics := range Groups(cfg.Topics()) {
		if err := broker.EnsureGroup(t.Context(), cl, cfg, g, topics...); err != nil {
			t.Fatal(err)
		}
	}
	id, err := broker.TopicID(t.Context(), cl, cfg.Topics().Registry)
	if err != nil {
		t.Fatal(err)
	}
	keyset, err := registry.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := registry.NewSealer(keyset)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		t: t, kafka: cfg, layout: report.Layout, topics: cfg.Topics(), client: cl,
		view: registry.NewView(rdb, id), rdb: rdb, sealer: sealer, log: log,
	}
	p := registry.NewProjector(registry.ProjectorConfig{Kafka: cfg, Redis: rdb})
	r.background(p.Run)
	return r
}

// background runs fn until the test ends.
func (r *rig) background(fn func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := fn(ctx); err != nil && ctx.Err() == nil {
			r.t.Errorf("background: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	r.t.Cleanup(stop)
	return stop
}

// worker starts a worker and returns what stops it.
func (r *rig) worker(name string, change ...func(*Config, *Deps)) (w *Worker, stop func()) {
	r.t.Helper()
	eg, err := egress.New(egress.Config{AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		r.t.Fatal(err)
	}
	cfg := Config{Instance: name, Drain: 5 * time.Second}
	deps := Deps{
		Broker: r.kafka, Layout: r.layout, View: r.view, Sealer: r.sealer, Egress: eg, Health: telemetry.NewHealth(),
		Logger: r.log.With("worker", name), Tracer: tracenoop.NewTracerProvider().Tracer(""), Meter: noop.NewMeterProvider().Meter(""),
	}
	for _, c := range change {
		c(&cfg, &deps)
	}
	w, err = New(cfg, deps)
	if err != nil {
		r.t.Fatal(err)
	}
	end := r.background(w.Run)
	r.t.Cleanup(eg.CloseIdleConnections)
	return w, end
}

// endpoint stores an endpoint and returns its id and its secret.
func (r *rig) endpoint(url string, change ...func(*registry.Endpoint)) (*registry.Endpoint, string) {
	r.t.Helper()
	secret := signature.NewSecret()
	e := &registry.Endpoint{ID: schemas.NewID("ep"), Tenant: "acme", URL: url, State: registry.StateEnabled, EnabledAfter: -1}
	for _, c := range change {
		c(e)
	}
	sealed, err := r.sealer.Seal([]byte(secret), e.Tenant, e.ID, secretField)
	if err != nil {
		r.t.Fatal(err)
	}
	e.Secrets = []registry.Secret{{Sealed: sealed, CreatedAt: time.Now()}}
	r.store(e)
	return e, secret
}

// store writes a version of an endpoint and returns its offset.
func (r *rig) store(e *registry.Endpoint) int64 { return r.put(e.Tenant, e.ID, e) }

// put writes a registry record; a nil value is a tombstone.
func (r *rig) put(tenant, entity string, value any) int64 {
	r.t.Helper()
	rec := &kgo.Record{Topic: r.topics.Registry, Key: registry.EncodeKey(tenant, entity)}
	if value != nil {
		doc, err := json.Marshal(value)
		if err != nil {
			r.t.Fatal(err)
		}
		rec.Value = doc
	}
	if err := r.client.ProduceSync(r.t.Context(), rec).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
	return rec.Offset
}

// delivery returns a fresh delivery for an endpoint.
func (r *rig) delivery(endpoint string) *schemas.Delivery {
	r.count++
	e := schemas.Event{
		ID: fmt.Sprintf("e%d", r.count), Source: "/test", Type: "order.paid", Tenant: "acme",
		Time: "2026-11-22T10:00:00Z", Data: fmt.Appendf(nil, `{"n":%d}`, r.count),
	}
	id := e.EventID()
	return &schemas.Delivery{
		Event: e, ID: schemas.DeliveryID(id, endpoint, ""), EventID: id, Endpoint: endpoint,
		Position: schemas.Position{Offset: int64(r.count)}, Registry: -1, Attempt: 1, MadeAt: time.Now(),
	}
}

// send writes deliveries, all at once, and returns them.
func (r *rig) send(deliveries ...*schemas.Delivery) {
	r.t.Helper()
	records := make([]*kgo.Record, len(deliveries))
	for i, d := range deliveries {
		records[i] = &kgo.Record{
			Topic: r.topics.Deliveries, Partition: r.layout.Partition(d.Lane()), Key: []byte(d.Lane()),
			Value: d.Event.Data, Headers: schemas.AppendDeliveryHeaders[kgo.RecordHeader](nil, d),
		}
	}
	if err := r.client.ProduceSync(r.t.Context(), records...).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

// cancel asks for a delivery of an endpoint to be cancelled, as control does.
func (r *rig) cancel(endpoint, delivery string) {
	r.t.Helper()
	rec := &kgo.Record{
		Topic: r.topics.Lanes, Partition: r.layout.Partition(endpoint), Key: schemas.CancelKey(endpoint, delivery), Value: []byte(`{"v":1}`),
	}
	if err := r.client.ProduceSync(r.t.Context(), rec).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

// deliveries returns n fresh deliveries for an endpoint.
func (r *rig) deliveries(endpoint string, n int) []*schemas.Delivery {
	out := make([]*schemas.Delivery, n)
	for i := range out {
		out[i] = r.delivery(endpoint)
	}
	return out
}

// attempts reads everything in the topic attempts.
func (r *rig) attempts() []schemas.Attempt {
	r.t.Helper()
	var out []schemas.Attempt
	r.scan(r.topics.Attempts, func(rec *kgo.Record) {
		a, err := schemas.DecodeAttempt(rec.Value)
		if err != nil {
			r.t.Errorf("attempt record: %v", err)
		}
		out = append(out, a)
	})
	return out
}

// scan gives every committed record of a topic that shares the layout to fn.
func (r *rig) scan(topic string, fn func(*kgo.Record)) {
	r.t.Helper()
	reader, err := broker.NewPointReader(r.kafka)
	if err != nil {
		r.t.Fatal(err)
	}
	defer reader.Close()
	w := &Worker{reader: reader}
	for p := range r.layout.Deliveries {
		end, err := broker.LastStableOffset(r.t.Context(), r.client, topic, p)
		if err != nil {
			r.t.Fatal(err)
		}
		if err := w.readAll(r.t.Context(), topic, p, logSpan{0, end}, fn); err != nil {
			r.t.Fatal(err)
		}
	}
}

// outcomes counts the outcomes in the topic attempts.
func (r *rig) outcomes() map[schemas.Outcome]int {
	out := map[schemas.Outcome]int{}
	for _, a := range r.attempts() {
		out[a.Outcome] += max(1, int(a.Count))
	}
	return out
}

// eventually waits until a condition holds, far longer than anything here takes.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			r.t.Fatalf("not reached: %s; outcomes %v", what, r.outcomes())
		}
		<-tick.C
	}
}

// sink is a receiver that remembers what came.
type sink struct {
	*httptest.Server
	mu     sync.Mutex
	got    []received
	header http.Header // of every answer
	answer func(n int, r *http.Request) int
}

// bodyHeader has the beginning of the body for who answers.
const bodyHeader = "X-Body"

// received is one request at a sink.
type received struct {
	id, attempt string
	at          time.Time
	header      http.Header
	body        []byte
}

func newSink(t *testing.T, answer func(n int, r *http.Request) int) *sink {
	s := &sink{answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.got = append(s.got, received{r.Header.Get("Webhook-Id"), r.Header.Get("Postrider-Attempt"), time.Now(), r.Header.Clone(), body})
		n := len(s.got)
		s.mu.Unlock()
		maps.Copy(w.Header(), s.header)
		if s.answer != nil {
			r.Header.Set(bodyHeader, string(body[:min(len(body), 100)]))
			w.WriteHeader(s.answer(n, r))
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *sink) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

func (s *sink) all() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]received(nil), s.got...)
}

// counts returns how often each event arrived.
func (s *sink) counts() map[string]int {
	out := map[string]int{}
	for _, g := range s.all() {
		out[g.id]++
	}
	return out
}

// quick makes retries follow after a second.
func quick(steps int) func(*registry.Endpoint) {
	return func(e *registry.Endpoint) {
		for range steps {
			e.Retry.Schedule = append(e.Retry.Schedule, registry.Duration(time.Second))
		}
	}
}
