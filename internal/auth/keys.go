package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postrider/postrider/internal/registry"
)

// Errors that callers branch on.
var (
	// ErrUnknown is a token that belongs to nobody: 401.
	ErrUnknown = errors.New("unknown api key")
	// ErrUnknownTenant is a tenant that does not exist.
	ErrUnknownTenant = errors.New("unknown tenant")
	// ErrUnavailable says that neither the view nor the cache can tell: 503.
	ErrUnavailable = errors.New("the registry view is not available")
)

// view is what auth needs of *registry.View.
type view interface {
	Entities(ctx context.Context, refs []registry.Ref) ([]registry.Found, error)
}

// Config says how identities are found. The zero value of a field means its
// default.
type Config struct {
	// View is the registry's view; required.
	View view
	// AdminKey is the token that may do everything; "" means there is none.
	AdminKey string
	// Clock tells the time; nil means time.Now.
	Clock func() time.Time
	// Fresh is how long an answer is used without asking again; 0 means 5 s.
	Fresh time.Duration
	// Stale is how long an answer is used while the view can't be asked; 0
	// means 10 min.
	Stale time.Duration
	// Timeout bounds one question to the view; 0 means 2 s.
	Timeout time.Duration
	// Entries bounds the cached keys and, separately, tenants; 0 means 10,000.
	Entries int
}

func (c Config) withDefaults() Config {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	setDefault(&c.Fresh, 5*time.Second)
	setDefault(&c.Stale, 10*time.Minute)
	setDefault(&c.Timeout, 2*time.Second)
	setDefault(&c.Entries, 10_000)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Identity is who sends a request.
type Identity struct {
	// Tenant is the key's tenant, registry.Platform for platform keys and the
	// admin key.
	Tenant string
	Role   registry.Role
	// KeyID is the id of the API key, "" for the admin key.
	KeyID string
	// Admin says that it was the configured admin key.
	Admin bool
}

// Platform reports whether the identity may name any tenant.
func (i Identity) Platform() bool { return i.Admin || i.Tenant == registry.Platform }

// MaySend reports whether the identity may send events, of its own tenant or,
// for Platform identities, of any.
func (i Identity) MaySend() bool {
	return i.Admin || i.Role == registry.RoleAdmin || i.Role == registry.RoleProducer
}

// MayManage reports whether the identity may read and change the tenant.
func (i Identity) MayManage(tenant string) bool {
	return i.Admin || i.Role == registry.RoleAdmin && (i.Platform() || i.Tenant == tenant)
}

// Keys finds identities and tenants. It is safe for concurrent use.
type Keys struct {
	admin   [sha256.Size]byte
	isAdmin bool
	keys    *cache[key]
	tenants *cache[registry.Tenant]
}

// key is what is kept of a registry.Key.
type key struct {
	identity Identity
	hash     [sha256.Size]byte
}

// New returns Keys over cfg.View.
func New(cfg Config) *Keys {
	cfg = cfg.withDefaults()
	return &Keys{
		admin:   sha256.Sum256([]byte(cfg.AdminKey)),
		isAdmin: cfg.AdminKey != "",
		keys:    newCache(cfg, decodeKey),
		tenants: newCache(cfg, registry.Decode[registry.Tenant]),
	}
}

// Lookup returns the identity behind a token. Errors: ErrUnknown, ErrUnavailable.
func (k *Keys) Lookup(ctx context.Context, token string) (Identity, error) {
	sum := sha256.Sum256([]byte(token))
	if k.isAdmin && subtle.ConstantTimeCompare(sum[:], k.admin[:]) == 1 {
		return Identity{Tenant: registry.Platform, Role: registry.RoleAdmin, Admin: true}, nil
	}
	id, ok := keyID(token)
	if !ok {
		return Identity{}, ErrUnknown
	}
	found, err := k.keys.lookup(ctx, registry.Ref{Tenant: id, Entity: id})
	switch {
	case err != nil:
		return Identity{}, fmt.Errorf("look up %s: %w", id, err)
	case found == nil || subtle.ConstantTimeCompare(sum[:], found.hash[:]) != 1:
		return Identity{}, ErrUnknown
	}
	return found.identity, nil
}

// Tenant returns a tenant, which the caller must not change. It may be
// Deleting. Errors: ErrUnknownTenant, ErrUnavailable.
func (k *Keys) Tenant(ctx context.Context, id string) (*registry.Tenant, error) {
	t, err := k.tenants.lookup(ctx, registry.Ref{Tenant: id, Entity: registry.TenantEntity})
	switch {
	case err != nil:
		return nil, fmt.Errorf("look up tenant: %w", err)
	case t == nil:
		return nil, ErrUnknownTenant
	}
	return t, nil
}

func decodeKey(value []byte) (*key, error) {
	stored, err := registry.Decode[registry.Key](value)
	if err != nil {
		return nil, err
	}
	// A copy: the identity must not hold on to the whole record.
	k := &key{identity: Identity{
		Tenant: strings.Clone(stored.Tenant), Role: stored.Role, KeyID: strings.Clone(stored.ID),
	}}
	n, err := hex.Decode(k.hash[:], []byte(stored.Hash))
	if err != nil || n != len(k.hash) || stored.Tenant == "" {
		return nil, fmt.Errorf("api key %s: the record has no valid hash or tenant", stored.ID)
	}
	return k, nil
}
