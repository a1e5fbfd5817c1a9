package fanout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/match"
	"github.com/postrider/postrider/internal/registry"
)

// scriptView answers from functions.
type scriptView struct {
	versions func(call int, tenants []string) ([]registry.Version, error)
	load     func(call int, tenants []string) ([]registry.Snapshot, error)
	asked    [2]int
}

func (v *scriptView) Versions(_ context.Context, tenants []string) ([]registry.Version, error) {
	v.asked[0]++
	return v.versions(v.asked[0], tenants)
}

func (v *scriptView) Load(_ context.Context, tenants []string) ([]registry.Snapshot, error) {
	v.asked[1]++
	return v.load(v.asked[1], tenants)
}

func versionAt(generation, next, at int64, complete bool) registry.Version {
	return registry.Version{Marker: registry.Marker{Generation: generation, Next: next, Complete: complete}, At: at}
}

func snapshot(tenant string, v registry.Version) registry.Snapshot {
	return registry.Snapshot{Tenant: tenant, Version: v, Entries: map[string]registry.Entry{
		registry.TenantEntity: {Offset: v.At, Value: []byte(`{"id":"` + tenant + `"}`)},
	}}
}

func newTestCache(tb testing.TB, limit int) *tenantCache {
	tb.Helper()
	programs, err := match.NewPrograms(match.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	return newTenantCache(limit, programs, slog.New(slog.DiscardHandler))
}

var errAway = errors.New("away")

func TestBarrierWaits(t *testing.T) {
	const end = 100
	ready := versionAt(1, end, 40, true)
	all := func(v registry.Version) func(int, []string) ([]registry.Version, error) {
		return func(_ int, tenants []string) ([]registry.Version, error) {
			out := make([]registry.Version, len(tenants))
			for i := range out {
				out[i] = v
			}
			return out, nil
		}
	}
	loaded := func(v registry.Version) func(int, []string) ([]registry.Snapshot, error) {
		return func(_ int, tenants []string) ([]registry.Snapshot, error) {
			var out []registry.Snapshot
			for _, name := range tenants {
				out = append(out, snapshot(name, v))
			}
			return out, nil
		}
	}
	tests := []struct {
		name  string
		view  scriptView
		waits int
		loads int
	}{
		{"ready at once", scriptView{versions: all(ready), load: loaded(ready)}, 0, 1},
		{"marker below the end", scriptView{versions: func(call int, n []string) ([]registry.Version, error) {
			if call < 3 {
				return all(versionAt(1, end-1, 40, true))(call, n)
			}
			return all(ready)(call, n)
		}, load: loaded(ready)}, 2, 1},
		{"view not complete", scriptView{versions: func(call int, n []string) ([]registry.Version, error) {
			return all(versionAt(1, end+50, 40, call > 1))(call, n)
		}, load: loaded(ready)}, 1, 1},
		{"reload void", scriptView{versions: all(ready), load: func(call int, n []string) ([]registry.Snapshot, error) {
			return loaded(versionAt(2, end, 40, call > 2))(call, n)
		}}, 2, 3},
		{"redis away", scriptView{versions: func(call int, n []string) ([]registry.Version, error) {
			if call < 5 {
				return nil, errAway
			}
			return all(ready)(call, n)
		}, load: loaded(ready)}, 4, 1},
		{"redis away at the reload", scriptView{versions: all(ready), load: func(call int, n []string) ([]registry.Snapshot, error) {
			if call < 2 {
				return nil, errAway
			}
			return loaded(ready)(call, n)
		}}, 1, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				waits := 0
				b := barrier{
					view: &tt.view, cache: newTestCacheIn(t),
					end:     func(context.Context) (int64, error) { return end, nil },
					waiting: func(error) { waits++ },
					beat:    func() {},
				}
				found, err := b.pass(t.Context(), []string{"acme"})
				if err != nil {
					t.Fatal(err)
				}
				if !found["acme"].exists || found["acme"].registry < end-1 {
					t.Errorf("found %+v", found["acme"])
				}
				if diff := cmp.Diff([2]int{tt.waits, tt.loads}, [2]int{waits, tt.view.asked[1]}); diff != "" {
					t.Errorf("waits and loads (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// newTestCacheIn is a cache without compiled filters: their cache has goroutines
// that a synctest bubble would wait for.
func newTestCacheIn(testing.TB) *tenantCache {
	return newTenantCache(1<<20, nil, slog.New(slog.DiscardHandler))
}

func TestBarrierAsksForTheEndUntilItHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		v := versionAt(1, 7, 3, true)
		view := &scriptView{
			versions: func(int, []string) ([]registry.Version, error) { return []registry.Version{v}, nil },
			load:     func(int, []string) ([]registry.Snapshot, error) { return []registry.Snapshot{snapshot("acme", v)}, nil },
		}
		b := barrier{view: view, cache: newTestCacheIn(t), waiting: func(error) {}, beat: func() {}, end: func(context.Context) (int64, error) {
			if calls++; calls < 3 {
				return 0, errAway
			}
			return 7, nil
		}}
		found, err := b.pass(t.Context(), []string{"acme"})
		if err != nil || found["acme"].registry != 6 || calls != 3 {
			t.Errorf("found %+v after %d calls, %v", found, calls, err)
		}
	})
}

func TestBarrierUsesTheCacheOnlyForTheSameState(t *testing.T) {
	states := []registry.Version{
		versionAt(1, 10, 5, true), versionAt(1, 20, 5, true), // unchanged
		versionAt(1, 30, 25, true),                             // changed
		versionAt(2, 30, 25, true),                             // rebuilt
		versionAt(2, 30, -1, true), versionAt(2, 30, -1, true), // gone
	}
	wantLoads := []int{1, 1, 2, 3, 4, 4}
	var now registry.Version
	view := &scriptView{
		versions: func(int, []string) ([]registry.Version, error) { return []registry.Version{now}, nil },
		load: func(int, []string) ([]registry.Snapshot, error) {
			snap := snapshot("acme", now)
			if now.At < 0 {
				snap.Entries = nil
			}
			return []registry.Snapshot{snap}, nil
		},
	}
	b := barrier{view: view, cache: newTestCache(t, 1<<20), waiting: func(error) {}, beat: func() {}, end: func(context.Context) (int64, error) { return 10, nil }}
	for i, v := range states {
		now = v
		found, err := b.pass(t.Context(), []string{"acme"})
		if err != nil {
			t.Fatal(err)
		}
		if got := found["acme"]; got.exists != (v.At >= 0) || got.registry != v.Next-1 || view.asked[1] != wantLoads[i] {
			t.Errorf("state %d: %+v after %d loads, want %d", i, got, view.asked[1], wantLoads[i])
		}
	}
}

func TestBarrierEndsWithTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		view := &scriptView{versions: func(int, []string) ([]registry.Version, error) { return nil, errAway }}
		b := barrier{view: view, cache: newTestCacheIn(t), waiting: func(error) {}, beat: func() {}, end: func(context.Context) (int64, error) { return 1, nil }}
		time.AfterFunc(time.Minute, func() { cancel(errRevoked) })
		if _, err := b.pass(ctx, []string{"acme"}); !errors.Is(err, errRevoked) {
			t.Errorf("error %v, want %v", err, errRevoked)
		}
	})
}

