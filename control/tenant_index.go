package control

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postrider/postrider/internal/backoff"
	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// deletionChunk is how many parts of a tenant one turn under its lock removes.
const deletionChunk = 500

// newBackoff is the pause after something went wrong in a loop.
func newBackoff() *backoff.Backoff {
	return &backoff.Backoff{First: 200 * time.Millisecond, Limit: 10 * time.Second}
}

// tenantRow is a tenant's newest record and its offset.
type tenantRow struct {
	tenant *registry.Tenant
	offset int64
}

// tenantIndex is the list of all tenants, and the public keys of all endpoints,
// which the view (one hash a tenant) can't answer: the registry's records, followed
// from the beginning.
type tenantIndex struct {
	mu     sync.Mutex
	rows   map[string]tenantRow
	public map[string][]registry.Secret // by endpoint
	// outdated are the endpoints that isOutdated tells: those to be sealed again. nil
	// tells none.
	outdated   outdated
	isOutdated func(*registry.Endpoint) bool
	next       int64
	// whole is set once the index had all that was there when somebody asked.
	whole atomic.Bool
	// moved is closed and replaced when next moves.
	moved chan struct{}
	// deleting is signalled when a tenant that is being deleted was seen.
	deleting chan struct{}
}

func newTenantIndex() *tenantIndex {
	return &tenantIndex{
		rows: map[string]tenantRow{}, public: map[string][]registry.Secret{}, outdated: outdated{},
		moved: make(chan struct{}), deleting: make(chan struct{}, 1),
	}
}

// apply takes the next records of the registry; next is the offset after them.
func (x *tenantIndex) apply(records []registry.Record, next int64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var errs []error
	for _, r := range records {
		if r.Entity != registry.TenantEntity {
			errs = append(errs, x.applyEndpointLocked(r))
			continue
		}
		if r.Value == nil {
			delete(x.rows, r.Tenant)
			continue
		}
		t, err := registry.Decode[registry.Tenant](r.Value)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		x.rows[r.Tenant] = tenantRow{tenant: t, offset: r.Offset}
		if t.Deleting {
			x.signal()
		}
	}
	if next > x.next {
		x.next = next
		close(x.moved)
		x.moved = make(chan struct{})
	}
	return errors.Join(errs...)
}

func (x *tenantIndex) signal() {
	select {
	case x.deleting <- struct{}{}:
	default: // the loop has not yet seen the last signal
	}
}

// all returns the tenants once the index has all below the offset.
func (x *tenantIndex) all(ctx context.Context, below int64) (map[string]tenantRow, error) {
	if err := x.reach(ctx, below); err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return maps.Clone(x.rows), nil
}

// reach returns once the index has all below the offset.
func (x *tenantIndex) reach(ctx context.Context, below int64) error {
	for {
		x.mu.Lock()
		moved, next := x.moved, x.next
		x.mu.Unlock()
		if next >= below {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// beingDeleted returns the ids of the tenants that are being deleted.
func (x *tenantIndex) beingDeleted() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var ids []string
	for id, row := range x.rows {
		if row.tenant.Deleting {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// followTenants keeps the index up to date until ctx ends.
func (s *Server) followTenants(ctx context.Context) error {
	return registry.NewTail(registry.TailConfig{
		Kafka: s.cfg.Kafka, Tick: s.cfg.Tick, Logger: s.log,
		Apply: func(records []registry.Record, next int64) {
			if err := s.tenants.apply(records, next); err != nil {
				s.log.ErrorContext(ctx, "a record of a tenant or an endpoint can't be read", slog.Any("error", err))
			}
		},
	}).Run(ctx)
}

// knownTenants returns all tenants as of now.
func (s *Server) knownTenants(ctx context.Context) (map[string]tenantRow, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	end, err := broker.LastStableOffset(ctx, s.kafka, s.topics.Registry, 0)
	if err != nil {
		return nil, unavailable(err)
	}
	rows, err := s.tenants.all(ctx, end)
	if err != nil {
		return nil, unavailable(err)
	}
	return rows, nil
}

// deletionLoop finishes the deletions of tenants: those that a request began, and
// at the start those that a crash interrupted.
func (s *Server) deletionLoop(ctx context.Context) error {
	pause := newBackoff()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.tenants.deleting:
		}
		var failed bool
		for _, id := range s.tenants.beingDeleted() {
			if err := s.finishDeletion(ctx, id); err != nil && ctx.Err() == nil {
				failed = true
				s.log.ErrorContext(ctx, "could not finish the deletion of a tenant", slog.String("tenant", id), slog.Any("error", err))
			}
		}
		if !failed {
			pause.Reset()
			continue
		}
		if !pause.Wait(ctx) {
			continue // ctx is done
		}
		s.tenants.signal()
	}
}

// finishDeletion removes a tenant's parts chunk by chunk, and the tenant itself
// last. Each chunk looks at the tenant again: it may be gone, or be a new one of
// the same name.
func (s *Server) finishDeletion(ctx context.Context, id string) error {
	for {
		var done bool
		_, err := s.update(ctx, change{tenant: id, action: "tenant.delete", always: true, fn: func(st *registry.TenantState) ([]registry.Change, error) {
			if st.Tenant == nil || !st.Tenant.Deleting {
				done = true
				return nil, nil
			}
			var changes []registry.Change
			changes, done = tombstones(st, deletionChunk)
			return changes, nil
		}})
		if err != nil || done {
			return err
		}
	}
}

// tombstones returns the next at most limit removals, the tenant's own when no
// other part is left, and whether that was the end. Subscriptions go before the
// endpoints that they name, keys first of all.
func tombstones(st *registry.TenantState, limit int) (changes []registry.Change, last bool) {
	var entities []string
	for entity := range st.Offsets {
		if entity != registry.TenantEntity {
			entities = append(entities, entity)
		}
	}
	slices.SortFunc(entities, func(a, b string) int {
		if d := deletionRank(a) - deletionRank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	if last = len(entities) < limit; last {
		entities = append(entities, registry.TenantEntity)
	} else {
		entities = entities[:limit]
	}
	for _, entity := range entities {
		if ep := st.Endpoints[entity]; ep != nil {
			changes = append(changes, reportTombstones(ep)...)
		}
		changes = append(changes, registry.Change{Tenant: st.Tenant.ID, Entity: entity})
	}
	return changes, last
}

func deletionRank(entity string) int {
	prefix, _, _ := strings.Cut(entity, "_")
	switch {
	case prefix == schemas.PrefixKey:
		return 0
	case prefix == schemas.PrefixSubscription:
		return 1
	case strings.HasSuffix(entity, registry.HealthSuffix):
		return 2
	}
	return 3
}
