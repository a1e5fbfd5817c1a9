package fanout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/postrider/postrider/internal/backoff"
	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/match"
	"github.com/postrider/postrider/internal/registry"
)

// Group is the consumer group of fan-out, without prefix, as broker.EnsureGroup
// wants it: the group needs its first commits before Run.
const Group = "fanout"

// Topics returns the topics that the group consumes.
func Topics(names broker.Topics) []string { return []string{names.Events, names.Pages} }

// view is what fan-out asks of the registry's view, see registry.View.
type view interface {
	Versions(ctx context.Context, tenants []string) ([]registry.Version, error)
	Load(ctx context.Context, tenants []string) ([]registry.Snapshot, error)
}

// Config says what fan-out works with. Broker, Layout, Instance, Redis and View
// are required.
type Config struct {
	// Broker reaches Kafka; its MaxMessageBytes bounds what is written.
	Broker broker.Config
	// Layout places deliveries.
	Layout broker.Layout
	// Instance names the process among its peers and stays the same over its
	// restarts: group membership and transactional id are made of it. Two living
	// processes under one name fence each other.
	Instance string
	// Redis holds the claims.
	Redis redis.UniversalClient
	// View is the registry's view, normally a *registry.View.
	View view
	// Programs caches compiled filters; nil means an own cache with defaults.
	Programs *match.Programs
	// Window is how long a repeat of an event is recognised; 0 means 1 h. It must
	// be less than half of the retention of events.
	Window time.Duration
	// CacheBytes bounds the compiled tenants that are kept, in bytes of memory
	// (estimated); 0 means 256 MiB. The tenants of one batch may take twice as much
	// for a moment, and one alone whatever it takes.
	CacheBytes int
	// FilterBudget is what the filters of one tenant may cost in one batch, in
	// units of CEL cost of about 0.1 µs; 0 means 20,000,000 (2 s). A batch of
	// several events that uses it up is polled again in smaller parts, so only
	// one event that needs it all alone loses filters to it (filter_error).
	FilterBudget uint64
	// Beat is called at least every second while the loop turns, waiting
	// included, and not while a transaction is written (at most 40 s); nil means
	// nobody watches.
	Beat func()
	// Logger, Meter and Tracer may be nil.
	Logger *slog.Logger
	Meter  metric.Meter
	Tracer trace.Tracer
	// Options are further options of the Kafka client; they win.
	Options []kgo.Opt
}

func (c Config) withDefaults() Config {
	if c.Window == 0 {
		c.Window = time.Hour
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = 256 << 20
	}
	if c.FilterBudget == 0 {
		c.FilterBudget = 20_000_000
	}
	if c.Broker.MaxMessageBytes == 0 {
		c.Broker.MaxMessageBytes = 1 << 20
	}
	if c.Beat == nil {
		c.Beat = func() {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Meter == nil {
		c.Meter = metricnoop.Meter{}
	}
	if c.Tracer == nil {
		c.Tracer = tracenoop.Tracer{}
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Instance == "":
		return errors.New("instance: a stable name is needed")
	case c.Redis == nil || c.View == nil:
		return errors.New("redis and view are needed")
	case c.Window < time.Second:
		return fmt.Errorf("window %s: must be at least 1s", c.Window)
	case c.CacheBytes < 0:
		return fmt.Errorf("cache of %d bytes: must not be negative", c.CacheBytes)
	}
	if err := c.Layout.Valid(); err != nil {
		return err
	}
	if r := c.Broker.Retention.Events; r > 0 && c.Window > r/2 {
		return fmt.Errorf("window %s: must be at most half of the retention of events, %s", c.Window, r)
	}
	return c.Broker.Validate()
}

// Fanout is the stage. It is made by New and does its work in Run.
type Fanout struct {
	cfg     Config
	topics  broker.Topics
	maxSize int // of a record of an internal topic, in bytes
	tenants *tenantCache
	sizer   sizer
	suspect suspects
	metrics *instruments
	status  status
	// gatherFor is how long a large batch waits to become larger.
	gatherFor time.Duration
}

// New checks the configuration and prepares the stage; it connects to nothing.
func New(cfg Config) (*Fanout, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("fanout: %w", err)
	}
	if cfg.Programs == nil {
		programs, err := match.NewPrograms(match.Config{})
		if err != nil {
			return nil, fmt.Errorf("fanout: %w", err)
		}
		cfg.Programs = programs
	}
	f := &Fanout{
		cfg:     cfg,
		topics:  cfg.Broker.Topics(),
		maxSize: int(cfg.Broker.MaxMessageBytes) + broker.Headroom - batchOverhead,
		tenants: newTenantCache(cfg.CacheBytes, cfg.Programs, cfg.Logger),

		gatherFor: gatherWait,
	}
	metrics, err := newInstruments(cfg.Meter, f.status.unreadAge)
	if err != nil {
		return nil, fmt.Errorf("fanout: %w", err)
	}
	f.metrics = metrics
	return f, nil
}

// Run works until ctx ends, then finishes the transaction that is open, leaves
// everything else uncommitted and returns nil. A Kafka session that broke (fenced
// after a long stop, say) is replaced, with back-off.
func (f *Fanout) Run(ctx context.Context) error {
	defer f.status.clearAll()
	pause := &backoff.Backoff{First: 100 * time.Millisecond, Limit: 5 * time.Second}
	for ctx.Err() == nil {
		err := f.runSession(ctx, pause.Reset)
		if ctx.Err() != nil {
			f.leaveGroup(context.WithoutCancel(ctx))
			return nil
		}
		if errors.Is(err, errSkipped) {
			continue
		}
		f.status.note(err)
		f.metrics.restarts.Add(ctx, 1)
		f.cfg.Logger.WarnContext(ctx, "kafka session ended, opening another", "error", err)
		f.cfg.Beat()
		pause.Wait(ctx)
	}
	return nil
}

// Ready returns nil while fan-out gets on. Else the error names what it waits for
// since more than 2 s, or what went wrong in the last 10 s, or which loss of data
// Kafka reported since the start. It never blocks.
func (f *Fanout) Ready(ctx context.Context) error { return f.status.ready(ctx) }
