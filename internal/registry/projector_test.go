package registry

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/postrider/postrider/internal/backoff"
	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/testkit"
)

func TestProjectorFollowsTheLog(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.project()
		if markers := r.caughtUp(); markers[0].Generation == 0 {
			t.Fatal("an empty log has no complete view")
		}
		r.write("acme", "tenant", `{"id":"acme"}`, PrevAbsent)
		ep := r.write("acme", "ep_1", `{"id":"ep_1"}`, PrevAbsent)
		key := r.write("acme", "key_1", `{"id":"key_1"}`, PrevAbsent)
		r.caughtUp()

		ctx := t.Context()
		versions, err := r.view.Versions(ctx, []string{"acme", "nobody"})
		if err != nil {
			t.Fatal(err)
		}
		if versions[0].At != key || versions[1].At != -1 || !versions[1].Reached(key+1) {
			t.Errorf("versions: %+v", versions)
		}
		found, err := r.view.Entities(ctx, []Ref{{"acme", "ep_1"}, {"key_1", "key_1"}, {"acme", "ep_2"}, {"nobody", "tenant"}})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []Entry{{ep, []byte(`{"id":"ep_1"}`)}, {key, []byte(`{"id":"key_1"}`)}, {}, {}} {
			if diff := cmp.Diff(want, found[i].Entry); diff != "" || found[i].OK != (want.Value != nil) || !found[i].Reached(key+1) {
				t.Errorf("entity %d: %+v (-want +got):\n%s", i, found[i], diff)
			}
		}

		for _, entity := range []string{"key_1", "ep_1", "tenant"} {
			r.write("acme", entity, "", PrevUnknown)
		}
		r.caughtUp()
		if diff := cmp.Diff(map[string]map[string]string{}, content(t, r.redis)); diff != "" {
			t.Errorf("after the last tombstone (-want +got):\n%s", diff)
		}
		if versions, err = r.view.Versions(ctx, []string{"acme"}); err != nil || versions[0].At != -1 {
			t.Errorf("a tenant that is gone: %+v, %v", versions, err)
		}
	})
}

// fill writes some tenants and returns their names.
func (r *rig) fill() []string {
	r.t.Helper()
	var names []string
	for i := range 2 * Buckets {
		name := fmt.Sprintf("tenant-%d", i)
		names = append(names, name)
		r.write(name, "tenant", fmt.Sprintf(`{"id":%q}`, name), PrevAbsent)
		r.write(name, fmt.Sprintf("key_%d", i), `{}`, PrevAbsent)
	}
	return names
}

// damage is something that Redis loses.
type damage struct {
	name string
	do   func(*testing.T, *rig)
	all  bool // every bucket is built anew
}

