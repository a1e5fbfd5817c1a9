package services

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const topicName = "proof"

// kafka starts brokers, or ends the test with the reason why it can't.
func kafka(t *testing.T, brokers int) *Kafka {
	t.Helper()
	k, err := StartKafka(t.Context(), Options{Brokers: brokers})
	if err != nil {
		missing(t, "kafka", err)
	}
	t.Cleanup(k.Stop)
	return k
}

func missing(t *testing.T, name string, err error) {
	t.Helper()
	if os.Getenv(RequireEnv) == "all" {
		t.Fatalf("%s: %v", name, err)
	}
	t.Skipf("not run: %s: %v", name, err)
}

// create makes the topic with one partition and as many replicas as brokers.
func create(t *testing.T, k *Kafka) {
	t.Helper()
	cl := dial(t, k)
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), 1, int16(len(k.Brokers)), nil, topicName); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, k *Kafka, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(k.Brokers...), kgo.DisableClientMetrics(), kgo.MetadataMinAge(100 * time.Millisecond),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func write(t *testing.T, k *Kafka, values ...string) {
	t.Helper()
	cl := dial(t, k)
	for _, v := range values {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topicName, Value: []byte(v)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// consume reads the topic from its start until n records came or 30 s are over.
func consume(t *testing.T, k *Kafka, n int, level kgo.IsolationLevel) []string {
	t.Helper()
	cl := dial(t, k, kgo.ConsumeTopics(topicName), kgo.FetchIsolationLevel(level))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got []string
	for len(got) < n {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		fs.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	return got
}

// The proof that this is Kafka: it stores, it hides aborted records from
// committed readers and shows them to others, and it survives kill -9 and SIGSTOP.
func TestKafka(t *testing.T) {
	t.Parallel()
	k := kafka(t, 1)
	create(t, k)
	write(t, k, "first")

	tx := dial(t, k, kgo.TransactionalID("proof"))
	if err := tx.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := tx.ProduceSync(t.Context(), &kgo.Record{Topic: topicName, Value: []byte("aborted")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := tx.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	write(t, k, "last")
	if got := strings.Join(consume(t, k, 2, kgo.ReadCommitted()), " "); got != "first last" {
		t.Errorf("committed: %s", got)
	}
	if got := strings.Join(consume(t, k, 3, kgo.ReadUncommitted()), " "); got != "first aborted last" {
		t.Errorf("uncommitted: %s", got)
	}

	if err := k.Pause(0); err != nil {
		t.Fatal(err)
	}
	frozen := dial(t, k)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := frozen.Ping(ctx); err == nil {
		t.Error("a paused broker answers")
	}
	if err := k.Resume(0); err != nil {
		t.Fatal(err)
	}
	write(t, k, "resumed")

	k.Kill(0)
	if err := k.Start(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(consume(t, k, 3, kgo.ReadCommitted()), " "); got != "first last resumed" {
		t.Errorf("after kill -9: %s", got)
	}
}

// Three brokers go on without one of them.
func TestKafkaCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("not run: -short")
	}
	k := kafka(t, 3)
	create(t, k)
	write(t, k, "a")
	k.Kill(0)
	write(t, k, "b")
	if err := k.Start(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	k.Kill(1)
	write(t, k, "c")
	if got := strings.Join(consume(t, k, 3, kgo.ReadCommitted()), " "); got != "a b c" {
		t.Errorf("read %s", got)
	}
}

// A dump that was saved is what a killed server comes back with: older than what
// was acknowledged since. Without one it comes back empty.
func TestRedis(t *testing.T) {
	t.Parallel()
	r, err := StartRedis(t.Context(), RedisOptions{})
	if err != nil {
		missing(t, "redis", err)
	}
	t.Cleanup(r.Stop)
	opts, err := redis.ParseURL(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	cl := redis.NewClient(opts)
	t.Cleanup(func() { _ = cl.Close() })
	set := func(v string) {
		t.Helper()
		if err := cl.Set(t.Context(), "k", v, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	restart := func() string {
		t.Helper()
		r.Kill()
		if err := r.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		return cl.Get(t.Context(), "k").Val()
	}
	if policy := cl.ConfigGet(t.Context(), "maxmemory-policy").Val()["maxmemory-policy"]; policy != "noeviction" {
		t.Errorf("policy %s", policy)
	}
	before := r.Pid()
	set("old")
	if err := r.SaveDump(t.Context()); err != nil {
		t.Fatal(err)
	}
	set("new")
	if got := restart(); got != "old" || r.Pid() == before {
		t.Errorf("after a restart %q, pid %d then %d", got, before, r.Pid())
	}
	if err := r.DropDump(); err != nil {
		t.Fatal(err)
	}
	if got := restart(); got != "" {
		t.Errorf("after a restart without a dump %q", got)
	}
}

// A cluster's replica takes over from its master, and the master comes back as
// its replica.
func TestRedisCluster(t *testing.T) {
	c, err := StartRedisCluster(t.Context(), 3)
	if err != nil {
		missing(t, "redis", err)
	}
	t.Cleanup(c.Stop)
	opt, err := redis.ParseClusterURL(c.URL)
	if err != nil {
		t.Fatal(err)
	}
	opt.ClusterStateReloadInterval = 100 * time.Millisecond
	cl := redis.NewClusterClient(opt)
	t.Cleanup(func() { _ = cl.Close() })
	master, err := c.masterOf(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	err = master.with(func(cl *redis.Client) error {
		return errors.Join(cl.Set(t.Context(), "key", "before", 0).Err(), cl.Wait(t.Context(), 1, 10*time.Second).Err())
	})
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.Failover(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := cl.Get(t.Context(), "key").Result(); err != nil || got != "before" {
		t.Errorf("the replica has %q, %v", got, err)
	}
	if err := first.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	if second, err := c.Failover(t.Context(), "key"); err != nil || second == first {
		t.Errorf("the node that came back serves the key: %v", err)
	}
	if got, err := cl.Get(t.Context(), "key").Result(); err != nil || got != "before" {
		t.Errorf("the first node has %q, %v", got, err)
	}
}

// Sentinels make the replica the master, and the master that comes back its
// replica.
func TestRedisSentinel(t *testing.T) {
	s, err := StartRedisSentinel(t.Context())
	if err != nil {
		missing(t, "redis", err)
	}
	t.Cleanup(s.Stop)
	first, err := s.Failover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	second, err := s.Failover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if second == first {
		t.Errorf("%s came back as the master", first.URL)
	}
}

func TestRunUsesWhatIsThereAndNamesWhatIsNot(t *testing.T) {
	t.Setenv(KafkaEnv, "kafka.example:9092")
	t.Setenv(RedisEnv, "")
	t.Setenv(RequireEnv, "")
	t.Setenv("PATH", "/nowhere") // no redis-server, no apt-get
	out := t.TempDir() + "/out"
	script := `echo "$KAFKA_BROKERS|$REDIS_URL|$SERVICES_MISSING" > ` + out + `; exit 7`
	var stderr strings.Builder
	code, err := Run(t.Context(), Options{}, []string{"/bin/sh", "-c", script}, &stderr)
	if err != nil || code != 7 {
		t.Errorf("code %d, error %v", code, err)
	}
	got, err := os.ReadFile(out)
	if want := "kafka.example:9092||redis: no redis-server\n"; err != nil || string(got) != want {
		t.Errorf("the command saw %q, want %q", got, want)
	}
	if want := "not run: redis: no redis-server\n"; stderr.String() != want {
		t.Errorf("stderr %q, want %q", stderr.String(), want)
	}
	t.Setenv(RequireEnv, "all")
	if code, err := Run(t.Context(), Options{}, []string{"/bin/sh", "-c", "exit 0"}, &stderr); err == nil || code == 0 {
		t.Errorf("REQUIRE=all: code %d, error %v", code, err)
	}
}

func TestKafkaOptions(t *testing.T) {
	t.Parallel()
	if _, err := StartKafka(t.Context(), Options{Brokers: 4}); err == nil {
		t.Error("four brokers, no error")
	}
}

// A client behind a relay meets the brokers only through it: cut, nothing
// answers; mended, what was on its way arrives.
func TestRelay(t *testing.T) {
	t.Parallel()
	k, err := StartKafka(t.Context(), Options{Relay: true})
	if err != nil {
		missing(t, "kafka", err)
	}
	t.Cleanup(k.Stop)
	create(t, k)
	cl := dial(t, k, kgo.SeedBrokers(k.Relays[0].Address))
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topicName, Value: []byte("before")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	k.Relays[0].Cut()
	done := make(chan error, 1)
	cl.Produce(t.Context(), &kgo.Record{Topic: topicName, Value: []byte("held up")}, func(_ *kgo.Record, err error) { done <- err })
	write(t, k, "around it")
	select {
	case err := <-done:
		t.Fatalf("a cut relay lets through: %v", err)
	default:
	}
	k.Relays[0].Mend()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(consume(t, k, 3, kgo.ReadCommitted()), ","); got != "before,around it,held up" {
		t.Errorf("read %s", got)
	}
}
