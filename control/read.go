package control

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"time"

	"github.com/postrider/postrider/internal/backoff"
	"github.com/postrider/postrider/internal/registry"
)

// How long a read waits for a view that is behind what this process wrote.
const (
	catchUpTries = 20
	catchUpPause = 50 * time.Millisecond
)

// errBehind is a view that is complete but older than this process's writes.
var errBehind = errors.New("the view is behind")

// tenantView is a tenant's decoded state and the version it was decoded at. Both
// are shared between requests: nobody changes them.
type tenantView struct {
	state      *registry.TenantState
	generation int64
	at         int64
}

// weight estimates what the view takes in memory, in bytes: some for each entity and
// its places in maps, and four times its JSON, for much of that may be short texts.
func (v *tenantView) weight() uint32 {
	const tenant, entity, text = 1024, 512, 4
	n := tenant + entity*len(v.state.Offsets) + text*v.state.Bytes
	return uint32(min(n, math.MaxUint32)) //nolint:gosec // that is its bound
}

// state returns the tenant's state under a view that is complete and has what
// this process wrote; only then is what is absent really absent.
func (s *Server) state(ctx context.Context, tenant string) (*registry.TenantState, error) {
	for try := 1; ; try++ {
		st, err := s.readState(ctx, tenant)
		if err == nil {
			return st, nil
		}
		if !errors.Is(err, errBehind) || try == catchUpTries {
			return nil, unavailable(err)
		}
		if !backoff.Pause(ctx, catchUpPause) {
			return nil, unavailable(ctx.Err())
		}
	}
}

func (s *Server) readState(ctx context.Context, tenant string) (*registry.TenantState, error) {
	written := s.written.Load()
	versions, err := s.deps.View.Versions(ctx, []string{tenant})
	if err != nil {
		return nil, err
	}
	v := versions[0]
	if err := believable(v.Marker, written); err != nil {
		return nil, err
	}
	if known, ok := s.states.GetIfPresent(tenant); ok && known.generation == v.Generation && known.at == v.At {
		return known.state, nil
	}
	snapshots, err := s.deps.View.Load(ctx, []string{tenant})
	if err != nil {
		return nil, err
	}
	snapshot := snapshots[0]
	if err := believable(snapshot.Marker, written); err != nil {
		return nil, err
	}
	st, err := snapshot.Decode()
	if err != nil {
		s.log.ErrorContext(ctx, "an entity of the registry can't be read", slog.String("tenant", tenant), slog.Any("error", err))
	}
	if snapshot.At >= 0 {
		s.states.Set(tenant, &tenantView{state: st, generation: snapshot.Generation, at: snapshot.At})
	} else {
		s.states.Invalidate(tenant)
	}
	return st, nil
}

func believable(m registry.Marker, written int64) error {
	switch {
	case !m.Complete:
		return errors.New("the view is being rebuilt")
	case !m.Reached(written):
		return errBehind
	}
	return nil
}

// existing is state for a tenant that must exist. Platform always does.
func (s *Server) existing(ctx context.Context, tenant string) (*registry.TenantState, error) {
	st, err := s.state(ctx, tenant)
	if err != nil {
		return nil, err
	}
	if st.Tenant == nil && tenant != registry.Platform {
		return nil, notFound("tenant")
	}
	return st, nil
}

// writable reports, as a failure, why parts of the tenant can't be written.
func writable(st *registry.TenantState) error {
	switch {
	case st.Tenant == nil:
		return notFound("tenant")
	case st.Tenant.Deleting:
		return refuse(http.StatusConflict, codeTenantDeleting, "the tenant is being deleted")
	}
	return nil
}
