package registry

import (
	"errors"
	"fmt"
	"strings"

	"github.com/postrider/postrider/schemas"
)

// TenantState is what a tenant consists of, decoded.
type TenantState struct {
	// Tenant is nil if the tenant has no record of its own.
	Tenant *Tenant
	// TenantOffset is the version of Tenant, -1 if it is nil.
	TenantOffset int64
	// The parts of the tenant by id; Health by the id of its endpoint.
	Endpoints     map[string]*Endpoint
	Health        map[string]*Health
	Subscriptions map[string]*Subscription
	Keys          map[string]*Key
	// Offsets holds the version of every entity, also of those that this
	// program could not decode.
	Offsets map[string]int64
	// Sizes holds how many bytes each of these entities takes as stored, and Bytes
	// how many they take together: their names and their JSON.
	Sizes map[string]int
	Bytes int
	// Marker says how far the state goes.
	Marker Marker
}

// Decode reads the entities of a snapshot. One that can't be decoded is left
// out and named in the error, while the state holds all others. Kinds of
// entities that this program does not know are left out silently.
func (s Snapshot) Decode() (*TenantState, error) {
	t := &TenantState{
		TenantOffset:  -1,
		Endpoints:     map[string]*Endpoint{},
		Health:        map[string]*Health{},
		Subscriptions: map[string]*Subscription{},
		Keys:          map[string]*Key{},
		Offsets:       make(map[string]int64, len(s.Entries)),
		Sizes:         make(map[string]int, len(s.Entries)),
		Marker:        s.Marker,
	}
	var errs []error
	for entity, entry := range s.Entries {
		t.Offsets[entity] = entry.Offset
		t.Sizes[entity] = storedSize(entity, entry.Value)
		t.Bytes += t.Sizes[entity]
		if err := t.add(s.Tenant, entity, entry); err != nil {
			errs = append(errs, fmt.Errorf("%s/%s at offset %d: %w", s.Tenant, entity, entry.Offset, err))
		}
	}
	return t, errors.Join(errs...)
}

// BytesAfter returns what Bytes will be when the changes are made. It returns an
// error if one can't be encoded.
func (t *TenantState) BytesAfter(changes []Change) (int, error) {
	after := t.Bytes
	for _, c := range changes {
		if isReport(c.Entity) {
			continue // it does not stand with the tenant
		}
		value, err := c.encode()
		if err != nil {
			return 0, err
		}
		after -= t.Sizes[c.Entity]
		if value != nil {
			after += storedSize(c.Entity, value)
		}
	}
	return after, nil
}

func storedSize(entity string, value []byte) int { return len(entity) + len(value) }

func (t *TenantState) add(tenant, entity string, entry Entry) error {
	endpoint, isHealth := strings.CutSuffix(entity, HealthSuffix)
	switch prefix, _, _ := strings.Cut(entity, "_"); {
	case entity == TenantEntity:
		t.TenantOffset = entry.Offset
		return decodeInto(&t.Tenant, entry.Value)
	case prefix == schemas.PrefixEndpoint && isHealth:
		return decodePart(t.Health, endpoint, entry.Value)
	case prefix == schemas.PrefixEndpoint:
		return decodePart(t.Endpoints, entity, entry.Value)
	case prefix == schemas.PrefixSubscription:
		return decodePart(t.Subscriptions, entity, entry.Value)
	case prefix == schemas.PrefixKey && tenant != entity:
		return decodePart(t.Keys, entity, entry.Value)
	}
	return nil
}

func decodeInto[E any](to **E, value []byte) error {
	e, err := Decode[E](value)
	if err == nil {
		*to = e
	}
	return err
}

func decodePart[E any](parts map[string]*E, id string, value []byte) error {
	e, err := Decode[E](value)
	if err == nil {
		parts[id] = e
	}
	return err
}
