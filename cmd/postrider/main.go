// Command postrider is an event gateway: it takes events over HTTP and POSTs
// them as signed webhooks to every endpoint that subscribed.
//
// In: flags, POSTRIDER_… variables and a YAML file, in this order of precedence.
// Out: the roles ingest, fanout, deliver and control, one or several in a
// process, or one request of the command-line client, which uses nothing but
// the public HTTP API. SIGINT and SIGTERM end a role cleanly, a second one at
// once; the exit code is 0, 1 after an error and 80 for a wrong command line.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
)

// commands is the command line.
type commands struct {
	Dev     devCmd     `cmd:"" group:"Gateway" help:"Run all roles with an embedded Kafka and Redis: to try it, to develop against it."`
	All     allCmd     `cmd:"" group:"Gateway" help:"Run all roles in one process."`
	Ingest  ingestCmd  `cmd:"" group:"Gateway" help:"Run the intake: HTTP to the topic events."`
	Fanout  fanoutCmd  `cmd:"" group:"Gateway" help:"Run the fan-out: events to deliveries."`
	Deliver deliverCmd `cmd:"" group:"Gateway" help:"Run the delivery: signed POSTs and their retries."`
	Control controlCmd `cmd:"" group:"Gateway" help:"Run the management API."`
	Config  configCmd  `cmd:"" group:"Gateway" help:"Print the effective configuration of the roles, secrets hidden."`
	SealKey sealKeyCmd `cmd:"" group:"Gateway" help:"Print a keyset for --seal-key: a fresh one, or one in use with a key more, or with the newest alone."`

	Tenants       tenantsCmd       `cmd:"" group:"Client" help:"Manage tenants."`
	Endpoints     endpointsCmd     `cmd:"" group:"Client" help:"Manage endpoints."`
	Subscriptions subscriptionsCmd `cmd:"" group:"Client" help:"Manage subscriptions."`
	Keys          keysCmd          `cmd:"" group:"Client" help:"Manage API keys."`
	Deliveries    deliveriesCmd    `cmd:"" group:"Client" help:"Cancel deliveries."`
	Events        eventsCmd        `cmd:"" group:"Client" help:"Send events."`
	Reseal        resealCmd        `cmd:"" group:"Client" help:"Seal all secrets again with the newest seal key, so that older ones can be retired."`
	Tail          tailCmd          `cmd:"" group:"Client" help:"Show attempts live as they are made."`
	Listen        listenCmd        `cmd:"" group:"Client" help:"Receive webhooks here, verify and show them."`
	Version       versionCmd       `cmd:"" group:"Client" help:"Print the version."`

	PrintVersion kong.VersionFlag `name:"version" help:"Print the version."`
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(ctx *kong.Context) error {
	_, err := fmt.Fprintln(ctx.Stdout, versionLine())
	return err
}

func versionLine() string { return "postrider " + version() }

// version is the module's version, or the commit for a build from a checkout.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "devel"
}

// streams are the process's standard streams.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// exitCode is what kong wants to exit with: after --help and --version.
type exitCode int

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	code := run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// run executes a command line and returns the exit code.
func run(ctx context.Context, args []string, std streams) (code int) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exitCode:
			code = int(r)
		default:
			panic(r)
		}
	}()
	parser, err := newParser(std)
	if err != nil {
		_, _ = fmt.Fprintln(std.err, "postrider:", err)
		return 1
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		_, _ = fmt.Fprintf(std.err, "postrider: %v\n", err)
		return exitOf(err)
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	parsed.Bind(std)
	if err := parsed.Run(); err != nil && ctx.Err() == nil {
		_, _ = fmt.Fprintf(std.err, "postrider: %v\n", err)
		return 1
	} else if err != nil && !endedByContext(err) {
		_, _ = fmt.Fprintf(std.err, "postrider: while stopping: %v\n", err)
		return 1
	}
	return 0
}

func newParser(std streams) (*kong.Kong, error) { return parserOf(&commands{}, std) }

// parserOf parses command lines of these commands.
func parserOf(commands any, std streams) (*kong.Kong, error) {
	return kong.New(commands,
		kong.Name("postrider"),
		kong.Description("An open event gateway: events in over HTTP or Kafka, signed webhooks out."),
		kong.Writers(std.out, std.err),
		kong.Exit(func(code int) { panic(exitCode(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 120}),
		defaultVars(),
		kong.Vars{"version": versionLine()},
		kong.PostBuild(fitRoles),
	)
}