func damages(victim int) []damage {
	del := func(pattern func(generation string) string) func(*testing.T, *rig) {
		return func(t *testing.T, r *rig) {
			generation := r.redis.HGet(t.Context(), markerKey(victim), "gen").Val()
			keys, err := r.redis.Keys(t.Context(), pattern(generation)).Result()
			if err != nil || len(keys) == 0 {
				t.Fatal("nothing to delete", err)
			}
			if err := r.redis.Del(t.Context(), keys...).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return []damage{
		{"flush", func(t *testing.T, r *rig) {
			if err := r.redis.FlushDB(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"one bucket", del(func(string) string { return tag(victim) + "*" }), false},
		{"one marker", del(func(string) string { return markerKey(victim) }), false},
		{"one hash", del(func(g string) string { return hashKey(victim, g, "tenant-7") }), false},
		{"the set of names", del(func(g string) string { return tenantsKey(victim, g) }), false},
		{"all but the marker", del(func(g string) string { return tag(victim) + g + ":*" }), false},
		{"a field of the marker", func(t *testing.T, r *rig) {
			if err := r.redis.HDel(t.Context(), markerKey(victim), "next").Err(); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"an old position", func(t *testing.T, r *rig) {
			old := time.Now().Add(-tombstones).UnixMilli()
			if err := r.redis.HSet(t.Context(), markerKey(victim), "at", old).Err(); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"another topic's marker", func(t *testing.T, r *rig) {
			if err := r.redis.HSet(t.Context(), markerKey(victim), "topic", modelTopic).Err(); err != nil {
				t.Fatal(err)
			}
		}, false},
	}
}

// What is lost comes back by itself; only what was lost is built anew.
func TestViewHeals(t *testing.T) {
	victim := bucketOf("tenant-7")
	for _, tt := range damages(victim) {
		t.Run(tt.name, func(t *testing.T) {
			each(t, func(t *testing.T, r *rig) {
				names := r.fill()
				r.project()
				before := r.caughtUp()
				if _, err := r.view.Versions(t.Context(), names); err != nil { // learns the generations
					t.Fatal(err)
				}
				tt.do(t, r)
				// No read, from now on, may take loss for absence.
				testkit.Eventually(t, "a new generation is complete", func() bool {
					snapshots, err := r.view.Load(t.Context(), names)
					if err != nil {
						t.Fatal(err)
					}
					healed := true
					for i, s := range snapshots {
						if s.Complete && (s.At < 0 || len(s.Entries) != 2) {
							t.Fatalf("%s under a complete marker: %+v", names[i], s)
						}
						healed = healed && s.Complete && (bucketOf(names[i]) != victim || s.Generation > before[victim].Generation)
					}
					return healed
				})
				after := r.caughtUp()
				for b := range after {
					if anew := after[b].Generation > before[b].Generation; anew != (tt.all || b == victim) {
						t.Errorf("bucket %d built anew: %t", b, anew)
					}
				}
				if diff := cmp.Diff(r.fold(), content(t, r.redis)); diff != "" {
					t.Errorf("view (-want +got):\n%s", diff)
				}
				testkit.Eventually(t, "old generations are gone", func() bool { return onlyCurrent(t, r) })
			})
		})
	}
}

// onlyCurrent reports whether every key of the view belongs to its bucket's
// current generation. Where a set of names was lost, what it named stays.
func onlyCurrent(t *testing.T, r *rig) bool {
	t.Helper()
	for b, m := range r.caughtUp() {
		generations, err := r.redis.SMembers(t.Context(), generationsKey(b)).Result()
		if err != nil {
			t.Fatal(err)
		}
		if len(generations) != 1 || generations[0] != formatInt(m.Generation) {
			return false
		}
	}
	return true
}

func TestProjectorTakesOver(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		_, stop := r.project()
		r.project()
		r.write("acme", "tenant", `{}`, PrevAbsent)
		first := r.caughtUp()
		stop()
		r.write("acme", "tenant", `{"name":"x"}`, PrevUnknown)
		second := r.caughtUp()
		for b := range first {
			if first[b].Generation != second[b].Generation {
				t.Errorf("bucket %d was built anew by a successor", b)
			}
		}
	})
}

// A Redis that is newer than Kafka (or a Kafka restored from a copy) has
// positions that the log does not have.
func TestProjectorDoubtsImpossiblePositions(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		_, stop := r.project()
		r.fill()
		before := r.caughtUp()
		stop()
		if err := r.redis.HSet(t.Context(), markerKey(3), "next", r.end()+1).Err(); err != nil {
			t.Fatal(err)
		}
		r.project()
		testkit.Eventually(t, "the bucket is built anew", func() bool {
			after := r.caughtUp()
			return after[3].Generation > before[3].Generation && after[3].Next == r.end()
		})
		if diff := cmp.Diff(r.fold(), content(t, r.redis)); diff != "" {
			t.Errorf("view (-want +got):\n%s", diff)
		}
	})
}

func TestProjectorOutlastsRedis(t *testing.T) {
	r := newRig(t)
	p, _ := r.project()
	r.caughtUp()
	dead := NewProjector(ProjectorConfig{Kafka: r.kafka, Redis: redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})})
	stop := testkit.Background(t, dead.Run)
	testkit.Eventually(t, "an error shows", func() bool { return dead.Err() != nil })
	stop()
	if err := dead.cfg.Redis.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Err(); err != nil {
		t.Errorf("a projector at work: %v", err)
	}
}

func TestProjectorFollowsANewTopic(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.write("old", "tenant", `{}`, PrevAbsent)
		r.project()
		r.caughtUp()
		ctx := t.Context()
		if _, err := kadm.NewClient(r.client).DeleteTopics(ctx, r.topic); err != nil {
			t.Fatal(err)
		}
		old := r.view.topic
		testkit.Eventually(t, "another topic is there", func() bool {
			cl, err := r.kafka.NewClient()
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			if _, err := broker.Ensure(ctx, cl, r.kafka); err != nil {
				return false
			}
			id, err := broker.TopicID(ctx, cl, r.topic)
			if err != nil || topicText(id) == old {
				return false
			}
			_, err = broker.LastStableOffset(ctx, cl, r.topic, 0)
			return err == nil
		})
		cl, err := r.kafka.NewClient() // the old one knows the old topic
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		r.client = cl
		stale := r.view
		r.connect()
		r.write("new", "tenant", `{}`, PrevAbsent)
		r.caughtUp()
		if diff := cmp.Diff(r.fold(), content(t, r.redis)); diff != "" {
			t.Errorf("view (-want +got):\n%s", diff)
		}
		if versions, err := stale.Versions(ctx, []string{"new"}); err != nil || versions[0] != (Version{At: -1}) {
			t.Errorf("a view of the old topic: %+v, %v", versions, err)
		}
	})
}

