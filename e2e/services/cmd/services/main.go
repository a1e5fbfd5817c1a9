// Command services runs a command with a real Kafka and a real Redis:
//
//	go run ./e2e/services/cmd/services [-brokers 3] -- go test ./...
//
// In: KAFKA_BROKERS and REDIS_URL, which are used if they are set. Out: both
// variables for the command, and its exit code. What can't be had is named on
// stderr ("not run: kafka: no java") and in SERVICES_MISSING; with REQUIRE=all
// it is a failure.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/postrider/postrider/e2e/services"
)

func main() {
	brokers := flag.Int("brokers", 1, "how many Kafka brokers to start: 1 to 3")
	heap := flag.Int("heap", 384, "heap of each broker in MiB")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: services [-brokers n] [-heap MiB] -- command...")
		os.Exit(2)
	}
	os.Exit(start(services.Options{Brokers: *brokers, HeapMB: *heap}, flag.Args()))
}

// start is apart from main so that what it defers happens before the exit.
func start(opts services.Options, command []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := services.Run(ctx, opts, command, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "services:", err)
	}
	return code
}
