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
	"os"
	"os/signal"
	"syscall"
)

// sinkCommand is the argument with which the program runs as the sink.
const sinkCommand = "sink"

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
