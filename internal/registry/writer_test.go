package registry

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
)

func TestUpdateIsSeenWhenItReturns(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.project()
		ctx := t.Context()
		var last int64
		for i := range 5 {
			written, err := r.writer.Update(ctx, "acme", func(s *TenantState) ([]Change, error) {
				if len(s.Endpoints) != i || i > 0 && s.TenantOffset != last {
					t.Errorf("update %d sees %d endpoints, tenant at %d, want %d", i, len(s.Endpoints), s.TenantOffset, last)
				}
				id := fmt.Sprintf("ep_%d", i)
				return []Change{
					{Entity: id, Value: endpoint("acme", id, "https://example.com")},
					{Tenant: "acme", Entity: TenantEntity, Value: &Tenant{ID: "acme", Name: strconv.Itoa(i)}},
				}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			last = written.Offset
			if diff := cmp.Diff([]int64{last - 1, last}, written.Offsets); diff != "" {
				t.Errorf("offsets (-want +got):\n%s", diff)
			}
			found, err := r.view.Entities(ctx, []Ref{{"acme", TenantEntity}})
			if err != nil || found[0].Offset != last {
				t.Errorf("view after the update: %+v, %v; want offset %d", found, err, last)
			}
		}
	})
}

// The view has all changes when an update returns, also those that stand in another
// bucket than the tenant.
func TestUpdateAwaitsEveryBucket(t *testing.T) {
	lane := "ep_1"
	for i := 0; bucketOf(lane) == bucketOf("acme"); i++ {
		lane = fmt.Sprintf("ep_%d", i)
	}
	r := newRig(t)
	_, stop := r.project()
	r.write("acme", ReportRef(lane).Entity, `{"v":1}`, PrevUnknown)
	r.caughtUp()
	stop()
	// One bucket follows, that of the report does not.
	next := r.end() + 1
	if err := r.redis.HSet(t.Context(), markerKey(bucketOf("acme")), "next", next).Err(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := r.writer.Update(ctx, "acme", func(*TenantState) ([]Change, error) {
		time.AfterFunc(100*time.Millisecond, cancel) // it waits no longer for what does not come
		return []Change{{Entity: ReportRef(lane).Entity}}, nil
	})
	if !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("have %v, want %v: the report is still in the view", err, ErrOutcomeUnknown)
	}
}

// The client asks twice where an answer was lost: what it took the first time is
// its own.
func TestLeaseIsTakenOnce(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		ours, theirs := newLease(r.redis, "lock:{acme}", time.Hour), newLease(r.redis, "lock:{acme}", time.Hour)
		for range 2 {
			if got, err := ours.acquire(t.Context()); !got || err != nil {
				t.Errorf("the holder is refused: %v", err)
			}
		}
		if got, err := theirs.acquire(t.Context()); got || err != nil {
			t.Errorf("another has the lease too, %v", err)
		}
		ours.release(t.Context())
		if got, err := theirs.acquire(t.Context()); !got || err != nil {
			t.Errorf("a released lease is refused: %v", err)
		}
	})
}

// Updates of one tenant go one after the other: no increment is lost.
func TestUpdatesOfATenantAreSerial(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.project(func(c *ProjectorConfig) {
			c.OnLostUpdate = func(rec Record) { t.Errorf("lost update: %+v", rec) }
		})
		const each, workers = 10, 4
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for done := 0; done < each; {
					_, err := r.writer.Update(t.Context(), "acme", func(s *TenantState) ([]Change, error) {
						n := 0
						if s.Tenant != nil {
							n, _ = strconv.Atoi(s.Tenant.Name)
						}
						return []Change{{Entity: TenantEntity, Value: &Tenant{ID: "acme", Name: strconv.Itoa(n + 1)}}}, nil
					})
					if err != nil && !errors.Is(err, ErrBusy) {
						t.Error(err)
						return
					}
					if err == nil {
						done++
					}
				}
			})
		}
		wg.Wait()
		snapshots, err := r.view.Load(t.Context(), []string{"acme"})
		if err != nil {
			t.Fatal(err)
		}
		state, err := snapshots[0].Decode()
		if err != nil || state.Tenant.Name != strconv.Itoa(each*workers) {
			t.Errorf("tenant %+v, %v; want %d updates", state.Tenant, err, each*workers)
		}
	})
}

