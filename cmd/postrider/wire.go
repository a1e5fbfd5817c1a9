package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/adaptor"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/postrider/postrider/internal/auth"
	"github.com/postrider/postrider/internal/backoff"
	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/httpd"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/telemetry"
)

// startTimeout bounds the wait for Kafka and Redis at start; an orchestrator
// starts the process again after it.
const startTimeout = time.Minute

// process is what the roles of one process share.
type process struct {
	cfg    *Config
	tel    *telemetry.Telemetry
	log    *slog.Logger
	health *telemetry.Health

	kafka    broker.Config
	embedded *broker.Embedded // nil: the brokers are elsewhere
	client   *kgo.Client      // asks, and writes what has no client of its own
	rdb      redis.UniversalClient
	report   broker.Report
	view     *registry.View
	egress   *egress.Client
	keys     *auth.Keys
	http     *httpd.Server

	onLostUpdate func(registry.Record)
	stages       []stage

	front   []loop // end first, in the order of need: nothing more comes in
	back    []loop // serve the front until it has ended
	closers []func() error
}

// loop is one long-lived part of the process.
type loop struct {
	name string
	run  func(context.Context) error
}

// runRoles runs the roles in this process until ctx ends or one of them fails.
// At the end the front (listener, stages) drains first, then what serves it.
func runRoles(ctx context.Context, cfg *Config, roles []string) (err error) {
	relaxGC()
	p := &process{cfg: cfg, health: telemetry.NewHealth()}
	defer func() { err = errors.Join(err, p.close(context.WithoutCancel(ctx))) }()
	if err := p.connect(ctx, roles); err != nil {
		return err
	}
	if err := p.build(roles); err != nil {
		return err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", cfg.Listen, err)
	}
	if cfg.Pprof != "" {
		profiler, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Pprof)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", cfg.Pprof, err)
		}
		p.back = append(p.back, loop{"pprof", func(ctx context.Context) error { return servePprof(ctx, profiler) }})
	}
	p.front = append(p.front, loop{"http", func(ctx context.Context) error { return p.http.Serve(ctx, ln) }})
	p.log.InfoContext(ctx, "postrider is up", "roles", roles, "listen", ln.Addr().String(), "version", version())
	stopping := context.AfterFunc(ctx, func() {
		p.log.InfoContext(context.WithoutCancel(ctx), "stopping", "drain_timeout", cfg.DrainTimeout.String())
	})
	defer stopping()
	err = p.run(ctx)
	p.log.InfoContext(context.WithoutCancel(ctx), "stopped")
	return err
}

// relaxGC lets the heap grow to three times what is live before it is collected,
// unless GOGC says something: a sixth of the CPU for half as much memory again,
// measured (bench/README.md).
func relaxGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(200)
	}
}

// run starts every loop and waits for all of them.
func (p *process) run(ctx context.Context) error {
	backCtx, stopBack := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBack()
	back, backCtx := errgroup.WithContext(backCtx)
	for _, l := range p.back {
		back.Go(func() error { return l.start(backCtx) })
	}
	front, frontCtx := errgroup.WithContext(ctx)
	front.Go(func() error { // a failure of the back ends the front
		select {
		case <-frontCtx.Done():
			return nil
		case <-backCtx.Done():
			return context.Cause(backCtx)
		}
	})
	for _, l := range p.front {
		front.Go(func() error { return l.start(frontCtx) })
	}
	err := front.Wait()
	stopBack()
	return errors.Join(err, back.Wait())
}

func (l loop) start(ctx context.Context) error {
	if err := l.run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	return nil
}

// connect sets telemetry up and reaches Kafka and Redis, embedded or not.
func (p *process) connect(ctx context.Context, roles []string) (err error) {
	cfg := p.cfg
	role := "all"
	if len(roles) == 1 {
		role = roles[0]
	}
	p.tel, err = telemetry.Setup(ctx, telemetry.Config{
		Instance: cfg.Instance, Role: role, Version: version(), DetailedMetrics: cfg.DetailMetrics, Getenv: os.Getenv,
		Log: telemetry.LogConfig{Level: logLevel(cfg.LogLevel), Format: telemetry.LogFormat(cfg.LogFormat)},
	})
	if err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	p.log = p.tel.Logger()
	for _, name := range cfg.Unknown {
		p.log.WarnContext(ctx, "environment variable is no setting", "name", name)
	}
	redis.SetLogger(redisLogger{p.log})
	p.kafka = cfg.brokerConfig()
	p.kafka.Version, p.kafka.Logger = version(), p.log
	if cfg.Embedded {
		err = p.embed(ctx)
	} else if p.rdb, err = registry.DialRedis(cfg.Redis.URL); err != nil {
		err = fmt.Errorf("redis-url: %w", err)
	}
	if err != nil {
		return err
	}
	p.closers = append(p.closers, p.rdb.Close)
	if p.client, err = p.kafka.NewClient(); err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	p.onClose(p.client.Close)
	return p.prepare(ctx, roles)
}

