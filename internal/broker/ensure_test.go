package broker

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

func TestEnsureCreatesOnceAndChecks(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		cl, first := ensured(t, c)
		if got := len(first.Created); got != len(c.Topics().All()) {
			t.Errorf("created %d topics: %v", got, first.Created)
		}
		if diff := cmp.Diff(Layout{Deliveries: 3, ScheduleShards: 1, Version: 1}, first.Layout); diff != "" {
			t.Errorf("layout (-want +got):\n%s", diff)
		}
		if n := first.Partitions[c.Topics().Registry]; n != 1 {
			t.Errorf("registry has %d partitions", n)
		}
		if n := first.Partitions[c.Topics().Schedule]; n != WheelLevels {
			t.Errorf("schedule has %d partitions", n)
		}
		again, err := Ensure(t.Context(), cl, c)
		if err != nil {
			t.Fatal(err)
		}
		first.Created = nil
		if diff := cmp.Diff(first, again); diff != "" {
			t.Errorf("second report (-first +second):\n%s", diff)
		}
		for _, name := range c.Topics().All() {
			id, err := TopicID(t.Context(), cl, name)
			if err != nil || id != first.TopicIDs[name] || id == [16]byte{} {
				t.Errorf("id of %s: %x, report says %x, error %v", name, id, first.TopicIDs[name], err)
			}
		}
		if _, err := TopicID(t.Context(), cl, c.Topics().Events+"x"); err == nil {
			t.Error("an unknown topic has an id")
		}
	})
}

func TestEnsureByManyAtOnce(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		var g errgroup.Group
		reports := make([]Report, 5)
		for i := range reports {
			cl := client(t, c)
			g.Go(func() (err error) {
				reports[i], err = Ensure(t.Context(), cl, c)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		created := 0
		for _, r := range reports {
			created += len(r.Created)
		}
		if created != len(c.Topics().All()) {
			t.Errorf("%d topics created by all together", created)
		}
	})
}

// A topic with the right name and the wrong shape would give an endpoint two
// homes: nothing allows that.
func TestEnsureRefusesAWrongLayout(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		names := c.Topics()
		for _, tt := range []struct {
			topic      string
			partitions int32
		}{{names.Attempts, 4}, {names.Lanes, 2}, {names.Schedule, 16}, {names.Registry, 2}} {
			adm := kadm.NewClient(client(t, c))
			if _, err := adm.DeleteTopics(t.Context(), names.All()...); err != nil {
				t.Fatal(err)
			}
			await(t, func() bool {
				missing, _, err := c.withDefaults().missing(t.Context(), adm)
				return err == nil && len(missing) == len(names.All())
			})
			if _, err := adm.CreateTopic(t.Context(), tt.partitions, 1, nil, tt.topic); err != nil {
				t.Fatal(err)
			}
			if _, err := Ensure(t.Context(), client(t, c), c); !errors.Is(err, ErrLayout) {
				t.Errorf("%s with %d partitions: error %v, want ErrLayout", tt.topic, tt.partitions, err)
			}
		}
	})
}

func TestEnsureRefusesUnsafeSettings(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		if c.Embedded {
			_, rep := ensured(t, c)
			if len(rep.Findings) > 0 {
				t.Errorf("embedded has findings: %v", rep.Findings)
			}
			return
		}
		strict := c
		strict.AllowUnsafe = false
		_, err := Ensure(t.Context(), client(t, c), strict)
		unsafe, ok := errors.AsType[*UnsafeError](err)
		if !ok {
			t.Fatalf("a cluster of one: error %v", err)
		}
		if missing, _, err := c.withDefaults().missing(t.Context(), kadm.NewClient(client(t, c))); err != nil || len(missing) != len(c.Topics().All()) {
			t.Errorf("topics were created unsafely: only %d are missing, error %v", len(missing), err)
		}
		if !strings.Contains(unsafe.Error(), "cluster: brokers is 1, want >= 3") {
			t.Errorf("error %s", unsafe)
		}
		_, rep := ensured(t, c)
		seen := map[string]bool{}
		for _, f := range rep.Findings {
			seen[f.Topic+" "+f.Setting] = true
		}
		for _, want := range []string{
			" brokers", " offsets.topic.replication.factor", " transaction.state.log.min.isr",
			c.Topics().Events + " replication factor", c.Topics().Registry + " min.insync.replicas",
		} {
			if !seen[want] {
				t.Errorf("no finding %q among %v", want, rep.Findings)
			}
		}
		for _, f := range rep.Findings {
			if f.Topic != "" && f.Setting != "replication factor" && f.Setting != keyMinISR {
				t.Errorf("our own topics are judged unsafe: %s", f)
			}
		}
	})
}

