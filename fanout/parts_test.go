package fanout

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/postrider/postrider/internal/match"
	"github.com/postrider/postrider/internal/registry"
)

// matches returns what becomes of events of some types.
func matches(t *tenant) map[string][]match.Match {
	out := map[string][]match.Match{}
	if t.set == nil {
		return out
	}
	for _, typ := range []string{"a", "b", "a.b", "c"} {
		var res match.Result
		t.set.Match(&match.Input{Type: typ, Source: "s"}, nil, &res)
		out[typ] = append(out[typ], res.Matches...)
	}
	return out
}

// A tenant that was compiled from an earlier state is the one compiled from nothing,
// whatever was changed, added, removed, or can't be read.
func TestReloadIsACompilation(t *testing.T) {
	programs, err := match.NewPrograms(match.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cache := newTenantCache(1<<20, programs, slog.New(slog.DiscardHandler))
	rapid.Check(t, func(t *rapid.T) {
		view := newStaticView()
		var old *tenant
		for range rapid.IntRange(1, 12).Draw(t, "reloads") {
			for range rapid.IntRange(1, 3).Draw(t, "changes") {
				drawChange(t, view)
			}
			snap := *view.tenants["acme"]
			if rapid.IntRange(0, 9).Draw(t, "rebuilt") == 0 {
				snap.Generation++
			}
			old = cache.compile(snap, old)
			want := cache.compile(snap, nil)
			if diff := cmp.Diff(want, old, cmp.AllowUnexported(tenant{}, part{}, tenantPart{}, endpointPart{}), cmpopts.IgnoreFields(tenant{}, "set")); diff != "" {
				t.Fatalf("reloaded (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(matches(want), matches(old), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("matches (-want +got):\n%s", diff)
			}
		}
	})
}

// drawChange changes one entity of tenant acme.
func drawChange(t *rapid.T, view *staticView) {
	n := rapid.IntRange(0, 2).Draw(t, "number")
	ep := fmt.Sprintf("ep_%026d", n)
	var entity string
	var value any
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		entity, value = registry.TenantEntity, registry.Tenant{ID: "acme", Deleting: rapid.Bool().Draw(t, "deleting")}
	case 1:
		entity, value = ep, registry.Endpoint{
			ID: ep, State: rapid.SampledFrom([]registry.State{registry.StateEnabled, registry.StateDisabled}).Draw(t, "state"),
			Ordered: rapid.Bool().Draw(t, "ordered"), Shards: rapid.IntRange(0, 2).Draw(t, "shards"),
		}
	case 2:
		entity, value = ep+registry.HealthSuffix, registry.Health{Endpoint: ep, Disabled: rapid.Bool().Draw(t, "disabled"), Judged: 1}
	default:
		entity = fmt.Sprintf("sub_%026d", n)
		value = registry.Subscription{
			ID: entity, Endpoint: fmt.Sprintf("ep_%026d", rapid.IntRange(0, 2).Draw(t, "endpoint")),
			Types:  []string{rapid.SampledFrom([]string{"a", "a.*", "*", "b"}).Draw(t, "type")},
			Filter: rapid.SampledFrom([]string{"", "type == 'a'", "no filter("}).Draw(t, "filter"),
		}
	}
	switch rapid.IntRange(0, 5).Draw(t, "what") {
	case 0:
		value = nil
	case 1:
		value = json.RawMessage(`{"id":7}`) // can't be read
	}
	view.put("acme", entity, value)
}

// Of a large tenant only what changed is read again, and its subscriptions are
// compiled again only if they changed.
func TestReloadReadsWhatIsNew(t *testing.T) {
	view := newStaticView()
	ep := view.subscribe("acme", 1, "", "a")
	view.subscribe("acme", 2, "", "b")
	var logged bytes.Buffer
	cache := newTestCache(t, 1<<20)
	cache.log = slog.New(slog.NewTextHandler(&logged, nil))
	first := cache.store(*view.tenants["acme"])
	for entity, e := range view.tenants["acme"].Entries { // whoever reads them again can't
		view.tenants["acme"].Entries[entity] = registry.Entry{Offset: e.Offset, Value: []byte("{")}
	}
	view.put("acme", ep, registry.Endpoint{ID: ep, State: registry.StateDisabled})
	second := cache.store(*view.tenants["acme"])
	if logged.Len() > 0 {
		t.Errorf("read again:\n%s", logged.String())
	}
	if second.set != first.set || !second.disabled[ep] || first.disabled[ep] {
		t.Errorf("compiled again: %v; disabled: %v, before %v", second.set != first.set, second.disabled, first.disabled)
	}
	view.subscribe("acme", 3, "", "a")
	third := cache.store(*view.tenants["acme"])
	if got := len(matches(third)["a"]); third.set == first.set || got != 2 {
		t.Errorf("%d endpoints match after a new subscription, want 2", got)
	}
}

// What is compiled of a tenant at its quotas fits the cache, so that it is not
// compiled again for each batch.
func TestTenantAtTheQuotasFitsTheCache(t *testing.T) {
	parts := map[string]part{}
	filters, types := registry.MaxFilterBytes, registry.MaxTypes
	for n := range registry.MaxSubscriptions {
		sub := &match.Subscription{Types: make([]string, types/registry.MaxSubscriptions)}
		for i := range sub.Types {
			sub.Types[i] = strings.Repeat("t", registry.MaxBytes/types)
		}
		if size := min(match.MaxFilter, filters); size > 0 {
			sub.Filter = fmt.Sprintf("%0*d", size, n)
			filters -= size
		}
		parts[fmt.Sprintf("sub_%026d", n)] = part{subscription: sub}
		parts[fmt.Sprintf("ep_%026d", n)] = part{endpoint: &endpointPart{}}
	}
	limit := Config{}.withDefaults().CacheBytes
	if w := weigh(parts); w < registry.MaxBytes || w > limit/2 {
		t.Errorf("weight %d, want at least what is stored, and room for two in %d", w, limit)
	}
}

// BenchmarkCompile compiles a tenant with all the endpoints and subscriptions that are
// allowed: from nothing, after a change of an endpoint, after one of a subscription.
func BenchmarkCompile(b *testing.B) {
	programs, err := match.NewPrograms(match.Config{})
	if err != nil {
		b.Fatal(err)
	}
	cache := newTenantCache(1<<30, programs, slog.New(slog.DiscardHandler))
	view := newStaticView()
	var ep string
	for n := range registry.MaxSubscriptions {
		ep = view.subscribe("acme", n, "", fmt.Sprintf("order.%d", n))
	}
	snap := *view.tenants["acme"]
	known := cache.compile(snap, nil)
	change := func(entity string) registry.Snapshot {
		changed := snap
		changed.Entries = maps.Clone(snap.Entries)
		changed.Entries[entity] = registry.Entry{Offset: 1 << 40, Value: snap.Entries[entity].Value}
		return changed
	}
	for _, bb := range []struct {
		name string
		snap registry.Snapshot
		old  *tenant
	}{
		{"from nothing", snap, nil},
		{"after a change of an endpoint", change(ep), known},
		{"after a change of a subscription", change("sub" + ep[2:]), known},
	} {
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				cache.compile(bb.snap, bb.old)
			}
		})
	}
}
