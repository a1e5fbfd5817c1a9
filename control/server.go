package control

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/maypok86/otter/v2"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"golang.org/x/sync/errgroup"

	"github.com/postrider/postrider/internal/auth"
	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/match"
	"github.com/postrider/postrider/internal/registry"
)

// Limits that are the same everywhere.
const (
	// MaxBody bounds the body of a request, in bytes.
	MaxBody = 1 << 20
	// requestTimeout bounds one request, the live stream apart.
	requestTimeout = 20 * time.Second
	// lookupTimeout bounds the look-up of an endpoint's host.
	lookupTimeout = 2 * time.Second
	// flushTimeout bounds the wait for audit records at the end.
	flushTimeout = 5 * time.Second
	// idempotencyWindow is how long an Idempotency-Key is remembered.
	idempotencyWindow = 24 * time.Hour
	// cachedBytes bounds the decoded tenants kept between reads, in bytes of memory
	// (estimated).
	cachedBytes = 256 << 20
)

// Config holds the settings of control. The zero value of a field means its
// default.
type Config struct {
	// Kafka says how to reach the brokers and how the topics are named. MaxAge in it
	// (0 means 5 days) bounds max_age of retries, and so does a day less than the
	// retention of deliveries (0 means 7 days).
	Kafka broker.Config
	// Layout places test deliveries and cancels with their endpoint's owner.
	Layout broker.Layout
	// DefaultRetry is what an endpoint without a retry policy of its own gets:
	// empty means the schedule of DESIGN 4.3 and Kafka.MaxAge.
	DefaultRetry registry.Retry
	// Heartbeat is how often a quiet stream sends a comment; 0 means 15 s.
	Heartbeat time.Duration
	// StreamBuffer is how many attempts a slow reader of the stream may be
	// behind before some are dropped; 0 means 256.
	StreamBuffer int
	// MaxStreams bounds the streams open at once with keys of tenants, and apart from
	// them those with keys of the platform; 0 means 200.
	MaxStreams int
	// MaxTenantStreams bounds the streams open at once with keys of one tenant; 0
	// means 20.
	MaxTenantStreams int
	// PublicURL is where receivers reach this API; "" refuses endpoints that would
	// have to (format thin).
	PublicURL string
	// Version is the program's version in the OpenAPI document; "" means "dev".
	Version string
	// Tick is called by Run at most about a second apart while all is well: a sign
	// of life for a watchdog. nil means none.
	Tick func()
	// Clock tells the time; nil means time.Now.
	Clock func() time.Time
}

