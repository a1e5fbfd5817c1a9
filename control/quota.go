package control

import (
	"net/http"

	"github.com/postrider/postrider/internal/registry"
)

// withinQuota refuses to go above a tenant's bound.
func withinQuota(what string, have, more, limit int) error {
	if have+more > limit {
		return refuse(http.StatusUnprocessableEntity, codeQuota, "the tenant has %d %s, at most %d are allowed", have, what, limit)
	}
	return nil
}

// withinSize refuses changes that make more of a tenant than everybody who works for
// it can read and compile in a moment. A tenant that has more from before may still
// be made smaller.
func withinSize(st *registry.TenantState, changes []registry.Change) error {
	after, err := st.BytesAfter(changes)
	if err != nil {
		return err
	}
	if err := notGrown("bytes of settings as stored (itself, its endpoints, subscriptions and keys)", st.Bytes, after, registry.MaxBytes); err != nil {
		return err
	}
	if !changesSubscriptions(changes) {
		return nil
	}
	types, filters := subscribed(st, nil)
	nextTypes, nextFilters := subscribed(st, changes)
	if err := notGrown("type patterns in its subscriptions", types, nextTypes, registry.MaxTypes); err != nil {
		return err
	}
	return notGrown("bytes of distinct filters in its subscriptions", filters, nextFilters, registry.MaxFilterBytes)
}

// notGrown refuses to go, or to go further, above a tenant's bound.
func notGrown(what string, before, after, limit int) error {
	if after <= limit || after <= before {
		return nil
	}
	return refuse(http.StatusUnprocessableEntity, codeQuota,
		"the tenant has %d %s, with this change it would have %d; at most %d are allowed", before, what, after, limit)
}

func changesSubscriptions(changes []registry.Change) bool {
	for _, c := range changes {
		if _, ok := c.Value.(*registry.Subscription); ok {
			return true
		}
	}
	return false
}

// subscribed counts the type patterns, and the bytes of the distinct filters, that the
// tenant's subscriptions have with the changes.
func subscribed(st *registry.TenantState, changes []registry.Change) (types, filterBytes int) {
	filters := map[string]struct{}{}
	add := func(sub *registry.Subscription) {
		types += len(sub.Types)
		if _, known := filters[sub.Filter]; !known {
			filters[sub.Filter] = struct{}{}
			filterBytes += len(sub.Filter)
		}
	}
	changed := make(map[string]bool, len(changes))
	for _, c := range changes {
		changed[c.Entity] = true
		if sub, ok := c.Value.(*registry.Subscription); ok {
			add(sub)
		}
	}
	for id, sub := range st.Subscriptions {
		if !changed[id] {
			add(sub)
		}
	}
	return types, filterBytes
}