func TestProjectorTellsLostUpdates(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		first := r.write("acme", "ep_1", `{}`, 17) // before the live tail: not judged
		lost := make(chan Record, 10)
		r.project(func(c *ProjectorConfig) { c.OnLostUpdate = func(rec Record) { lost <- rec } })
		r.caughtUp()
		r.write("acme", "ep_1", `{}`, first)
		r.write("acme", "ep_1/health", `{}`, 3)
		r.write("acme", "ep_1", `{}`, PrevUnknown)
		wrong := r.write("acme", "ep_1", `{}`, first)
		r.write("acme", "ep_2", `{}`, PrevAbsent)
		r.caughtUp()
		if rec := <-lost; rec.Offset != wrong || rec.Prev != first || rec.Entity != "ep_1" {
			t.Errorf("lost update: %+v", rec)
		}
		if len(lost) > 0 {
			t.Errorf("one more: %+v", <-lost)
		}
	})
}

func TestProjectorSkipsWhatNobodyCanRead(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.project()
		k := newRecord(r.topic, Record{Tenant: "acme", Entity: "@v", Value: []byte("{}")})
		if err := r.client.ProduceSync(t.Context(), k).FirstErr(); err != nil {
			t.Fatal(err)
		}
		at := r.write("acme", "tenant", `{}`, PrevAbsent)
		r.caughtUp()
		want := map[string]map[string]string{"acme": {"tenant": fmt.Sprintf("%d {}", at)}}
		if diff := cmp.Diff(want, content(t, r.redis)); diff != "" {
			t.Errorf("view (-want +got):\n%s", diff)
		}
	})
}

// Several projectors, zombies that hold no lease, updates, and Redis losing this
// and that: in the end the view is the fold of the log.
func TestViewSurvivesChaos(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for range 2 {
			r.project()
		}
		ctx, cancel := context.WithCancel(t.Context())
		var faults, updates sync.WaitGroup
		for range 2 {
			faults.Go(func() { r.zombie(ctx) })
		}
		for i := range 3 {
			updates.Go(func() { r.updates(t, fmt.Sprintf("tenant-%d", i), 40) })
		}
		faults.Go(func() { r.damage(ctx) })
		updates.Wait()
		cancel()
		faults.Wait()
		r.caughtUp()
		want := r.fold()
		testkit.Eventually(t, "the view is the fold of the log", func() bool {
			names := make([]string, 0, len(want))
			for name := range want {
				names = append(names, name)
			}
			if _, err := r.view.Versions(t.Context(), names); err != nil { // finds damage that is left
				t.Fatal(err)
			}
			r.caughtUp()
			return cmp.Equal(want, content(t, r.redis))
		})
		if err := r.redis.FlushDB(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, "a fresh view is the same", func() bool {
			r.caughtUp()
			return cmp.Equal(want, content(t, r.redis))
		})
	})
}

// zombie projects without asking for the lease.
func (r *rig) zombie(ctx context.Context) {
	p := NewProjector(ProjectorConfig{Kafka: r.kafka, Redis: r.redis})
	cl, err := r.kafka.NewClient()
	if err != nil {
		r.t.Error(err)
		return
	}
	defer cl.Close()
	wait := newBackoff()
	for ctx.Err() == nil {
		w, err := p.open(ctx, cl)
		for err == nil && ctx.Err() == nil {
			var c chunk
			if c, err = w.log.fetch(ctx, 10*time.Millisecond); err == nil {
				err = w.project(ctx, c)
			}
			if err == nil {
				err = w.sweeper.step(ctx)
			}
		}
		wait.Wait(ctx)
	}
}

// updates writes endpoints and keys of a tenant until n updates have gone well.
func (r *rig) updates(t *testing.T, tenant string, n int) {
	for done := 0; done < n; {
		_, err := r.writer.Update(t.Context(), tenant, func(s *TenantState) ([]Change, error) {
			id := fmt.Sprintf("ep_%d", rand.IntN(8))
			if _, ok := s.Endpoints[id]; ok && rand.IntN(2) == 0 {
				return []Change{{Entity: id}}, nil
			}
			return []Change{
				{Entity: fmt.Sprintf("key_%s-%d", tenant, rand.IntN(4)), Value: &Key{Tenant: tenant}},
				{Entity: id, Value: endpoint(tenant, id, fmt.Sprintf("https://example.com/%d", done))},
			}, nil
		})
		if !expected(err) {
			t.Error(err)
			return
		}
		if err == nil {
			done++
		}
	}
}

// damage takes something from Redis every now and then.
func (r *rig) damage(ctx context.Context) {
	for ctx.Err() == nil {
		backoff.Pause(ctx, time.Duration(20+rand.IntN(100))*time.Millisecond)
		b := bucketOf(fmt.Sprintf("tenant-%d", rand.IntN(3)))
		var err error
		switch rand.IntN(4) {
		case 0:
			err = r.redis.FlushDB(ctx).Err()
		case 1:
			err = r.redis.Del(ctx, markerKey(b)).Err()
		default:
			var keys []string
			if keys, err = r.redis.Keys(ctx, tag(b)+"*").Result(); err == nil && len(keys) > 0 {
				err = r.redis.Del(ctx, keys[rand.IntN(len(keys))]).Err()
			}
		}
		if err != nil && ctx.Err() == nil {
			r.t.Error(err)
		}
	}
}
