package services

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// process is one started program whose end is waited for.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and was reaped
}

// launch starts a program with its output appended to a log file. The program
// outlives ctx: it ends by kill.
func launch(ctx context.Context, logFile, name string, args ...string) (*process, error) {
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // a path of ours
	if err != nil {
		return nil, err
	}
	defer out.Close()                                                     //nolint:errcheck // the child has its own copy
	cmd := exec.CommandContext(context.WithoutCancel(ctx), name, args...) //nolint:gosec // programs and paths of this package
	cmd.Stdout, cmd.Stderr = out, out
	endWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // how it ended is in its log
	}()
	return p, nil
}

// kill ends the process at once and returns when it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails only if it has ended already
	<-p.done
}

// pid returns the process id.
func (p *process) pid() int { return p.cmd.Process.Pid }

// errEnded says that a program ended while it was waited for.
var errEnded = errors.New("the process ended")

// pollEvery is how often await asks.
const pollEvery = 50 * time.Millisecond

// await asks until ready returns nil, the process ends or ctx does.
func (p *process) await(ctx context.Context, ready func(context.Context) error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return errors.Join(errEnded, err)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// run executes a program to its end; its output is part of the error.
func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // programs and paths of this package
	endWithParent(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, lastLines(string(out), 8))
	}
	return nil
}

// FreePorts returns n different ports of 127.0.0.1 that were free a moment ago. They
// are below those that the system gives to outgoing connections: one of these could
// take a port before its server listens, or while that is restarted.
func FreePorts(n int) ([]int, error) {
	const first, count, tries = 10_000, 11_000, 1000
	ports := make([]int, 0, n)
	for range tries {
		port := first + rand.IntN(count)                                                //nolint:gosec // no secret
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))) //nolint:noctx // local and at once
		if err != nil {
			continue
		}
		defer ln.Close() //nolint:errcheck // all together at the end, so that none comes twice
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("no %d free ports from %d to %d", n, first, first+count)
}

// logTail returns the end of a log file for an error message.
func logTail(path string) string {
	b, err := os.ReadFile(path) //nolint:gosec // a path of ours
	if err != nil {
		return err.Error()
	}
	return lastLines(string(b), 12)
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
