package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/postrider/postrider/internal/auth"
)

// Config says what ingest takes. The zero value of a field means its default.
type Config struct {
	// Topic is the full name of the topic events; required.
	Topic string
	// MaxRecordBytes is the largest record of the topic, in bytes; 0 means
	// 1 MiB. An event may have 1 KiB less, attributes included.
	MaxRecordBytes int
	// MaxBodyBytes bounds a body, decompressed where it came compressed, in
	// bytes; 0 means 16 MiB.
	MaxBodyBytes int
	// MaxBatchEvents bounds the events of one request; 0 means 1,000.
	MaxBatchEvents int
	// MaxInFlightEvents bounds the events of all requests together that wait
	// for Kafka; 0 means 8,192. It should stay below the Kafka client's own
	// bound, which blocks instead of answering.
	MaxInFlightEvents int
	// MaxInFlightBytes bounds the bodies and record headers that wait for Kafka,
	// in bytes. It must hold two of the largest bodies (records repeat the
	// attributes that a body has), and a record; 0 means that, 48 MiB at least. It
	// should stay below the Kafka client's own bound.
	MaxInFlightBytes int
	// Decompressors is how many bodies may be decompressed at once; 0 means 4.
	// Together they hold at most that many times MaxBodyBytes and their windows.
	Decompressors int
	// AckTimeout is how long a request waits for Kafka, and before that for all of
	// its tenants to be looked up, and for a decompressor; 0 means 10 s. It must be
	// shorter than the HTTP server's drain time.
	AckTimeout time.Duration
	// RetryAfter is what a 503 tells the producer; 0 means 2 s.
	RetryAfter time.Duration
	// EventsPerSecond and BytesPerSecond (decompressed) bound what a tenant
	// without a quota of its own may send to this process; 0 means no bound.
	EventsPerSecond float64
	BytesPerSecond  float64
	// QuotaTenants bounds the tenants whose rate is remembered; 0 means 10,000.
	// A tenant that is forgotten begins with a full second's worth.
	QuotaTenants int
	// Clock tells the time; nil means time.Now.
	Clock func() time.Time
}

func (c Config) withDefaults() Config {
	setDefault(&c.MaxRecordBytes, 1<<20)
	setDefault(&c.MaxBodyBytes, 16<<20)
	setDefault(&c.MaxBatchEvents, 1000)
	setDefault(&c.MaxInFlightEvents, 8192)
	setDefault(&c.MaxInFlightBytes, max(48<<20, 2*c.MaxBodyBytes+c.MaxRecordBytes))
	setDefault(&c.Decompressors, 4)
	setDefault(&c.AckTimeout, 10*time.Second)
	setDefault(&c.RetryAfter, 2*time.Second)
	setDefault(&c.QuotaTenants, 10_000)
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Topic == "":
		return errors.New("topic: is required")
	case c.MaxRecordBytes < 2*envelope:
		return fmt.Errorf("max record bytes %d: must be at least %d", c.MaxRecordBytes, 2*envelope)
	case c.MaxInFlightEvents < c.MaxBatchEvents:
		return fmt.Errorf("max in flight events %d: a batch may have %d", c.MaxInFlightEvents, c.MaxBatchEvents)
	case c.MaxInFlightBytes < 2*c.MaxBodyBytes+c.MaxRecordBytes:
		return fmt.Errorf("max in flight bytes %d: must hold a body of %d twice and a record of %d", c.MaxInFlightBytes, c.MaxBodyBytes, c.MaxRecordBytes)
	case c.MaxBodyBytes < 0 || c.MaxBatchEvents < 0 || c.Decompressors < 0 || c.QuotaTenants < 0:
		return errors.New("a limit is negative")
	case c.AckTimeout < 0 || c.RetryAfter < 0:
		return errors.New("a time is negative")
	case c.EventsPerSecond < 0 || c.BytesPerSecond < 0:
		return errors.New("a rate is negative")
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// producer is what ingest needs of *kgo.Client. The promise is called once,
// with the partition and offset in the record or an error; Produce may block
// until its context ends.
type producer interface {
	Produce(ctx context.Context, r *kgo.Record, promise func(*kgo.Record, error))
}

// Deps are the parts that ingest works with.
type Deps struct {
	// Producer writes to Kafka with acks=all, a *kgo.Client; required.
	Producer producer
	// Keys finds identities and tenants; required.
	Keys *auth.Keys
	// Logger gets failures of Kafka, at most one line in 10 s; nil means silence.
	Logger *slog.Logger
	// Meters and Tracers get metrics and spans; nil means none.
	Meters  metric.MeterProvider
	Tracers trace.TracerProvider
}

func (d Deps) withDefaults() Deps {
	setDefault(&d.Logger, slog.New(slog.DiscardHandler))
	if d.Meters == nil {
		d.Meters = metricnoop.NewMeterProvider()
	}
	if d.Tracers == nil {
		d.Tracers = tracenoop.NewTracerProvider()
	}
	return d
}
