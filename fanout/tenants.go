package fanout

import (
	"container/list"
	"log/slog"

	"github.com/postrider/postrider/internal/match"
	"github.com/postrider/postrider/internal/registry"
)

// tenant is what matching needs of a tenant, compiled from one state of the
// registry. It is immutable.
type tenant struct {
	version  registry.Version
	exists   bool
	deleting bool
	set      *match.Set
	disabled map[string]bool // endpoints that get a decision and no delivery
	ordered  map[string]bool // endpoints whose deliveries must not wait in a page
	shards   map[string]int  // of endpoints that have more than one
	weight   int
}

// fresh reports whether the tenant is the state that the view shows as v.
func (t *tenant) fresh(v registry.Version) bool {
	return t.version.Generation == v.Generation && t.version.At == v.At
}

// tenantCache keeps compiled tenants, least recently used ones going first. It
// belongs to the loop.
type tenantCache struct {
	limit, weight int
	programs      *match.Programs
	log           *slog.Logger
	order         *list.List // of *cached, most recently used first
	byName        map[string]*list.Element
}

type cached struct {
	name string
	*tenant
}

func newTenantCache(limit int, programs *match.Programs, log *slog.Logger) *tenantCache {
	return &tenantCache{
		limit: limit, programs: programs, log: log,
		order: list.New(), byName: make(map[string]*list.Element),
	}
}

// lookup returns the tenant if the cache has exactly the state that the view shows.
func (c *tenantCache) lookup(name string, v registry.Version) (*tenant, bool) {
	el, ok := c.byName[name]
	if !ok {
		return nil, false
	}
	entry := el.Value.(*cached) //nolint:forcetypeassert // the list holds nothing else
	if !entry.fresh(v) {
		return nil, false
	}
	c.order.MoveToFront(el)
	return entry.tenant, true
}

// store compiles a snapshot and keeps it; the oldest entries go when their
// subscriptions together exceed the limit. The new one stays in any case.
func (c *tenantCache) store(snap registry.Snapshot) *tenant {
	t := c.compile(snap)
	if el, ok := c.byName[snap.Tenant]; ok {
		c.remove(el)
	}
	c.byName[snap.Tenant] = c.order.PushFront(&cached{snap.Tenant, t})
	c.weight += t.weight
	for c.weight > c.limit && c.order.Len() > 1 {
		c.remove(c.order.Back())
	}
	return t
}

func (c *tenantCache) remove(el *list.Element) {
	entry := c.order.Remove(el).(*cached) //nolint:forcetypeassert // the list holds nothing else
	delete(c.byName, entry.name)
	c.weight -= entry.weight
}

// compile turns a snapshot into what matching needs. An entity that can't be
// decoded and a filter that no longer compiles are logged, and cost no other
// subscription its events.
func (c *tenantCache) compile(snap registry.Snapshot) *tenant {
	state, err := snap.Decode()
	if err != nil {
		c.log.Warn("registry entity left out", "tenant", snap.Tenant, "error", err)
	}
	t := &tenant{version: snap.Version, disabled: map[string]bool{}, ordered: map[string]bool{}, shards: map[string]int{}, weight: 1}
	if _, t.exists = state.Offsets[registry.TenantEntity]; !t.exists {
		return t
	}
	t.deleting = state.Tenant != nil && state.Tenant.Deleting
	for id, ep := range state.Endpoints {
		if ep.Effective(state.Health[id]) == registry.StateDisabled {
			t.disabled[id] = true
		}
		if ep.Ordered {
			t.ordered[id] = true
		}
		if ep.Shards > 1 {
			t.shards[id] = ep.Shards
		}
	}
	subs := make([]match.Subscription, 0, len(state.Subscriptions))
	for _, sub := range state.Subscriptions {
		if _, ok := state.Offsets[sub.Endpoint]; !ok {
			continue // its endpoint is being deleted
		}
		subs = append(subs, match.Subscription{ID: sub.ID, EndpointID: sub.Endpoint, Types: sub.Types, Filter: sub.Filter})
	}
	set, errs := match.Compile(subs, c.programs)
	for _, err := range errs {
		c.log.Warn("subscription not usable", "tenant", snap.Tenant, "error", err)
	}
	t.set, t.weight = set, 1+len(subs)
	return t
}
