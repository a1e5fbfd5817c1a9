package fanout

import (
	"github.com/postrider/postrider/internal/match"
	"github.com/postrider/postrider/internal/registry"
)

// part is what matching needs of one entity, and the version that it was read from.
// Of an entity that can't be read, or that matching has no use for, there is only
// the version.
type part struct {
	offset       int64
	tenant       *tenantPart
	endpoint     *endpointPart
	health       *registry.Health
	subscription *match.Subscription
}

type tenantPart struct{ deleting bool }

type endpointPart struct {
	state        registry.State
	enabledAfter int64
	ordered      bool
	shards       int
}

// readParts reads a snapshot. What old, the parts of an earlier one, has of the same
// version is taken over instead of being read again: a tenant may be large, and of
// most changes it is one entity that is new. It reports whether the subscriptions are
// those of old, endpoints without which they don't count included. Its error names
// what could not be read.
func readParts(snap registry.Snapshot, old map[string]part) (parts map[string]part, sameSubscriptions bool, err error) {
	fresh := registry.Snapshot{Tenant: snap.Tenant, Version: snap.Version, Entries: map[string]registry.Entry{}}
	parts = make(map[string]part, len(snap.Entries))
	sameSubscriptions = len(old) == len(snap.Entries)
	for entity, entry := range snap.Entries {
		had, ok := old[entity]
		if ok && had.offset == entry.Offset {
			parts[entity] = had
			continue
		}
		sameSubscriptions = sameSubscriptions && ok
		parts[entity] = part{offset: entry.Offset}
		fresh.Entries[entity] = entry
	}
	state, err := fresh.Decode()
	addParts(parts, state)
	for entity := range fresh.Entries {
		if old[entity].subscription != nil || parts[entity].subscription != nil {
			sameSubscriptions = false
		}
	}
	return parts, sameSubscriptions, err
}

// addParts adds what was decoded.
func addParts(parts map[string]part, state *registry.TenantState) {
	set := func(entity string, fill func(*part)) {
		p := parts[entity]
		fill(&p)
		parts[entity] = p
	}
	if state.Tenant != nil {
		set(registry.TenantEntity, func(p *part) { p.tenant = &tenantPart{state.Tenant.Deleting} })
	}
	for id, ep := range state.Endpoints {
		set(id, func(p *part) { p.endpoint = &endpointPart{ep.State, ep.EnabledAfter, ep.Ordered, ep.Shards} })
	}
	for id, health := range state.Health {
		set(id+registry.HealthSuffix, func(p *part) { p.health = health })
	}
	for id, sub := range state.Subscriptions {
		set(id, func(p *part) {
			p.subscription = &match.Subscription{ID: sub.ID, EndpointID: sub.Endpoint, Types: sub.Types, Filter: sub.Filter}
		})
	}
}

// What a tenant takes in memory, about, in bytes (measured).
const (
	weightTenant = 1024
	weightPart   = 256
	weightType   = 128
)

// weigh estimates what the parts and what is compiled of them take in memory.
func weigh(parts map[string]part) int {
	n := weightTenant
	filters := map[string]struct{}{"": {}}
	for entity, p := range parts {
		n += weightPart + 2*len(entity)
		if p.subscription == nil {
			continue
		}
		for _, t := range p.subscription.Types {
			n += weightType + len(t)
		}
		if _, known := filters[p.subscription.Filter]; !known {
			filters[p.subscription.Filter] = struct{}{}
			n += match.ProgramBytes(p.subscription.Filter)
		}
	}
	return n
}