func (c Config) withDefaults() Config {
	c.Heartbeat = cmp.Or(c.Heartbeat, 15*time.Second)
	c.StreamBuffer = cmp.Or(c.StreamBuffer, 256)
	c.MaxStreams = cmp.Or(c.MaxStreams, 200)
	c.MaxTenantStreams = cmp.Or(c.MaxTenantStreams, 20)
	c.Version = cmp.Or(c.Version, "dev")
	c.Kafka.Retention.Deliveries = cmp.Or(c.Kafka.Retention.Deliveries, 7*24*time.Hour)
	c.Kafka.MaxAge = cmp.Or(c.Kafka.MaxAge, 5*24*time.Hour)
	c.DefaultRetry.MaxAge = cmp.Or(c.DefaultRetry.MaxAge, registry.Duration(c.Kafka.MaxAge))
	if len(c.DefaultRetry.Schedule) == 0 {
		c.DefaultRetry.Schedule = defaultSchedule()
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return c
}

type registryWriter interface {
	Update(ctx context.Context, tenant string, fn func(*registry.TenantState) ([]registry.Change, error)) (registry.Written, error)
}

type registryView interface {
	Versions(ctx context.Context, tenants []string) ([]registry.Version, error)
	Load(ctx context.Context, tenants []string) ([]registry.Snapshot, error)
	Entities(ctx context.Context, refs []registry.Ref) ([]registry.Found, error)
}

type authenticator interface {
	Lookup(ctx context.Context, token string) (auth.Identity, error)
}

type sealer interface {
	Seal(plain []byte, tenant, entity, field string) (string, error)
	Open(sealed, tenant, entity, field string) ([]byte, error)
	OpenToken(token string) ([]byte, error)
	Fingerprint(data []byte) string
	Keys() int
	Outdated(e *registry.Endpoint) bool
	SealAgain(e *registry.Endpoint) (bool, error)
}

// urlChecker is what egress does to a URL before it dials it: CheckURL looks at
// the text, CheckHost at the addresses of the host.
type urlChecker interface {
	CheckURL(raw string) (*url.URL, error)
	CheckHost(ctx context.Context, host string) error
}

// Deps are the parts that a Server works with. All are required but Meters and
// Logger.
type Deps struct {
	Writer registryWriter
	View   registryView
	Auth   authenticator
	Sealer sealer
	Egress urlChecker
	// Meters makes the instruments; nil means none.
	Meters metric.MeterProvider
	// Logger gets what goes wrong here; nil means silence.
	Logger *slog.Logger
}

// Server answers the management API. Use New.
type Server struct {
	cfg    Config
	deps   Deps
	log    *slog.Logger
	topics broker.Topics
	// kafka takes the partition from the record: test deliveries and cancels go
	// to their endpoint's owner.
	kafka    *kgo.Client
	reader   *broker.PointReader
	events   *broker.BatchCache // over reader
	gate     *fetchGate
	states   *otter.Cache[string, *tenantView]
	programs *match.Programs
	tenants  *tenantIndex
	hub      *hub
	metrics  instruments
	// written is above every offset that this process wrote: a view below it is
	// too old to be believed.
	written atomic.Int64
}

// New returns a Server; Close frees its client. Its answers need nothing of Run but
// the list of tenants, the public keys and the stream.
func New(cfg Config, deps Deps) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Layout.Valid(); err != nil {
		return nil, err
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	if deps.Meters == nil {
		deps.Meters = noop.NewMeterProvider()
	}
	metrics, err := newInstruments(deps.Meters)
	if err != nil {
		return nil, err
	}
	states, err := otter.New(&otter.Options[string, *tenantView]{
		MaximumWeight: cachedBytes,
		Weigher:       func(_ string, v *tenantView) uint32 { return v.weight() },
	})
	if err != nil {
		return nil, fmt.Errorf("make the cache of tenants: %w", err)
	}
	programs, err := match.NewPrograms(match.Config{})
	if err != nil {
		return nil, fmt.Errorf("make the cache of filters: %w", err)
	}
	kafka, err := cfg.Kafka.NewClient(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return nil, err
	}
	reader, err := broker.NewPointReader(cfg.Kafka)
	if err != nil {
		kafka.Close()
		return nil, err
	}
	tenants := newTenantIndex()
	if deps.Sealer.Keys() > 1 { // else there is nothing to seal again with
		tenants.isOutdated = deps.Sealer.Outdated
	}
	return &Server{
		reader: reader, events: broker.NewBatchCache(reader, keptBatches, keptFor), gate: newFetchGate(),
		cfg: cfg, deps: deps, log: deps.Logger, topics: cfg.Kafka.Topics(), kafka: kafka, metrics: metrics,
		states: states, programs: programs, tenants: tenants,
		hub: newHub(cfg, kafka, metrics, deps.Logger),
	}, nil
}

// Close waits up to 5 s for the audit records under way and closes the client. Call
// it when the last request was answered and Run has returned.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	defer s.kafka.Close()
	defer s.reader.Close()
	if err := s.kafka.Flush(ctx); err != nil {
		return fmt.Errorf("flush audit records: %w", err)
	}
	return nil
}

// Register mounts the API, and its OpenAPI document at /openapi.json, on the
// router. Its own rules (bodies, encodings, keys) hold for its own routes only.
func (s *Server) Register(router fiber.Router) error {
	api := s.newAPI(router)
	s.registerTenants(api)
	s.registerEndpoints(api)
	s.registerVerbs(api)
	s.registerSubscriptions(api)
	s.registerKeys(api)
	s.registerDeliveries(api)
	s.registerStream(api)
	s.registerWebhookKeys(api)
	s.registerThin(api)
	s.registerReseal(api)
	return serveDocument(router, api)
}

// Run follows the registry's tenants, finishes deletions and feeds the streams,
// until ctx ends; it then ends the streams. It returns an error only if it can't
// go on.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.followTenants(ctx) })
	group.Go(func() error { return s.deletionLoop(ctx) })
	group.Go(func() error { return s.hub.run(ctx) })
	return group.Wait()
}
