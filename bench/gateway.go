package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/e2e/services"
)

const (
	embedded = "embedded"
	kafka    = "kafka"

	adminKey = "admin_bench_0123456789abcdef0123456789"
	// startWait bounds the time until a started gateway is ready.
	startWait = 90 * time.Second
	// maxSlots is the gateway's own default.
	maxSlots = 4096
)

// gateway is a running Postrider: one process, or one for each role.
type gateway struct {
	backend string
	prefix  string // of its topics
	roles   []*role
	// brokers returns where its Kafka is, embedded or not.
	brokers func() ([]string, error)
}

// role is one process of the gateway, which can be killed and started again.
type role struct {
	name  string
	addr  string
	pprof string // address of the profiling listener
	start func(context.Context) (*child, error)
	child *child
}

// setup is what gateways are started with.
type setup struct {
	binary string
	dir    string // of data and logs
	seal   string
	// brokers, redis and prefix belong to the backend kafka.
	brokers, redis, prefix string

	gateways int // started so far: each has topics of its own
}

// startGateway starts a backend and waits until it is ready. The kafka backend
// runs all roles in one process unless it is split.
func (s *setup) startGateway(ctx context.Context, backend string, form shape) (*gateway, error) {
	names := []string{"all"}
	switch {
	case backend == embedded:
		names = []string{"dev"}
	case form.split:
		names = []string{"control", "ingest", "fanout", "deliver"}
	}
	data, err := os.MkdirTemp(s.dir, backend+"-")
	if err != nil {
		return nil, err
	}
	ports, err := services.FreePorts(2 * len(names))
	if err != nil {
		return nil, err
	}
	g := s.newGateway(backend, data)
	for i, name := range names {
		r := s.newRole(g, name, data, ports[2*i:2*i+2], form.args)
		g.roles = append(g.roles, r)
		if r.child, err = r.start(ctx); err != nil {
			return nil, errors.Join(err, g.stop())
		}
	}
	if err := g.await(ctx); err != nil {
		return nil, errors.Join(err, g.stop())
	}
	return g, nil
}

func (s *setup) newGateway(backend, data string) *gateway {
	s.gateways++
	if backend == kafka {
		prefix := s.prefix + strconv.Itoa(s.gateways) + "."
		return &gateway{backend: backend, prefix: prefix, brokers: func() ([]string, error) { return strings.Split(s.brokers, ","), nil }}
	}
	return &gateway{backend: backend, brokers: func() ([]string, error) {
		port, err := os.ReadFile(filepath.Join(data, "data", "broker", "port")) //nolint:gosec // our own folder
		if err != nil {
			return nil, fmt.Errorf("port of the embedded broker: %w", err)
		}
		return []string{"127.0.0.1:" + strings.TrimSpace(string(port))}, nil
	}}
}

// kafka returns a client of the gateway's Kafka.
func (g *gateway) kafka(opts ...kgo.Opt) (*kgo.Client, error) {
	brokers, err := g.brokers()
	if err != nil {
		return nil, err
	}
	return kgo.NewClient(append(opts, kgo.SeedBrokers(brokers...))...)
}

// newRole makes a process with two ports of its own, which it keeps over restarts.
func (s *setup) newRole(g *gateway, name, data string, ports []int, more []string) *role {
	addr, profiler := fmt.Sprint("127.0.0.1:", ports[0]), fmt.Sprint("127.0.0.1:", ports[1])
	r := &role{name: name, addr: addr, pprof: profiler}
	args := append([]string{
		name, "--listen", addr, "--pprof", profiler, "--instance", "bench-" + name, "--log-level", "warn", "--drain-timeout", "5s",
	}, s.roleArgs(g, name, data)...)
	if name == "dev" || name == "all" || name == "fanout" {
		args = append(args, more...)
	}
	env := append(os.Environ(), "POSTRIDER_ADMIN_KEY="+adminKey)
	if name != "ingest" && name != "fanout" {
		env = append(env, "POSTRIDER_SEAL_KEY="+s.seal)
	}
	r.start = func(ctx context.Context) (*child, error) {
		cmd := exec.Command(s.binary, args...) //nolint:gosec,noctx // our own binary; ended by pid
		cmd.Env = env
		return startChild(ctx, cmd, name, filepath.Join(data, name+".log"))
	}
	return r
}

// roleArgs are the arguments that differ between roles.
func (s *setup) roleArgs(g *gateway, name, data string) (args []string) {
	if name != "ingest" && name != "fanout" {
		args = append(args, "--egress-allow-cidr", "127.0.0.0/8")
	}
	if name == "dev" || name == "all" || name == "deliver" {
		args = append(args, "--slots", strconv.Itoa(slots()))
	}
	if name == "dev" {
		return append(args, "--data", filepath.Join(data, "data"))
	}
	return append(
		args, "--allow-unsafe", "--kafka-brokers", s.brokers, "--redis-url", s.redis, "--topic-prefix", g.prefix,
		"--replication-factor", "1", "--min-insync-replicas", "1", "--events-partitions", "8", "--deliveries-partitions", "8",
	)
}

// slots returns the gateway's slots: as many as the limit of open files allows.
func slots() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Max > 1<<20 {
		return maxSlots
	}
	return max(64, min(maxSlots, (int(limit.Max)-512)/3))
}

// await returns when every process is ready.
func (g *gateway) await(ctx context.Context) error {
	for _, r := range g.roles {
		if err := r.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r *role) await(ctx context.Context) error {
	err := poll(ctx, startWait, func() (bool, error) {
		if err := r.child.ended(); err != nil {
			return false, err
		}
		return ready(ctx, r.addr), nil
	})
	if err != nil {
		return fmt.Errorf("%s is not ready: %w\n%s", r.name, err, r.child.tail())
	}
	return nil
}

// stop ends all processes, the last started first.
func (g *gateway) stop() error {
	var errs []error
	for _, r := range slices.Backward(g.roles) {
		if r.child != nil {
			errs = append(errs, r.child.stop())
		}
	}
	return errors.Join(errs...)
}

// ended returns an error with the log of the first process that has ended.
func (g *gateway) ended() error {
	for _, r := range g.roles {
		if err := r.child.ended(); err != nil {
			return err
		}
	}
	return nil
}

// role returns the process of a role; the only one has them all.
func (g *gateway) role(name string) *role {
	for _, r := range g.roles {
		if r.name == name {
			return r
		}
	}
	return g.roles[0]
}

func (g *gateway) api() api { return api{base: "http://" + g.role("control").addr, key: adminKey} }

func (g *gateway) sender() *sender { return newSender(g.role("ingest").addr, adminKey) }

// usage sums up all processes. An embedded broker is part of them; a Kafka and
// a Redis are not.
func (g *gateway) usage() (sum usage, err error) {
	for _, r := range g.roles {
		u, err := r.child.usage()
		if err != nil {
			return sum, err
		}
		sum = sum.plus(u)
	}
	return sum, nil
}

func (g *gateway) resetPeak() error {
	var errs []error
	for _, r := range g.roles {
		errs = append(errs, r.child.resetPeak())
	}
	return errors.Join(errs...)
}
