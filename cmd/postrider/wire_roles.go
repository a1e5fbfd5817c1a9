package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/control"
	"github.com/postrider/postrider/deliver"
	"github.com/postrider/postrider/fanout"
	"github.com/postrider/postrider/ingest"
	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/registry"
)

// scope names the program's own tracer and meter.
const scope = "github.com/postrider/postrider"

// groups returns the consumer groups of the roles with the topics they read.
func groups(t broker.Topics, roles []string) map[string][]string {
	out := map[string][]string{}
	if slices.Contains(roles, "fanout") {
		out[fanout.Group] = fanout.Topics(t)
	}
	if slices.Contains(roles, "deliver") {
		maps.Copy(out, deliver.Groups(t))
	}
	return out
}

func (p *process) addIngest() error {
	// The client's own bounds are above ingest's: at them it would block.
	most := max(256<<20, 4*int(p.cfg.Ingest.MaxBody))
	client, err := p.kafka.NewClient(kgo.MaxBufferedRecords(1<<16), kgo.MaxBufferedBytes(most), kgo.RecordDeliveryTimeout(30*time.Second))
	if err != nil {
		return err
	}
	p.onClose(client.Close)
	s, err := ingest.New(p.cfg.ingestConfig(), ingest.Deps{
		Producer: client, Keys: p.keys, Logger: p.log, Meters: p.tel.MeterProvider(), Tracers: p.tel.TracerProvider(),
	})
	if err != nil {
		return err
	}
	s.Register(p.http.App())
	return nil
}

func (p *process) addFanout() error {
	beat := p.health.Watchdog("fanout.loop", time.Minute)
	cfg := p.cfg.fanoutConfig()
	cfg.Broker, cfg.Layout, cfg.Redis, cfg.View, cfg.Beat = p.kafka, p.report.Layout, p.rdb, p.view, beat.Tick
	cfg.Logger, cfg.Meter, cfg.Tracer = p.log, p.tel.Meter(scope), p.tel.Tracer(scope)
	f, err := fanout.New(cfg)
	if err != nil {
		return err
	}
	p.health.Check("fanout", f.Ready)
	p.addStage(fanout.Group, fanout.Topics(p.kafka.Topics()), nil)
	p.front = append(p.front, loop{"fanout", f.Run})
	return nil
}

func (p *process) addDeliver() error {
	sealer, err := registry.NewSealer(p.cfg.SealKey)
	if err != nil {
		return fmt.Errorf("seal-key: %w", err)
	}
	w, err := deliver.New(p.cfg.deliverConfig(), deliver.Deps{
		Broker: p.kafka, Layout: p.report.Layout, View: p.view, Sealer: sealer, Egress: p.egress, Health: p.health,
		Logger: p.log, Tracer: p.tel.Tracer(scope), Meter: p.tel.Meter(scope),
	})
	if err != nil {
		return err
	}
	for group, topics := range deliver.Groups(p.kafka.Topics()) {
		parked := w.OldestParked
		if group != deliver.Group {
			parked = nil
		}
		p.addStage(group, topics, parked)
	}
	p.front = append(p.front, loop{"deliver", w.Run})
	return nil
}

func (p *process) addControl() error {
	sealer, err := registry.NewSealer(p.cfg.SealKey)
	if err != nil {
		return fmt.Errorf("seal-key: %w", err)
	}
	beat := p.health.Watchdog("control.loop", time.Minute)
	writer := registry.NewWriter(registry.WriterConfig{
		Client: p.client, Topic: p.kafka.Topics().Registry, Redis: p.rdb, View: p.view, Logger: p.log,
	})
	cfg := p.cfg.controlConfig()
	cfg.Kafka, cfg.Layout, cfg.Version, cfg.Tick = p.kafka, p.report.Layout, version(), beat.Tick
	s, err := control.New(cfg, control.Deps{
		Writer: writer, View: p.view, Auth: p.keys, Sealer: sealer, Egress: p.egress, Meters: p.tel.MeterProvider(), Logger: p.log,
	})
	if err != nil {
		return err
	}
	p.closers = append(p.closers, s.Close)
	if err := s.Register(p.http.App()); err != nil {
		return fmt.Errorf("mount the api: %w", err)
	}
	p.front = append(p.front, loop{"control", s.Run})
	p.onLostUpdate = s.LostUpdate
	return nil
}

// addProjector has this process take part in keeping the registry's view. A lost
// update goes to the audit, with or without control in this process.
func (p *process) addProjector() {
	beat := p.health.Watchdog("projector.loop", time.Minute)
	if p.onLostUpdate == nil {
		p.onLostUpdate = p.auditLostUpdate
	}
	projector := registry.NewProjector(registry.ProjectorConfig{
		Kafka: p.kafka, Redis: p.rdb, Tick: beat.Tick, Logger: p.log, OnLostUpdate: p.onLostUpdate,
	})
	p.health.Check("projector", func(context.Context) error { return projector.Err() })
	p.back = append(p.back, loop{"projector", projector.Run})
}

// auditLostUpdate is what control does with a lost update, without control. It does
// not wait for Kafka.
func (p *process) auditLostUpdate(r registry.Record) {
	p.log.Error("an update of the registry was lost", "tenant", r.Tenant, "entity", r.Entity, "offset", r.Offset, "built_on", r.Prev)
	failed := func(err error) {
		p.log.Error("could not write an audit record", "tenant", r.Tenant, "entity", r.Entity, "error", err)
	}
	record, err := registry.AuditLostUpdate(p.kafka.Topics().Audit, r, time.Now())
	if err != nil {
		failed(err)
		return
	}
	p.client.TryProduce(context.Background(), record, func(_ *kgo.Record, err error) {
		if err != nil {
			failed(err)
		}
	})
}

// redisLogger puts what the Redis client says on its own into our log.
type redisLogger struct{ log *slog.Logger }

// Printf implements the client's logger.
func (l redisLogger) Printf(ctx context.Context, format string, args ...any) {
	l.log.WarnContext(ctx, "redis client", "detail", fmt.Sprintf(format, args...))
}

// brokerDir is the embedded broker's part of the data folder.
func (c *Config) brokerDir() string { return filepath.Join(c.Dev.Data, "broker") }

func logLevel(name string) slog.Level {
	switch strings.ToLower(name) {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}