func TestUpdateRefuses(t *testing.T) {
	r := newRig(t)
	r.project()
	own := errors.New("own")
	tests := []struct {
		name    string
		tenant  string
		changes []Change
		err     error // of fn
		want    error // nil: any
	}{
		{"tenant without a name", "", nil, nil, ErrMalformed},
		{"error of the caller", "acme", nil, own, own},
		{"other tenant", "acme", []Change{{Tenant: "b", Entity: "tenant"}}, nil, nil},
		{"malformed entity", "acme", []Change{{Entity: "@v", Value: 1}}, nil, ErrMalformed},
		{"entity twice", "acme", []Change{{Entity: "ep_1"}, {Entity: "ep_1"}}, nil, nil},
		{"typed nil", "acme", []Change{{Entity: "ep_1", Value: (*Endpoint)(nil)}}, nil, nil},
		{"not JSON", "acme", []Change{{Entity: "ep_1", Value: func() {}}}, nil, nil},
		{"too large", "acme", []Change{{Entity: "ep_1", Value: string(make([]byte, 2<<20))}}, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			end := r.end()
			_, err := r.writer.Update(t.Context(), tt.tenant, func(*TenantState) ([]Change, error) { return tt.changes, tt.err })
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("have %v, want %v", err, tt.want)
			}
			if r.end() != end {
				t.Error("something was written")
			}
			// The lock is free again.
			if _, err := r.writer.Update(t.Context(), "acme", func(*TenantState) ([]Change, error) { return nil, nil }); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUpdateWithoutHelp(t *testing.T) {
	t.Run("view not complete", func(t *testing.T) {
		r := newRig(t)                                               // no projector
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // also enough for the lock
		defer cancel()
		_, err := r.writer.Update(ctx, "acme", func(*TenantState) ([]Change, error) {
			t.Error("fn was called")
			return nil, nil
		})
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("have %v, want %v", err, ErrUnavailable)
		}
	})
	t.Run("lock taken", func(t *testing.T) {
		r := newRig(t)
		if got, err := newLease(r.redis, "lock:{acme}", time.Hour).acquire(t.Context()); !got {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := r.writer.Update(ctx, "acme", nil); !errors.Is(err, ErrBusy) {
			t.Errorf("have %v, want %v", err, ErrBusy)
		}
	})
	t.Run("redis away", func(t *testing.T) {
		r := newRig(t)
		away := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
		t.Cleanup(func() { _ = away.Close() })
		r.writer.cfg.Redis = away
		if _, err := r.writer.Update(t.Context(), "acme", nil); !errors.Is(err, ErrUnavailable) {
			t.Errorf("have %v, want %v", err, ErrUnavailable)
		}
	})
	t.Run("view stops", func(t *testing.T) {
		r := newRig(t)
		_, stop := r.project()
		r.caughtUp()
		ctx, cancel := context.WithCancel(t.Context())
		written, err := r.writer.Update(ctx, "acme", func(*TenantState) ([]Change, error) {
			stop()
			cancel() // the caller goes away; the record is written all the same
			return []Change{{Entity: TenantEntity, Value: &Tenant{}}}, nil
		})
		if !errors.Is(err, ErrOutcomeUnknown) || written.Offset != 0 || r.end() != 1 {
			t.Errorf("have %+v, %v; want %v", written, err, ErrOutcomeUnknown)
		}
	})
	t.Run("kafka does not answer", func(t *testing.T) {
		r := newRig(t)
		r.project()
		r.caughtUp()
		_, err := r.writer.Update(t.Context(), "acme", func(*TenantState) ([]Change, error) {
			r.client.Close()
			return []Change{{Entity: TenantEntity, Value: &Tenant{}}}, nil
		})
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("have %v, want %v", err, ErrUnavailable)
		}
	})
}

func TestPublishHealth(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.project()
		h := Health{Endpoint: "ep_1", Tenant: "acme", Judged: 7, Disabled: true, Reason: "gone"}
		if err := PublishHealth(t.Context(), r.client, r.topic, h); err != nil {
			t.Fatal(err)
		}
		r.caughtUp()
		snapshots, err := r.view.Load(t.Context(), []string{"acme"})
		if err != nil {
			t.Fatal(err)
		}
		state, err := snapshots[0].Decode()
		if err != nil {
			t.Fatal(err)
		}
		h.Version = 1
		if diff := cmp.Diff(map[string]*Health{"ep_1": &h}, state.Health); diff != "" {
			t.Errorf("health (-want +got):\n%s", diff)
		}
		if err := PublishHealth(t.Context(), r.client, r.topic, Health{Endpoint: "ep_1"}); !errors.Is(err, ErrMalformed) {
			t.Errorf("health of no tenant: %v", err)
		}
	})
}

// BenchmarkUpdate is one update of a small tenant, from the lock to its answer,
// in embedded mode.
func BenchmarkUpdate(b *testing.B) {
	r := newRig(b)
	r.project()
	r.caughtUp()
	for b.Loop() {
		if _, err := r.writer.Update(b.Context(), "acme", func(*TenantState) ([]Change, error) {
			return []Change{{Entity: TenantEntity, Value: &Tenant{ID: "acme"}}}, nil
		}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRebuild is a new generation of 1,000 entities, in embedded mode.
func BenchmarkRebuild(b *testing.B) {
	r := newRig(b)
	for i := range 1000 {
		r.write(fmt.Sprintf("tenant-%d", i/10), fmt.Sprintf("ep_%d", i), `{"id":"ep"}`, PrevAbsent)
	}
	r.project()
	r.caughtUp()
	for b.Loop() {
		if err := r.redis.FlushDB(b.Context()).Err(); err != nil {
			b.Fatal(err)
		}
		r.caughtUp()
	}
}
