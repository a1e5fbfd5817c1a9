package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// options are what the command line says.
type options struct {
	run        *regexp.Regexp
	backends   []string
	window     time.Duration // of one measurement
	rates      []int         // events/s of the latency scenarios
	backlog    int64         // events accepted and not yet received, at most
	repeat     int           // runs of everything
	sizes      sizes
	check      bool // fail if a goal is missed
	binary     string
	json       bool
	out        string // folder of the JSON lines
	plots      string // folder; "" puts them beside the JSON lines
	profiles   string // folder; "" takes none
	keepFolder bool
}

// sizes are how large the scenarios with a size of their own are.
type sizes struct {
	soak      time.Duration
	waiting   int64 // records that wait for the endpoint of recovery
	parked    int64 // records that parked1m parks
	endpoints int   // of endpoints100k
	pairs     int   // of isolation
	park      string
}

// Values of -park: what makes records wait in recovery.
const (
	parkAuto    = "auto"
	parkPause   = "pause"
	parkBreaker = "breaker"
)

func parseOptions(args []string, stderr io.Writer) (*options, error) {
	o := &options{rates: []int{100, 500, 2000, 5000}}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	pattern := flags.String("run", ".", "scenarios to run, as a `regexp` over: "+strings.Join(scenarioNames(o), ", "))
	backends := flags.String("backend", "embedded,kafka", "`backends`, separated by commas")
	seconds := flags.Int("seconds", 10, "`length` of each measurement, 1 to 600")
	rates := flags.String("rates", "100,500,2000,5000", "`events` per second of the scenarios latency, separated by commas")
	flags.Int64Var(&o.backlog, "backlog", 20_000, "`deliveries` that the sender may be ahead of the sink")
	flags.IntVar(&o.repeat, "repeat", 1, "run everything this many `times`; the table has medians")
	o.sizes.flags(flags)
	flags.BoolVar(&o.check, "check", false, "end with an error that names each goal that was missed")
	flags.StringVar(&o.binary, "binary", "", "`file` to measure; default: build cmd/postrider")
	flags.BoolVar(&o.json, "json", false, "print the JSON lines on stdout, the table on stderr")
	flags.StringVar(&o.out, "out", "bench/results", "`folder` for the JSON lines; empty: none")
	flags.StringVar(&o.plots, "plots", "", "`folder` for the plots; default: beside the JSON lines")
	flags.StringVar(&o.profiles, "profiles", "", "`folder` for profiles of the gateway; empty: none")
	flags.BoolVar(&o.keepFolder, "keep", false, "keep the data and the logs of the processes, and say where")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	var err error
	if o.run, err = regexp.Compile(*pattern); err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	if o.rates, err = parseRates(*rates); err != nil {
		return nil, fmt.Errorf("-rates: %w", err)
	}
	o.backends, o.window = strings.Split(*backends, ","), time.Duration(*seconds)*time.Second
	return o, errors.Join(o.validate(flags.Args()), o.sizes.validate())
}

func (s *sizes) flags(flags *flag.FlagSet) {
	flags.DurationVar(&s.soak, "soak", 10*time.Minute, "`length` of soak, 10s to 24h")
	flags.Int64Var(&s.waiting, "waiting", 100_000, "`records` that wait for the endpoint of recovery")
	flags.Int64Var(&s.parked, "parked", 1_000_000, "`records` that parked1m parks")
	flags.IntVar(&s.endpoints, "endpoints", 100_000, "`endpoints` of endpoints100k, a multiple of 10")
	flags.IntVar(&s.pairs, "pairs", 5, "`pairs` of runs with and without hanging endpoints")
	flags.StringVar(&s.park, "park", parkAuto, "what makes records wait in recovery: pause, breaker, or auto: breaker if the gateway has one")
}

func parseRates(text string) (rates []int, err error) {
	for part := range strings.SplitSeq(text, ",") {
		rate, err := strconv.Atoi(part)
		switch {
		case err != nil || rate < 1 || rate > 10_000:
			return nil, fmt.Errorf("%q: must be 1 to 10000", part)
		case slices.Contains(rates, rate):
			return nil, fmt.Errorf("%d is given twice", rate)
		}
		rates = append(rates, rate)
	}
	return rates, nil
}

func (o *options) validate(rest []string) error {
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
	case o.backlog < 1000 || o.backlog > 10_000_000:
		return errors.New("-backlog: must be 1000 to 10000000")
	case o.repeat < 1 || o.repeat > 100:
		return errors.New("-repeat: must be 1 to 100")
	}
	return nil
}

func (s *sizes) validate() error {
	switch {
	case s.soak < 10*time.Second || s.soak > 24*time.Hour:
		return errors.New("-soak: must be 10s to 24h")
	case s.waiting < 1000 || s.waiting > maxArrivals:
		return fmt.Errorf("-waiting: must be 1000 to %d", maxArrivals)
	case s.parked < 1000 || s.parked > 10_000_000:
		return errors.New("-parked: must be 1000 to 10000000")
	case s.endpoints < 10 || s.endpoints > 100_000 || s.endpoints%10 != 0:
		return errors.New("-endpoints: must be 10 to 100000, a multiple of 10")
	case s.pairs < 1 || s.pairs > 99:
		return errors.New("-pairs: must be 1 to 99")
	case !slices.Contains([]string{parkAuto, parkPause, parkBreaker}, s.park):
		return fmt.Errorf("-park %q: want %s, %s or %s", s.park, parkAuto, parkPause, parkBreaker)
	}
	return nil
}
