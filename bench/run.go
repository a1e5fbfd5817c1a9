package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/e2e/services"
)

// bench is one run of the program.
type bench struct {
	*options
	log    io.Writer
	report *report
	setup  *setup
	sink   *sinkProcess
	runs   int // stages so far
}

// run does everything that the command line asks for.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	opts, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "postrider-bench-")
	if err != nil {
		return err
	}
	if opts.keepFolder {
		_, _ = fmt.Fprintln(stderr, "data and logs:", dir)
	} else {
		defer os.RemoveAll(dir) //nolint:errcheck // what is left is only in the way
	}
	lines, err := newLines(opts.out, time.Now())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lines.Close()) }()
	b := &bench{options: opts, log: stderr, report: &report{lines: lines}, setup: &setup{dir: dir, pprof: opts.profiles != ""}}
	tableTo := stdout
	if opts.json {
		b.report.lines, tableTo = io.MultiWriter(lines, stdout), stderr
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	err = errors.Join(b.all(ctx), b.sink.child.stop())
	_, _ = fmt.Fprintf(tableTo, "\n%d CPUs, %s/%s, %s; measurements of %s, %s\n\n", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH,
		runtime.Version(), opts.window, time.Now().UTC().Format("2006-01-02"))
	err = errors.Join(err, b.report.table(tableTo, opts.backends))
	if failed := b.report.failed(); failed > 0 {
		err = errors.Join(err, fmt.Errorf("%d measurements failed", failed))
	}
	return err
}

// prepare builds what is measured and starts the sink.
func (b *bench) prepare(ctx context.Context) (err error) {
	b.setup.binary = b.binary
	if b.binary == "" {
		b.say("building cmd/postrider")
		if b.setup.binary, err = build(ctx, b.setup.dir); err != nil {
			return err
		}
	}
	if b.setup.seal, err = newSealKey(ctx, b.setup.binary); err != nil {
		return err
	}
	b.sink, err = startSink(ctx, b.setup.dir)
	return err
}

// all runs the limit, then the backends one after the other. A scenario that
// fails is reported and doesn't end the run.
func (b *bench) all(ctx context.Context) error {
	if b.run.MatchString(limitName) {
		s := b.newStage(nil, limitName)
		if err := b.record(ctx, s, func() (values, error) {
			return measureLimit(ctx, b.sink, s.id, min(b.window, 5*time.Second))
		}); err != nil {
			return err
		}
	}
	for _, backend := range b.backends {
		if err := b.backend(ctx, backend); err != nil {
			return fmt.Errorf("%s: %w", backend, err)
		}
	}
	return nil
}

func (b *bench) backend(ctx context.Context, backend string) (err error) {
	if backend == kafka {
		stop, err := b.startEngines(ctx)
		if err != nil {
			res := result{Time: time.Now().UTC(), Backend: backend, Scenario: "start", Missing: err.Error()}
			if os.Getenv(services.RequireEnv) == "all" {
				res.Error = err.Error()
			}
			return b.report.add(res)
		}
		defer stop()
	}
	wanted := slices.DeleteFunc(scenarios(), func(s scenario) bool { return !b.run.MatchString(s.name) })
	if len(wanted) > 0 {
		err = b.loads(ctx, backend, wanted)
	}
	if err == nil && b.run.MatchString(crashName) {
		err = b.crashes(ctx, backend)
	}
	return err
}

// loads runs the scenarios that share one gateway. After a failure the next one
// gets a fresh gateway.
func (b *bench) loads(ctx context.Context, backend string, wanted []scenario) (err error) {
	var g *gateway
	defer func() {
		if g != nil {
			err = errors.Join(err, g.stop())
		}
	}()
	for _, sc := range wanted {
		if g == nil {
			b.say("%s: starting", backend)
			if g, err = b.setup.startGateway(ctx, backend, false); err != nil {
				return b.report.add(result{Time: time.Now().UTC(), Backend: backend, Scenario: "start", Error: err.Error()})
			}
		}
		s, before := b.newStage(g, sc.name), b.report.failed()
		if err := b.record(ctx, s, func() (values, error) { return sc.run(s, ctx) }); err != nil {
			return err
		}
		if b.report.failed() > before {
			if err := g.stop(); err != nil {
				b.say("%s", err)
			}
			g = nil
		}
	}
	return nil
}

// crashes kills each process of a gateway in turn.
func (b *bench) crashes(ctx context.Context, backend string) error {
	g, err := b.setup.startGateway(ctx, backend, true)
	if err != nil {
		return b.report.add(result{Time: time.Now().UTC(), Backend: backend, Scenario: crashName, Error: err.Error()})
	}
	var errs []error
	for _, name := range crashRoles() {
		r := g.role(name)
		if r.name != name {
			continue
		}
		s := b.newStage(g, crashName+"/"+name)
		errs = append(errs, b.record(ctx, s, func() (values, error) { return s.crash(ctx, r) }))
	}
	return errors.Join(append(errs, g.stop())...)
}

func (b *bench) newStage(g *gateway, name string) *stage {
	b.runs++
	return &stage{options: b.options, sink: b.sink, gateway: g, name: name, id: b.runs}
}

// record runs a measurement and reports it. Its own error is part of the
// report; what is returned ends the run.
func (b *bench) record(ctx context.Context, s *stage, measure func() (values, error)) error {
	res := result{Time: time.Now().UTC(), Scenario: s.name, Load: loadAverage()}
	if s.gateway != nil {
		res.Backend = s.gateway.backend
	}
	b.say("%s", strings.TrimSpace(res.Backend+" "+s.name))
	got, err := measure()
	res.Values = got
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if s.gateway != nil {
		err = errors.Join(err, s.gateway.ended())
	}
	if err != nil {
		res.Error = err.Error()
		b.say("%s", err)
	}
	return b.report.add(res)
}

func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.log, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
