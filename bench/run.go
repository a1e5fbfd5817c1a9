package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	round  int // repeats of everything so far
	limit  float64
	curves *curves
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
	began := time.Now()
	lines, err := newLines(opts.out, began)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lines.Close()) }()
	b := &bench{options: opts, log: stderr, report: &report{lines: lines}, setup: &setup{dir: dir}, curves: newCurves()}
	tableTo := stdout
	if opts.json {
		b.report.lines, tableTo = io.MultiWriter(lines, stdout), stderr
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	err = errors.Join(b.rounds(ctx), b.sink.child.stop())
	return errors.Join(err, b.conclude(tableTo, began))
}

// conclude writes the table and the plots. Its error says what failed.
func (b *bench) conclude(table io.Writer, began time.Time) error {
	_, _ = fmt.Fprintf(table, "\n%d CPUs, %s/%s, %s; measurements of %s, %s\n\n", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH,
		runtime.Version(), b.window, time.Now().UTC().Format("2006-01-02"))
	err := b.report.table(table, b.options)
	switch {
	case b.plots != "":
		err = errors.Join(err, b.curves.write(b.plots+"/", b.backends))
	case b.out != "":
		err = errors.Join(err, b.curves.write(filepath.Join(b.out, stamp(began)+"-"), b.backends))
	}
	if failed := b.report.failed(); failed > 0 {
		err = errors.Join(err, fmt.Errorf("%d measurements failed", failed))
	}
	if b.check {
		_, open := b.report.missed()
		b.say("%d of %d goals were not measured", open, len(goals()))
		err = errors.Join(err, b.report.judge())
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

// rounds runs everything as often as was asked for.
func (b *bench) rounds(ctx context.Context) error {
	for b.round = 1; b.round <= b.repeat; b.round++ {
		if err := b.all(ctx); err != nil {
			return err
		}
	}
	return nil
}

// all runs the limit, beside which every rate is shown, then the backends one
// after the other. A scenario that fails is reported and doesn't end the run.
func (b *bench) all(ctx context.Context) error {
	s := b.newStage(nil, limitName)
	if err := b.record(ctx, s, func() (values, error) {
		v, err := measureLimit(ctx, b.sink, s.id, b.limitWindow())
		b.limit = v[keyRate]
		return v, err
	}); err != nil {
		return err
	}
	for _, backend := range b.backends {
		if err := b.backend(ctx, backend); err != nil {
			return fmt.Errorf("%s: %w", backend, err)
		}
	}
	return nil
}

// backend runs on one backend what was asked for.
func (b *bench) backend(ctx context.Context, backend string) error {
	wanted, crash := b.wanted(backend), b.run.MatchString(crashName)
	if len(wanted) == 0 && !crash {
		return nil
	}
	if backend == kafka {
		stop, err := b.startEngines(ctx)
		if err != nil {
			res := result{Time: time.Now().UTC(), Backend: backend, Scenario: "start", Run: b.round, Missing: err.Error()}
			if os.Getenv(services.RequireEnv) == "all" {
				res.Error = err.Error()
			}
			return b.report.add(res)
		}
		defer stop()
	}
	if err := b.loads(ctx, backend, wanted); err != nil {
		return err
	}
	if crash {
		if err := b.crashes(ctx, backend); err != nil {
			return err
		}
	}
	for _, sc := range wanted {
		if sc.own == nil {
			continue
		}
		if err := b.alone(ctx, backend, sc); err != nil {
			return err
		}
	}
	return nil
}

// wanted are the scenarios that were asked for and that the backend has.
func (b *bench) wanted(backend string) []scenario {
	return slices.DeleteFunc(scenarios(b.options), func(s scenario) bool {
		return !b.run.MatchString(s.name) || s.only != "" && s.only != backend
	})
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
		if sc.own != nil {
			continue
		}
		if g == nil {
			if g, err = b.gateway(ctx, backend, shape{}); g == nil {
				return err
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

// alone runs a scenario on a gateway of its own.
func (b *bench) alone(ctx context.Context, backend string, sc scenario) error {
	g, err := b.gateway(ctx, backend, *sc.own)
	if g == nil {
		return err
	}
	s := b.newStage(g, sc.name)
	err = b.record(ctx, s, func() (values, error) { return sc.run(s, ctx) })
	return errors.Join(err, g.stop())
}

// gateway starts one. If that fails it is reported, and there is none.
func (b *bench) gateway(ctx context.Context, backend string, form shape) (*gateway, error) {
	b.say("%s: starting", backend)
	g, err := b.setup.startGateway(ctx, backend, form)
	if err != nil {
		b.say("%s", err)
		return nil, b.report.add(result{Time: time.Now().UTC(), Backend: backend, Scenario: "start", Run: b.round, Error: err.Error()})
	}
	return g, nil
}

// crashes kills each process of a gateway in turn.
func (b *bench) crashes(ctx context.Context, backend string) error {
	g, err := b.gateway(ctx, backend, shape{split: true})
	if g == nil {
		return err
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
	return &stage{
		options: b.options, setup: b.setup, sink: b.sink, gateway: g, name: name, id: b.runs, limit: b.limit, curves: b.curves,
		fresh: func() *stage { return b.newStage(g, name) },
	}
}

// record runs a measurement and reports it. Its own error is part of the
// report; what is returned ends the run.
func (b *bench) record(ctx context.Context, s *stage, measure func() (values, error)) error {
	res := result{Time: time.Now().UTC(), Scenario: s.name, Run: b.round, Load: loadAverage()}
	if s.gateway != nil {
		res.Backend = s.gateway.backend
	}
	b.say("%s", strings.TrimSpace(res.Backend+" "+s.name))
	got, err := measure()
	if s.gateway != nil {
		b.limit = s.limit // throughput has measured it again
		got.share(b.limit)
	}
	res.Values, res.Detail = got, s.detail
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
