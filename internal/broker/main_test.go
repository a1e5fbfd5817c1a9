package broker

import (
	"context"
	"crypto/rand"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// each runs a test against the embedded broker and, if KAFKA_BROKERS is set,
// against that Kafka. The configuration has a prefix of its own.
func each(t *testing.T, fn func(t *testing.T, c Config)) {
	t.Helper()
	few := Partitions{Events: 3, Pages: 1, Deliveries: 3, ScheduleShards: 1, Decisions: 1, Dead: 1, Rejected: 1}
	t.Run("embedded", func(t *testing.T) {
		e, err := StartEmbedded(EmbeddedConfig{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
		fn(t, Config{Brokers: e.Brokers(), Embedded: true, Partitions: few})
	})
	t.Run("kafka", func(t *testing.T) {
		addrs := os.Getenv("KAFKA_BROKERS")
		if addrs == "" {
			t.Skip("not run: KAFKA_BROKERS is not set")
		}
		c := Config{
			Brokers: strings.Split(addrs, ","), Prefix: "test-" + rand.Text() + ".",
			Dev: true, AllowUnsafe: true, Partitions: few,
		}
		t.Cleanup(func() { dropTopics(t, c) })
		fn(t, c)
	})
}

func dropTopics(t *testing.T, c Config) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	adm := kadm.NewClient(client(t, c))
	defer adm.Close()
	topics, err := adm.ListTopics(ctx)
	if err != nil {
		t.Error(err)
	}
	var mine []string
	for name := range topics {
		if strings.HasPrefix(name, c.withDefaults().Prefix) {
			mine = append(mine, name)
		}
	}
	if _, err := adm.DeleteTopics(ctx, mine...); err != nil {
		t.Error(err)
	}
}

// client opens a client that ends with the test.
func client(t *testing.T, c Config, extra ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := c.NewClient(extra...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// ensured is a client of a cluster that has its topics.
func ensured(t *testing.T, c Config) (*kgo.Client, Report) {
	t.Helper()
	cl := client(t, c)
	rep, err := Ensure(t.Context(), cl, c)
	if err != nil {
		t.Fatal(err)
	}
	return cl, rep
}

// produce writes values to a partition and returns their offsets.
func produce(t *testing.T, c Config, topic string, partition int32, values ...string) []int64 {
	t.Helper()
	cl := client(t, c, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	var offsets []int64
	for _, v := range values {
		r, err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: partition, Value: []byte(v)}).First()
		if err != nil {
			t.Fatal(err)
		}
		offsets = append(offsets, r.Offset)
	}
	return offsets
}

// read polls until n records came or two minutes are over.
func read(t *testing.T, cl *kgo.Client, n int) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var got []*kgo.Record
	for len(got) < n {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatalf("after %d of %d records: %v", len(got), n, err)
		}
		got = append(got, fs.Records()...)
	}
	return got
}
