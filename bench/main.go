// Command bench measures Postrider from outside.
//
// In: a binary built from cmd/postrider, and for the second backend a Kafka and
// a Redis. Out: one JSON line per scenario and a table, each figure beside the
// limit, which a plain keep-alive client reaches against the same sink.
//
// The gateway, its roles and the sink are child processes; the load comes from
// this one. Every scenario also counts: an event that was accepted and did not
// reach its endpoints is a failure of the run, whatever its speed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// sinkCommand is the argument with which the program runs as the sink.
const sinkCommand = "sink"

// options are what the command line says.
type options struct {
	run        *regexp.Regexp
	backends   []string
	window     time.Duration // of one measurement
	rate       int           // events/s of the latency scenario
	backlog    int64         // events accepted and not yet received, at most
	binary     string        // "" builds one
	json       bool
	out        string // folder of the JSON lines
	profiles   string // folder; "" takes none
	keepFolder bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	var err error
	if len(os.Args) == 2 && os.Args[1] == sinkCommand {
		err = runSink(ctx, os.Stdout)
	} else {
		err = run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseOptions(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	pattern := flags.String("run", ".", "scenarios to run, as a `regexp` over: "+strings.Join(scenarioNames(), ", "))
	backends := flags.String("backend", "embedded,kafka", "`backends`, separated by commas")
	seconds := flags.Int("seconds", 10, "`length` of each measurement, 1 to 600")
	flags.IntVar(&o.rate, "rate", 500, "events per second of the scenario latency")
	flags.Int64Var(&o.backlog, "backlog", 20_000, "`deliveries` that the sender may be ahead of the sink")
	flags.StringVar(&o.binary, "binary", "", "`file` to measure; default: build cmd/postrider")
	flags.BoolVar(&o.json, "json", false, "print the JSON lines on stdout, the table on stderr")
	flags.StringVar(&o.out, "out", "bench/results", "`folder` for the JSON lines; empty: none")
	flags.StringVar(&o.profiles, "cpuprofile", "", "`folder` for CPU profiles of the gateway; empty: none")
	flags.BoolVar(&o.keepFolder, "keep", false, "keep the data and the logs of the processes, and say where")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	var err error
	if o.run, err = regexp.Compile(*pattern); err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	o.backends, o.window = strings.Split(*backends, ","), time.Duration(*seconds)*time.Second
	return o, o.check(flags.Args())
}

func (o *options) check(rest []string) error {
	for i, b := range o.backends {
		if slices.Contains(o.backends[:i], b) {
			return fmt.Errorf("-backend: %s is given twice", b)
		}
		if !slices.Contains([]string{embedded, kafka}, b) {
			return fmt.Errorf("-backend %q: want %s or %s", b, embedded, kafka)
		}
	}
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case o.window < time.Second || o.window > 10*time.Minute:
		return errors.New("-seconds: must be 1 to 600")
	case o.rate < 1 || o.rate > 5000:
		return errors.New("-rate: must be 1 to 5000")
	case o.backlog < 1000 || o.backlog > 10_000_000:
		return errors.New("-backlog: must be 1000 to 10000000")
	}
	return nil
}
