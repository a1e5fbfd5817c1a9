package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// Headroom is how much larger than an event, in bytes, a record of an internal
// topic may be: what a stage can read it can also write with its own headers.
const Headroom = 64 << 10

const day = 24 * time.Hour

// Config says how to reach Kafka and what its topics are like. The zero value
// of a field means its default.
type Config struct {
	// Brokers are the seed addresses, host:port; at least one.
	Brokers []string
	// Prefix stands before topic, group and transactional names; "" means
	// DefaultPrefix.
	Prefix string
	// Version is this program's version as brokers show it in their metrics;
	// letters, digits, dots and dashes; "" means "dev".
	Version string
	TLS     TLS
	SASL    SASL
	// Dial connects to a broker, for example [Embedded.Dial]; nil means TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// ReplicationFactor of topics that are created; 0 means 3, or 1 with Dev
	// or Embedded.
	ReplicationFactor int16
	// MinISR is min.insync.replicas of topics that are created; 0 means 2, or
	// 1 with Dev or Embedded.
	MinISR     int16
	Retention  Retention
	Partitions Partitions
	// MaxMessageBytes is the largest event record (M), at most half of
	// [MaxBatchBytes], so that what is written can be read; 0 means 1 MiB. Internal
	// topics take Headroom more.
	MaxMessageBytes int32
	// MaxAge is how long a delivery may live; deliveries must be kept a day
	// longer. 0 means 5 days.
	MaxAge time.Duration

	// AllowUnsafe turns unsafe findings of Ensure from an error into entries of
	// its report.
	AllowUnsafe bool
	// Dev creates topics with few partitions and one replica.
	Dev bool
	// Embedded says that the broker is StartEmbedded's: one process, one clock,
	// one copy. Safety checks that need a cluster are skipped.
	Embedded bool
	// EmbeddedBytes bounds what all topics of an embedded broker keep together,
	// in bytes; 0 means 2 GiB. What a stage has not read yet is kept beyond that, up
	// to as much again for each topic, see [Embedded.SpareUnread]. Only used with
	// Embedded.
	EmbeddedBytes int64
	// Start says where a group goes on that lost its commits; the default
	// StartRefuse makes that an error. It is meant for one start.
	Start Start

	// Linger is how long a producer waits for more records of a partition
	// before it sends; 0 means not at all (see Options).
	Linger time.Duration
	// Logger gets the client's messages; nil means silence.
	Logger *slog.Logger
}

// Retention is how long topics keep records; 0 means the default.
type Retention struct {
	Events     time.Duration // 7 days; pages too
	Deliveries time.Duration // 7 days
	Attempts   time.Duration // 30 days
	Schedule   time.Duration // 14 days
	Decisions  time.Duration // 30 days
	Dead       time.Duration // 30 days
	Rejected   time.Duration // 30 days
	Audit      time.Duration // 400 days
	Tombstones time.Duration // of registry: 7 days
}

// Partitions overrides partition counts of topics that are created; 0 means the
// default (in brackets: with Dev or Embedded).
type Partitions struct {
	Events         int32 // 32 (8)
	Pages          int32 // 16 (4)
	Deliveries     int32 // 64 (8); attempts and lanes too
	ScheduleShards int32 // 1 (1); schedule has WheelLevels as many partitions
	Decisions      int32 // 16 (4)
	Dead           int32 // 16 (4)
	Rejected       int32 // 8 (2)
}

// Topics returns the names of the topics under the configured prefix.
func (c Config) Topics() Topics { return Names(c.Prefix) }

// Group returns the full name of a consumer group, for example
// "postrider.deliver" for "deliver".
func (c Config) Group(name string) string { return c.withDefaults().Prefix + name }

// Validate reports the first setting that makes no sense.
func (c Config) Validate() error {
	c = c.withDefaults()
	switch {
	case len(c.Brokers) == 0:
		return errors.New("brokers: at least one address is needed")
	case c.MaxMessageBytes < 1<<10 || c.MaxMessageBytes > MaxBatchBytes/2:
		return fmt.Errorf("max message bytes %d: must be 1 KiB to %d MiB", c.MaxMessageBytes, MaxBatchBytes/2>>20)
	case c.MinISR > c.ReplicationFactor:
		return fmt.Errorf("min in-sync replicas %d: above the replication factor %d", c.MinISR, c.ReplicationFactor)
	case c.Linger < 0 || c.Linger > time.Second:
		return fmt.Errorf("linger %s: must be 0 to 1s", c.Linger)
	}
	if err := c.checkRetention(); err != nil {
		return err
	}
	if err := c.Start.valid(); err != nil {
		return err
	}
	return c.SASL.valid()
}

// withDefaults returns the configuration with every zero value replaced.
func (c Config) withDefaults() Config {
	small := c.Dev || c.Embedded
	setDefault(&c.Prefix, DefaultPrefix)
	setDefault(&c.Version, "dev")
	setDefault(&c.ReplicationFactor, either[int16](small, 1, 3))
	setDefault(&c.MinISR, either[int16](small, 1, 2))
	setDefault(&c.MaxMessageBytes, 1<<20)
	setDefault(&c.MaxAge, 5*day)
	setDefault(&c.EmbeddedBytes, 2<<30)
	setDefault(&c.Logger, slog.New(slog.DiscardHandler))

	r := &c.Retention
	setDefault(&r.Events, 7*day)
	setDefault(&r.Deliveries, 7*day)
	setDefault(&r.Attempts, 30*day)
	setDefault(&r.Schedule, 14*day)
	setDefault(&r.Decisions, 30*day)
	setDefault(&r.Dead, 30*day)
	setDefault(&r.Rejected, 30*day)
	setDefault(&r.Audit, 400*day)
	setDefault(&r.Tombstones, 7*day)

	p := &c.Partitions
	setDefault(&p.Events, either[int32](small, 8, 32))
	setDefault(&p.Pages, either[int32](small, 4, 16))
	setDefault(&p.Deliveries, either[int32](small, 8, 64))
	setDefault(&p.ScheduleShards, 1)
	setDefault(&p.Decisions, either[int32](small, 4, 16))
	setDefault(&p.Dead, either[int32](small, 4, 16))
	setDefault(&p.Rejected, either[int32](small, 2, 8))
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func either[T any](cond bool, yes, no T) T {
	if cond {
		return yes
	}
	return no
}
