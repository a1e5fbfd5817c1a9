package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/telemetry"
)

// Bounds of what an operator may set.
const (
	// MinSlots leaves one slot for each quarter that is set apart.
	MinSlots = 4
	// MaxSlots is far above what a process has open files for.
	MaxSlots = 1 << 17
	// MinMaxAge lets a delivery have at least a few attempts.
	MinMaxAge = time.Minute
)

// Config is a worker's own configuration. Zero means the default.
type Config struct {
	// Instance is the worker's stable name: its group instance id. Required.
	Instance string
	// Slots is how many attempts may be under way at once; 4,096 by default. One whose
	// payload is larger than 64 KiB takes one more for each 64 KiB.
	// While attempts turn slow there may be more, up to 16 times as many if the
	// process's limit of open files allows it; it must allow three
	// times as many, a third of them for idle connections.
	Slots int
	// TenantShare is how many percent of the slots of each class one tenant's
	// attempts may hold; 50 by default, 100 is no limit.
	TenantShare int
	// DisableAfter is how long an endpoint may do nothing but fail before it is
	// disabled; 5 days by default, at least 12 h, negative is never. It takes at
	// least 20 failures.
	DisableAfter time.Duration
	// MaxAge bounds the age of a delivery, whatever its endpoint says; 5 days by
	// default.
	MaxAge time.Duration
	// Drain is how long attempts under way may take to finish when the worker
	// stops or loses a partition; 20 s by default.
	Drain time.Duration
	// MaxLanes bounds the endpoints kept in memory; idle ones above it are
	// forgotten, oldest first. 100,000 by default.
	MaxLanes int
	// MaxWaiting bounds the bytes of records that wait in memory; beyond it they
	// park. 64 MiB by default. Parked records read ahead may take as much again,
	// and one record of each lane up to four times as much in all.
	MaxWaiting int
	// DetailMetrics labels outcomes and durations with the ids of tenant and
	// endpoint; false: with neither.
	DetailMetrics bool
	// PublicURL is where receivers reach the API of control, for endpoints with the
	// format thin; empty: these can't be served.
	PublicURL string
}

// Deps is what a worker works with.
type Deps struct {
	Broker broker.Config
	Layout broker.Layout
	View   view
	Sealer sealer
	Egress poster
	Health *telemetry.Health
	Logger *slog.Logger
	Tracer trace.Tracer
	Meter  metric.Meter
}

// view is the part of the registry's view that a worker reads.
type view interface {
	Entities(ctx context.Context, refs []registry.Ref) ([]registry.Found, error)
}

// poster sends one request and reads the answer.
type poster interface {
	Do(ctx context.Context, req *egress.Request) egress.Result
}

func (c Config) withDefaults() Config {
	if c.Slots == 0 {
		c.Slots = 4096
	}
	if c.TenantShare == 0 {
		c.TenantShare = 50
	}
	if c.DisableAfter == 0 {
		c.DisableAfter = DefaultDisableAfter
	}
	if c.MaxAge == 0 {
		c.MaxAge = DefaultMaxAge
	}
	if c.Drain == 0 {
		c.Drain = 20 * time.Second
	}
	if c.MaxLanes == 0 {
		c.MaxLanes = 100_000
	}
	if c.MaxWaiting == 0 {
		c.MaxWaiting = 64 << 20
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Instance == "":
		return errors.New("instance: a stable name is required")
	case c.Slots < MinSlots || c.Slots > MaxSlots:
		return fmt.Errorf("slots %d: must be %d to %d", c.Slots, MinSlots, MaxSlots)
	case c.TenantShare < 1 || c.TenantShare > 100:
		return fmt.Errorf("tenant share %d: must be 1 to 100 percent", c.TenantShare)
	case c.DisableAfter > 0 && c.DisableAfter < MinDisableAfter:
		return fmt.Errorf("disable after %s: must be at least %s", c.DisableAfter, MinDisableAfter)
	case c.MaxAge < MinMaxAge:
		return fmt.Errorf("max age %s: must be at least %s", c.MaxAge, MinMaxAge)
	case c.MaxLanes < 1:
		return fmt.Errorf("max lanes %d: must be positive", c.MaxLanes)
	case c.MaxWaiting < 1:
		return fmt.Errorf("max waiting %d: must be positive", c.MaxWaiting)
	case c.Drain < time.Second || c.Drain > time.Minute:
		return fmt.Errorf("drain %s: must be 1s to 1m", c.Drain)
	}
	if files := openFiles(); files < 3*c.Slots+spareFiles {
		return fmt.Errorf("slots %d: up to %d connections, idle ones included, need as many open files, the limit is %d; raise it (ulimit -n) or lower the slots",
			c.Slots, 3*c.Slots+spareFiles, files)
	}
	return nil
}

// spareFiles are open files for everything but deliveries.
const spareFiles = 256

// overflow is how many times the slots attempts may be under way while they
// turn slow, as far as open files allow.
const overflow = 16

// most returns how many attempts may be under way at once. As many connections
// as slots may be idle beside them.
func (c Config) most() int { return min(overflow*c.Slots, openFiles()-spareFiles-c.Slots) }

// openFiles returns how many files the process may have open.
func openFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1 << 20 // not known: the operator is believed
	}
	return int(min(limit.Cur, 1<<20))
}