// embed starts the broker and the Redis of dev.
func (p *process) embed(ctx context.Context) error {
	b, err := broker.StartEmbedded(broker.EmbeddedConfig{Dir: p.cfg.brokerDir(), Sync: p.cfg.Dev.Sync, Logger: p.log}) //nolint:contextcheck // what it recovers must be done before anything else, however long
	if err != nil {
		return fmt.Errorf("embedded broker: %w", err)
	}
	p.closers = append(p.closers, b.Close)
	p.embedded = b
	p.kafka.Brokers, p.kafka.Dial = b.Brokers(), b.Dial
	r, err := registry.StartEmbedded()
	if err != nil {
		return fmt.Errorf("embedded redis: %w", err)
	}
	p.onClose(r.Close)
	p.back = append(p.back, loop{"embedded redis", r.Run})
	p.rdb = redis.NewClient(&redis.Options{Addr: r.Addr(), Dialer: r.Dial, ContextTimeoutEnabled: true})
	p.log.WarnContext(ctx, "embedded mode: one copy of everything, in this machine's page cache; --sync survives power cuts",
		"kafka", b.Brokers(), "data", p.cfg.Dev.Data)
	if len(p.cfg.Deliver.EgressAllowCIDR) > 0 {
		p.log.WarnContext(ctx, "endpoints may be in ranges that are not public", "allowed", p.cfg.Deliver.EgressAllowCIDR)
	}
	return nil
}

// prepare makes sure that topics, groups, layout and Redis are as they should
// be. It waits for both engines for up to a minute; what is unsafe ends the
// start at once.
func (p *process) prepare(ctx context.Context, roles []string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := p.patiently(ctx, "kafka", func() (err error) {
		p.report, err = broker.Ensure(ctx, p.client, p.kafka)
		return err
	}); err != nil {
		return err
	}
	p.warnings(ctx)
	if !p.cfg.Embedded {
		if err := p.patiently(ctx, "redis", func() error { return p.checkRedis(ctx) }); err != nil {
			return err
		}
	}
	if err := p.patiently(ctx, "layout", func() error {
		return registry.EnsureLayout(ctx, p.kafka, p.report.Layout)
	}); err != nil {
		return err
	}
	for group, topics := range groups(p.kafka.Topics(), roles) {
		if err := p.patiently(ctx, "group "+group, func() error {
			return broker.EnsureGroup(ctx, p.client, p.kafka, group, topics...)
		}); err != nil {
			return err
		}
	}
	if p.embedded != nil {
		p.embedded.SpareUnread(p.kafka, groups(p.kafka.Topics(), roles))
	}
	p.view = registry.NewView(p.rdb, p.report.TopicIDs[p.kafka.Topics().Registry])
	return nil
}

// warnings tells, in the log and in /readyz, what is unsafe and was allowed, and
// where the topics that exist differ from the settings.
func (p *process) warnings(ctx context.Context) {
	warn := func(name, text string) {
		p.health.Warn(name, text)
		p.log.WarnContext(ctx, "unsafe or unexpected setting", "setting", name, "detail", text)
	}
	for _, f := range p.report.Findings {
		name := "kafka." + f.Setting
		if f.Topic != "" {
			name = "kafka." + f.Topic + "." + f.Setting
		}
		warn(name, f.String())
	}
	t, topics := p.cfg.Topics, p.kafka.Topics()
	for setting, counts := range map[string][2]int32{
		"events-partitions":     {t.EventsPartitions, p.report.Partitions[topics.Events]},
		"deliveries-partitions": {t.DeliveriesPartitions, p.report.Layout.Deliveries},
		"schedule-shards":       {t.ScheduleShards, p.report.Layout.ScheduleShards},
	} {
		if counts[0] != counts[1] {
			warn(setting, fmt.Sprintf("is %d, the topics that exist have %d; the setting has no effect on them", counts[0], counts[1]))
		}
	}
}

