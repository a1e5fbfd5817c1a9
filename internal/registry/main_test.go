package registry

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/testkit"
	"github.com/postrider/postrider/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a Kafka and a Redis with an empty registry.
type rig struct {
	t      testing.TB
	kafka  broker.Config
	client *kgo.Client
	redis  *redis.Client
	topic  string
	view   *View
	writer *Writer
}

// testDB keeps a shared Redis apart from the tests of other packages.
const testDB = 7

// each runs a test on the embedded services, and on those that KAFKA_BROKERS
// and REDIS_URL name.
func each(t *testing.T, test func(*testing.T, *rig)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) { test(t, newRig(t)) })
	t.Run("redis", func(t *testing.T) {
		rdb, ok := testkit.RealRedis(t, testDB)
		if !ok {
			t.Skip("not run: REDIS_URL is not set")
		}
		test(t, newRigOn(t, testkit.EmbeddedKafka(t), rdb))
	})
	t.Run("kafka", func(t *testing.T) {
		kafka, ok := testkit.RealKafka(t)
		if !ok {
			t.Skip("not run: KAFKA_BROKERS is not set")
		}
		rdb, ok := testkit.RealRedis(t, testDB)
		if !ok {
			rdb = embeddedRedis(t)
		}
		test(t, newRigOn(t, kafka, rdb))
	})
}

func embeddedRedis(tb testing.TB) *redis.Client {
	tb.Helper()
	return testkit.EmbeddedRedis(tb, StartEmbedded)
}

// newRig is all embedded.
func newRig(tb testing.TB) *rig {
	tb.Helper()
	return newRigOn(tb, testkit.EmbeddedKafka(tb), embeddedRedis(tb))
}

func newRigOn(t testing.TB, kafka broker.Config, rdb *redis.Client) *rig {
	t.Helper()
	r := &rig{t: t, kafka: kafka, redis: rdb}
	r.topic = r.kafka.Topics().Registry
	cl, err := r.kafka.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	r.client = cl
	if _, err := broker.Ensure(t.Context(), cl, r.kafka); err != nil {
		t.Fatal(err)
	}
	r.connect()
	return r
}

// connect makes view and writer for the topic as it is now.
func (r *rig) connect() {
	r.t.Helper()
	r.view = NewView(r.redis, r.topicID())
	r.writer = NewWriter(WriterConfig{Client: r.client, Topic: r.topic, Redis: r.redis, View: r.view})
}

func (r *rig) topicID() [16]byte {
	r.t.Helper()
	id, err := broker.TopicID(r.t.Context(), r.client, r.topic)
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// project starts a projector.
func (r *rig) project(change ...func(*ProjectorConfig)) (p *Projector, stop func()) {
	r.t.Helper()
	cfg := ProjectorConfig{Kafka: r.kafka, Redis: r.redis}
	for _, c := range change {
		c(&cfg)
	}
	p = NewProjector(cfg)
	return p, testkit.Background(r.t, p.Run)
}

// write appends a record without asking anybody.
func (r *rig) write(tenant, entity, value string, prev int64) int64 {
	r.t.Helper()
	rec := Record{Tenant: tenant, Entity: entity, Prev: prev}
	if value != "" {
		rec.Value = []byte(value)
	}
	k := newRecord(r.topic, rec)
	if err := r.client.ProduceSync(r.t.Context(), k).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
	return k.Offset
}

// end returns the log's end.
func (r *rig) end() int64 {
	r.t.Helper()
	end, err := broker.LastStableOffset(r.t.Context(), r.client, r.topic, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	return end
}

// caughtUp waits until all buckets have reached the log's end, and returns
// their markers.
func (r *rig) caughtUp() []Marker {
	r.t.Helper()
	end := r.end()
	var markers []Marker
	testkit.Eventually(r.t, "the view reaches the end", func() bool {
		var err error
		if markers, err = r.view.Markers(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		for _, m := range markers {
			if !m.Reached(end) {
				return false
			}
		}
		return true
	})
	return markers
}

// fold reads the whole log into what the view's hashes must hold.
func (r *rig) fold() map[string]map[string]string {
	r.t.Helper()
	log := newLogReader(r.client, r.topic, 0)
	state := map[string]map[string]string{}
	for {
		c, err := log.fetch(r.t.Context(), time.Millisecond)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, k := range c.records {
			rec, err := DecodeRecord(k)
			if err != nil {
				continue
			}
			foldInto(state, rec.Tenant, rec)
			if standsAlone(rec.Entity) {
				foldInto(state, rec.Entity, rec)
			}
		}
		if c.next >= c.end {
			return state
		}
	}
}

func foldInto(state map[string]map[string]string, name string, r Record) {
	if r.Value == nil {
		delete(state[name], r.Entity)
		if len(state[name]) == 0 {
			delete(state, name)
		}
		return
	}
	if state[name] == nil {
		state[name] = map[string]string{}
	}
	state[name][r.Entity] = fmt.Sprintf("%d %s", r.Offset, r.Value)
}

// content reads all hashes of the current generations, and fails if the sets of
// names or their counts don't fit.
func content(t testing.TB, rdb *redis.Client) map[string]map[string]string {
	t.Helper()
	ctx := t.Context()
	out := map[string]map[string]string{}
	for b := range Buckets {
		m, err := rdb.HGetAll(ctx, markerKey(b)).Result()
		if err != nil {
			t.Fatal(err)
		}
		names, err := rdb.SMembers(ctx, tenantsKey(b, m["gen"])).Result()
		if err != nil {
			t.Fatal(err)
		}
		if m["gen"] != "" && m["n"] != strconv.Itoa(len(names)) {
			t.Errorf("bucket %d counts %s names and has %d", b, m["n"], len(names))
		}
		for _, name := range names {
			hash, err := rdb.HGetAll(ctx, hashKey(b, m["gen"], name)).Result()
			if err != nil {
				t.Fatal(err)
			}
			if hash[versionField] == "" {
				t.Errorf("hash of %s has no version", name)
			}
			delete(hash, versionField)
			out[name] = hash
		}
	}
	return out
}

func expected(err error) bool {
	return err == nil || errors.Is(err, ErrBusy) || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrOutcomeUnknown)
}

func endpoint(tenant, id, url string) *Endpoint {
	return &Endpoint{Meta: Meta{Version: schemas.Version}, ID: id, Tenant: tenant, URL: url, State: StateEnabled, EnabledAfter: -1}
}
