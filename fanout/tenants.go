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
	parts    map[string]part // by entity
	weight   int             // in memory, in bytes, estimated
}

// fresh reports whether the tenant is the state that the view shows as v.
func (t *tenant) fresh(v registry.Version) bool {
	return t.version.Generation == v.Generation && t.version.At == v.At
}

// tenantCache keeps compiled tenants, least recently used ones going first. It
// belongs to the loop.
type tenantCache struct {
	limit, weight int // in bytes
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

// store compiles a snapshot and keeps it; the oldest entries go when all together
// weigh more than the limit. The new one stays in any case.
func (c *tenantCache) store(snap registry.Snapshot) *tenant {
	var old *tenant
	if el, ok := c.byName[snap.Tenant]; ok {
		old = c.remove(el)
	}
	t := c.compile(snap, old)
	c.byName[snap.Tenant] = c.order.PushFront(&cached{snap.Tenant, t})
	c.weight += t.weight
	for c.weight > c.limit && c.order.Len() > 1 {
		c.remove(c.order.Back())
	}
	return t
}

func (c *tenantCache) remove(el *list.Element) *tenant {
	entry := c.order.Remove(el).(*cached) //nolint:forcetypeassert // the list holds nothing else
	delete(c.byName, entry.name)
	c.weight -= entry.weight
	return entry.tenant
}

// compile turns a snapshot into what matching needs; old, which may be nil, is an
// earlier state of the tenant. An entity that can't be decoded and a filter that no
// longer compiles are logged, and cost no other subscription its events.
func (c *tenantCache) compile(snap registry.Snapshot, old *tenant) *tenant {
	t := &tenant{version: snap.Version, disabled: map[string]bool{}, ordered: map[string]bool{}, shards: map[string]int{}}
	if old == nil || old.version.Generation != snap.Generation {
		old = &tenant{} // offsets of another generation may be those of another log
	}
	var same bool
	var err error
	if t.parts, same, err = readParts(snap, old.parts); err != nil {
		c.log.Warn("registry entity left out", "tenant", snap.Tenant, "error", err)
	}
	t.weight = weigh(t.parts)
	record, exists := t.parts[registry.TenantEntity]
	if t.exists = exists; !exists {
		return t
	}
	t.deleting = record.tenant != nil && record.tenant.deleting
	for id, p := range t.parts {
		if p.endpoint != nil {
			t.addEndpoint(id, p.endpoint)
		}
	}
	if same && old.set != nil {
		t.set = old.set
		return t
	}
	set, errs := match.Compile(t.subscriptions(), c.programs)
	for _, err := range errs {
		c.log.Warn("subscription not usable", "tenant", snap.Tenant, "error", err)
	}
	t.set = set
	return t
}

// addEndpoint enters what is special about an endpoint.
func (t *tenant) addEndpoint(id string, ep *endpointPart) {
	if ep.state.Effective(ep.enabledAfter, t.parts[id+registry.HealthSuffix].health) == registry.StateDisabled {
		t.disabled[id] = true
	}
	if ep.ordered {
		t.ordered[id] = true
	}
	if ep.shards > 1 {
		t.shards[id] = ep.shards
	}
}

// subscriptions returns those whose endpoint is there: it may be on its way out.
func (t *tenant) subscriptions() []match.Subscription {
	var subs []match.Subscription
	for _, p := range t.parts {
		if p.subscription == nil {
			continue
		}
		if _, ok := t.parts[p.subscription.EndpointID]; ok {
			subs = append(subs, *p.subscription)
		}
	}
	return subs
}