func (p *process) checkRedis(ctx context.Context) error {
	warnings, err := registry.CheckRedis(ctx, p.rdb, p.cfg.AllowUnsafe)
	for _, w := range warnings {
		p.health.Warn("redis", w)
	}
	return err
}

// patiently repeats a step until it succeeds, is refused for good, or time is
// over. It says what it waits for when that changes, and every ten seconds.
func (p *process) patiently(ctx context.Context, what string, step func() error) error {
	const remind = 10 * time.Second
	pause := backoff.Backoff{First: 250 * time.Millisecond, Limit: 5 * time.Second}
	var said string
	var saidAt time.Time
	for {
		err := step()
		var unsafe *broker.UnsafeError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &unsafe), errors.Is(err, broker.ErrLayout), errors.Is(err, broker.ErrLostCommit),
			errors.Is(err, registry.ErrUnsafeRedis), errors.Is(err, registry.ErrLayoutMismatch):
			return fmt.Errorf("%s: %w", what, err)
		}
		if text := err.Error(); text != said || time.Since(saidAt) >= remind {
			p.log.WarnContext(ctx, "not ready at start", "part", what, "error", err)
			said, saidAt = text, time.Now()
		}
		if !pause.Wait(ctx) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}

// build makes the roles.
func (p *process) build(roles []string) error {
	cfg := p.cfg
	egressConfig, err := cfg.egressConfig()
	if err != nil {
		return err
	}
	eg, err := egress.New(egressConfig)
	if err != nil {
		return fmt.Errorf("egress: %w", err)
	}
	p.egress = eg
	p.onClose(eg.CloseIdleConnections)
	httpCfg := cfg.httpConfig()
	httpCfg.Logger = p.log
	p.http = httpd.New(httpCfg)
	p.mountProbes(p.http.App())
	p.keys = auth.New(auth.Config{View: p.view, AdminKey: cfg.AdminKey})
	for _, role := range roles {
		var err error
		switch role {
		case "ingest":
			err = p.addIngest()
		case "fanout":
			err = p.addFanout()
		case "deliver":
			err = p.addDeliver()
		case "control":
			err = p.addControl()
		default:
			err = errors.New("unknown role")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", role, err)
		}
	}
	if slices.Contains(roles, "control") || slices.Contains(roles, "fanout") {
		p.addProjector()
	}
	if err := p.observeUnread(p.tel.Meter(scope)); err != nil {
		return fmt.Errorf("create metrics: %w", err)
	}
	p.health.Check("kafka", func(ctx context.Context) error { return p.client.Ping(ctx) })
	p.health.Check("redis", p.redisCheck(roles))
	return nil
}

// bodyBudget is the memory that bodies of requests may take together: several of
// the largest.
func (c *Config) bodyBudget() int { return max(128<<20, 4*int(c.Ingest.MaxBody)) }

// redisCheck asks whether Redis answers. Fan-out and control can't work without
// it; ingest and deliver go on for a while, and only say that it is away.
func (p *process) redisCheck(roles []string) func(context.Context) error {
	needed := slices.Contains(roles, "control") || slices.Contains(roles, "fanout")
	return func(ctx context.Context) error {
		err := p.rdb.Ping(ctx).Err()
		if needed {
			return err
		}
		text := ""
		if err != nil {
			text = "away: " + err.Error()
		}
		p.health.Warn("redis", text)
		return nil
	}
}

// mountProbes adds the routes that every role has.
func (p *process) mountProbes(app *fiber.App) {
	app.Get("/healthz", adaptor.HTTPHandler(p.health.Healthz()))
	app.Get("/readyz", adaptor.HTTPHandler(p.health.Readyz()))
	app.Get("/metrics", adaptor.HTTPHandler(p.tel.Handler()))
}

func (p *process) onClose(fn func()) {
	p.closers = append(p.closers, func() error { fn(); return nil })
}

// close releases everything in the opposite order of its making.
func (p *process) close(ctx context.Context) error {
	var errs []error
	for _, c := range slices.Backward(p.closers) {
		if err := c(); err != nil && !errors.Is(err, io.EOF) {
			errs = append(errs, err)
		}
	}
	if p.tel != nil {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if err := p.tel.Shutdown(ctx); err != nil {
			p.log.WarnContext(ctx, "flush telemetry", "error", err)
		}
	}
	return errors.Join(errs...)
}
