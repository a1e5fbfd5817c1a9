package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopWait is how long a child may take to end after SIGTERM.
const stopWait = 30 * time.Second

// ticksPerSecond is the unit of CPU times in /proc: USER_HZ, 100 on every Linux
// that Go supports.
const ticksPerSecond = 100

// child is a process that this program started and ends.
type child struct {
	name string
	log  string // file of its output
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended; then err is set
	err  error
}

// startChild starts a process whose output goes to a file, behind what is there.
func startChild(ctx context.Context, cmd *exec.Cmd, name, log string) (*child, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // in our own folder
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", name, err)
	}
	defer file.Close() //nolint:errcheck // the child has its own
	cmd.Stdout, cmd.Stderr = file, file
	endWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c := &child{name: name, log: log, cmd: cmd, done: make(chan struct{})}
	go func() { // ends with the process, for which stop and kill wait
		defer close(c.done)
		c.err = cmd.Wait()
	}()
	return c, nil
}

// ended returns an error with the end of the log if the process has ended.
func (c *child) ended() error {
	select {
	case <-c.done:
		return fmt.Errorf("%s ended: %w\n%s", c.name, c.err, c.tail())
	default:
		return nil
	}
}

// tail returns the end of the process's output.
func (c *child) tail() string {
	text, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// stop ends the process with SIGTERM, and by force if that takes too long.
func (c *child) stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", c.name, err)
	}
	limit := time.NewTimer(stopWait)
	defer limit.Stop()
	select {
	case <-c.done:
		return nil
	case <-limit.C:
		return errors.Join(fmt.Errorf("%s did not end within %s of SIGTERM", c.name, stopWait), c.kill())
	}
}

// kill ends the process like kill -9 and waits until it is gone.
func (c *child) kill() error {
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", c.name, err)
	}
	<-c.done
	return nil
}

// usage is what a process has used.
type usage struct {
	cpu       time.Duration // user and system, since its start
	rss, peak int64         // bytes of memory: now, and at most since resetPeak
}

func (u usage) plus(v usage) usage { return usage{u.cpu + v.cpu, u.rss + v.rss, u.peak + v.peak} }

func (c *child) usage() (u usage, err error) {
	stat, err := os.ReadFile(c.proc("stat"))
	if err != nil {
		return u, fmt.Errorf("usage of %s: %w", c.name, err)
	}
	if u.cpu, err = parseCPU(stat); err != nil {
		return u, fmt.Errorf("usage of %s: %w", c.name, err)
	}
	status, err := os.ReadFile(c.proc("status"))
	if err != nil {
		return u, fmt.Errorf("usage of %s: %w", c.name, err)
	}
	u.rss, u.peak = parseMemory(status, "VmRSS:"), parseMemory(status, "VmHWM:")
	return u, nil
}

// resetPeak makes the present memory the peak.
func (c *child) resetPeak() error {
	return os.WriteFile(c.proc("clear_refs"), []byte("5"), 0)
}

func (c *child) proc(file string) string {
	return "/proc/" + strconv.Itoa(c.cmd.Process.Pid) + "/" + file
}

// parseCPU reads utime and stime, the 14th and 15th fields of /proc/<pid>/stat.
// The second, the program's name, may hold anything but ends with the last ")".
func parseCPU(stat []byte) (time.Duration, error) {
	rest := stat[bytes.LastIndexByte(stat, ')')+1:]
	fields := strings.Fields(string(rest))
	if len(fields) < 13 {
		return 0, fmt.Errorf("stat %q: too short", stat)
	}
	user, errUser := strconv.ParseInt(fields[11], 10, 64)
	system, errSystem := strconv.ParseInt(fields[12], 10, 64)
	if err := errors.Join(errUser, errSystem); err != nil {
		return 0, err
	}
	return time.Duration(user+system) * time.Second / ticksPerSecond, nil
}

// parseMemory returns a line of /proc/<pid>/status in bytes, 0 if it's absent.
func parseMemory(status []byte, name string) int64 {
	for line := range strings.Lines(string(status)) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == name {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}
