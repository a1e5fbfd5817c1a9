// Package testkit gives tests a Kafka and a Redis of their own.
//
// In: the test and, in KAFKA_BROKERS and REDIS_URL, the real services to use. Out:
// empty ones, embedded where none is named. What a test started ends with it.
package testkit

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/postrider/postrider/internal/broker"
)

const (
	dropWait = 2 * time.Minute
	// eventuallyWait is far more than anything that is waited for takes.
	eventuallyWait = 3 * time.Minute
	eventuallyTick = 2 * time.Millisecond
)

// EmbeddedKafka starts a broker in this process.
func EmbeddedKafka(tb testing.TB) broker.Config {
	tb.Helper()
	e, err := broker.StartEmbedded(broker.EmbeddedConfig{Dir: tb.TempDir()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := e.Close(); err != nil {
			tb.Error(err)
		}
	})
	return broker.Config{Brokers: e.Brokers(), Embedded: true}
}

// RealKafka returns a configuration for the Kafka of KAFKA_BROKERS, with a prefix
// of its own, and false if none is named. The topics are deleted in the end.
func RealKafka(tb testing.TB) (broker.Config, bool) {
	tb.Helper()
	brokers := os.Getenv("KAFKA_BROKERS")
	if brokers == "" {
		return broker.Config{}, false
	}
	c := broker.Config{
		Brokers: strings.Split(brokers, ","), Dev: true, AllowUnsafe: true,
		Prefix: "test-" + uuid.NewString() + ".",
	}
	tb.Cleanup(func() { DropTopics(tb, c) })
	return c, true
}

// Kafka returns the real Kafka, or an embedded one if none is named.
func Kafka(tb testing.TB) broker.Config {
	tb.Helper()
	if c, ok := RealKafka(tb); ok {
		return c
	}
	return EmbeddedKafka(tb)
}

// EachKafka runs a test on an embedded broker, and on a real one if one is named.
func EachKafka(t *testing.T, test func(t *testing.T, c broker.Config)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) { test(t, EmbeddedKafka(t)) })
	t.Run("kafka", func(t *testing.T) {
		c, ok := RealKafka(t)
		if !ok {
			t.Skip("not run: KAFKA_BROKERS is not set")
		}
		test(t, c)
	})
}

// DropTopics deletes the topics of a configuration, so that a broker that many
// tests share doesn't keep those of all of them.
func DropTopics(tb testing.TB, c broker.Config) {
	tb.Helper()
	cl, err := c.NewClient()
	if err != nil {
		tb.Error(err)
		return
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), dropWait)
	defer cancel()
	if _, err := kadm.NewClient(cl).DeleteTopics(ctx, c.Topics().All()...); err != nil {
		tb.Error(err)
	}
}

// Embedded is a Redis in this process, as registry has one.
type Embedded interface {
	Addr() string
	Close()
	Run(ctx context.Context) error
}

// RealRedis returns an emptied database of the Redis of REDIS_URL, and false if
// none is named. Each package takes another number, because packages are tested
// at the same time.
func RealRedis(tb testing.TB, db int) (*redis.Client, bool) {
	tb.Helper()
	url := os.Getenv("REDIS_URL")
	if url == "" {
		return nil, false
	}
	opts, err := redis.ParseURL(url)
	if err != nil {
		tb.Fatal(err)
	}
	opts.DB = db
	rdb := connect(tb, opts)
	if err := rdb.FlushDB(tb.Context()).Err(); err != nil {
		tb.Fatal(err)
	}
	return rdb, true
}

// EmbeddedRedis starts a Redis in this process: start is registry.StartEmbedded.
func EmbeddedRedis[E Embedded](tb testing.TB, start func() (E, error)) *redis.Client {
	tb.Helper()
	e, err := start()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(e.Close)
	Background(tb, e.Run)
	return connect(tb, &redis.Options{Addr: e.Addr()})
}

func connect(tb testing.TB, opts *redis.Options) *redis.Client {
	tb.Helper()
	rdb := redis.NewClient(opts)
	tb.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// Background runs something until stop is called or the test ends. Any error fails
// the test: that its context ended is none.
func Background(tb testing.TB, run func(context.Context) error) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := run(ctx); err != nil {
			tb.Error(err)
		}
	})
	stop = func() {
		cancel()
		wg.Wait()
	}
	tb.Cleanup(stop)
	return stop
}

// Eventually waits until the condition holds, at most three minutes.
func Eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	tick := time.NewTicker(eventuallyTick)
	defer tick.Stop()
	deadline := time.NewTimer(eventuallyWait)
	defer deadline.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			tb.Fatalf("never: %s", what)
		}
	}
}