// Each setting that a check looks at is found when it is wrong in a real topic.
func TestEnsureFindsWrongTopicSettings(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		if c.Embedded {
			t.Skip("the embedded broker is exempt")
		}
		cl, _ := ensured(t, c)
		names := c.Topics()
		adm := kadm.NewClient(cl)
		wrong := []struct{ topic, key, value string }{
			{names.Events, keyTimestamp, "CreateTime"},
			{names.Deliveries, keyRetention, "86400000"},
			{names.Attempts, keyRetentionSize, "1000000"},
			{names.Lanes, keyCleanup, cleanupDelete},
			{names.Registry, keyTombstones, "1000"},
			{names.Dead, keyUnclean, "true"},
			{names.Deliveries, keyMaxMessage, "1048576"},
		}
		for _, w := range wrong {
			_, err := adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: w.key, Value: new(w.value)}}, w.topic)
			if err != nil {
				t.Fatal(err)
			}
		}
		await(t, func() bool {
			rep, err := Ensure(t.Context(), cl, c)
			if err != nil {
				t.Fatal(err)
			}
			found := 0
			for _, w := range wrong {
				for _, f := range rep.Findings {
					if f.Topic == w.topic && f.Setting == w.key && f.Got == w.value && strings.Contains(f.Fix, w.key) {
						found++
					}
				}
			}
			return found == len(wrong)
		})
	})
}

func TestSafeSettingsHaveNoFindings(t *testing.T) {
	t.Parallel()
	c := Config{Brokers: []string{"x:1"}}.withDefaults()
	for _, s := range c.specs() {
		if found := s.check(s.settings(c)); len(found) > 0 {
			t.Errorf("%s: %v", s.name, found)
		}
		conf := s.settings(c)
		delete(conf, keyRetention)
		delete(conf, keyTombstones)
		if found := s.check(conf); len(found) != 1 {
			t.Errorf("%s without retention: %v", s.name, found)
		}
	}
	if found := c.checkPlan(); len(found) > 0 {
		t.Errorf("default plan: %v", found)
	}
}

// An event of the largest size fits into events, and with the headers of a
// delivery into deliveries.
func TestSizeLimits(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		c.MaxMessageBytes = 200_000
		cl, _ := ensured(t, c)
		for _, tt := range []struct {
			topic string
			size  int
			fits  bool
		}{
			{c.Topics().Events, 199_900, true},
			{c.Topics().Events, 200_000, false},
			{c.Topics().Deliveries, 200_000 + Headroom - 100, true},
			{c.Topics().Deliveries, 200_000 + Headroom, false},
		} {
			_, err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: tt.topic, Value: make([]byte, tt.size)}).First()
			if (err == nil) != tt.fits {
				t.Errorf("%d bytes to %s: %v", tt.size, tt.topic, err)
			}
		}
	})
}

// A broker that is down counts where it holds replicas: a process may start while
// one of three is away.
func TestCountBrokers(t *testing.T) {
	t.Parallel()
	up := kadm.BrokerDetails{{NodeID: 1}, {NodeID: 3}}
	if n := countBrokers(up, nil); n != 2 {
		t.Errorf("%d brokers without topics, want those that are up", n)
	}
	topics := kadm.TopicDetails{"a": {Partitions: kadm.PartitionDetails{0: {Replicas: []int32{3, 2, 1}}, 1: {Replicas: []int32{1, 2, 3}}}}}
	if n := countBrokers(up, topics); n != 3 {
		t.Errorf("%d brokers with one of three down, want 3", n)
	}
}
