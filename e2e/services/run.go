package services

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Names of the environment variables between Run and its command.
const (
	KafkaEnv   = "KAFKA_BROKERS"    // host:port,host:port
	RedisEnv   = "REDIS_URL"        // redis://host:port/0
	MissingEnv = "SERVICES_MISSING" // "kafka: reason; redis: reason"
	RequireEnv = "REQUIRE"          // "all": a missing service is a failure
)

// errRequired says that a service is missing although REQUIRE=all.
var errRequired = errors.New("REQUIRE=all, but not all services can be had")

// endWait is how long a command may take to end after an interrupt.
const endWait = 30 * time.Second

// Run starts what the environment doesn't name yet, runs a command with the
// addresses in its environment, stops everything and returns the command's exit
// code. A service that can't be had is reported on stderr and in the command's
// environment; with REQUIRE=all it is an error.
func Run(ctx context.Context, opts Options, command []string, stderr io.Writer) (int, error) {
	env := os.Environ()
	var missing []string
	add := func(name, key string, start func() (value string, stop func(), err error)) func() {
		if os.Getenv(key) != "" {
			return func() {}
		}
		value, stop, err := start()
		if err != nil {
			missing = append(missing, name+": "+strings.ReplaceAll(err.Error(), "\n", " "))
			_, _ = fmt.Fprintf(stderr, "not run: %s: %v\n", name, err)
			return func() {}
		}
		env = append(env, key+"="+value)
		return stop
	}
	stopKafka := add("kafka", KafkaEnv, func() (string, func(), error) {
		k, err := StartKafka(ctx, opts)
		if err != nil {
			return "", nil, err
		}
		return strings.Join(k.Brokers, ","), k.Stop, nil
	})
	defer stopKafka()
	stopRedis := add("redis", RedisEnv, func() (string, func(), error) {
		r, err := StartRedis(ctx, RedisOptions{})
		if err != nil {
			return "", nil, err
		}
		return r.URL, r.Stop, nil
	})
	defer stopRedis()
	if len(missing) > 0 {
		if os.Getenv(RequireEnv) == "all" {
			return 1, errRequired
		}
		env = append(env, MissingEnv+"="+strings.Join(missing, "; "))
	}
	return execute(ctx, command, env, stderr)
}

// execute runs the command with this process's input and output. When ctx ends
// it is interrupted first and killed if that doesn't help.
func execute(ctx context.Context, command, env []string, stderr io.Writer) (int, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...) //nolint:gosec // the caller's command is the point
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = endWait
	endWithParent(cmd)
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(1, exit.ExitCode()), nil
	}
	if err != nil {
		return 1, fmt.Errorf("run %s: %w", command[0], err)
	}
	return 0, nil
}