func TestTenantCacheIsBounded(t *testing.T) {
	view := newStaticView()
	for n := range 5 {
		view.subscribe("big", n, "", "*")
	}
	view.subscribe("small", 9, "", "*")
	load := func(cache *tenantCache, name string) *tenant {
		snaps, err := view.Load(t.Context(), []string{name})
		if err != nil {
			t.Fatal(err)
		}
		return cache.store(snaps[0])
	}
	roomy := newTestCache(t, 1<<20)
	big, small := load(roomy, "big"), load(roomy, "small")
	if _, ok := roomy.lookup("big", big.version); !ok || roomy.weight != big.weight+small.weight {
		t.Errorf("weight %d, want %d and %d", roomy.weight, big.weight, small.weight)
	}
	cache := newTestCache(t, big.weight+small.weight-1)
	load(cache, "small")
	load(cache, "big")
	if _, ok := cache.lookup("small", small.version); ok || cache.weight != big.weight {
		t.Errorf("small still kept, weight %d", cache.weight)
	}
	if _, ok := cache.lookup("big", big.version); !ok {
		t.Error("big not kept")
	}
	load(cache, "big")
	if cache.weight != big.weight || cache.order.Len() != 1 {
		t.Errorf("weight %d, %d entries after a second load", cache.weight, cache.order.Len())
	}
}

// A batch whose tenants are too much for memory is polled again in smaller parts; one
// tenant always passes.
func TestBarrierBoundsTheTenantsOfABatch(t *testing.T) {
	view := newStaticView()
	names := []string{"a", "b", "c", "d", "e", "f"}
	for n, name := range names {
		view.subscribe(name, n, "", "*")
	}
	b := barrier{view: view, cache: newTestCache(t, 1), waiting: func(error) {}, beat: func() {}, end: func(context.Context) (int64, error) { return 1, nil }}
	if _, err := b.pass(t.Context(), names); !errors.Is(err, errTooCostly) {
		t.Errorf("six tenants: %v, want %v", err, errTooCostly)
	}
	if found, err := b.pass(t.Context(), names[5:]); err != nil || !found["f"].exists {
		t.Errorf("one tenant: %+v, %v", found, err)
	}
}

// hungryView refuses to load more than a chunk.
type hungryView struct{ *staticView }

func (v hungryView) Load(ctx context.Context, tenants []string) ([]registry.Snapshot, error) {
	if len(tenants) > loadChunk {
		return nil, errors.New("too many tenants at once")
	}
	return v.staticView.Load(ctx, tenants)
}

// What one call loads is bounded, however many tenants a batch names.
func TestBarrierLoadsInChunks(t *testing.T) {
	view := newStaticView()
	var names []string
	for n := range 3*loadChunk + 1 {
		names = append(names, fmt.Sprintf("t%d", n))
		view.subscribe(names[n], n, "", "*")
	}
	beats := 0
	b := barrier{view: hungryView{view}, cache: newTestCache(t, 1<<20), beat: func() { beats++ }, end: func(context.Context) (int64, error) { return 1, nil }}
	b.waiting = func(err error) { t.Fatal(err) }
	found, err := b.pass(t.Context(), names)
	if err != nil || len(found) != len(names) || beats != len(names) {
		t.Errorf("%d tenants with %d beats, %v; want %d", len(found), beats, err, len(names))
	}
}

func TestUndecodableEntityCostsNoOther(t *testing.T) {
	view := newStaticView()
	ep := view.subscribe("acme", 1, "", "a")
	view.subscribe("acme", 2, "nonsense(", "b")
	view.tenants["acme"].Entries[ep] = registry.Entry{Value: []byte("{")}
	snaps, _ := view.Load(t.Context(), []string{"acme"})
	got := newTestCache(t, 1<<20).compile(snaps[0], nil)
	var res match.Result
	got.set.Match(&match.Input{Type: "a"}, nil, &res)
	if len(res.Matches) != 1 || res.Matches[0].EndpointID != ep {
		t.Errorf("matches %+v", res.Matches)
	}
	got.set.Match(&match.Input{Type: "b"}, nil, &res)
	if len(res.Matches) != 0 || res.Counts.FilterError != 1 {
		t.Errorf("broken filter: %+v", res)
	}
}
