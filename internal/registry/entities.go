package registry

import (
	"encoding/json"
	"fmt"
	"time"
)

// Platform is the tenant of everything that belongs to no tenant.
const Platform = "_"

// Names of the entities of a tenant: the part of a registry key after the
// tenant. Endpoints, subscriptions and keys stand under their own id.
const (
	// TenantEntity is the tenant's own record.
	TenantEntity = "tenant"
	// HealthSuffix follows an endpoint's id in the record that its owner in
	// deliver writes.
	HealthSuffix = "/health"
	// LayoutEntity is the record of the topic layout, under Platform.
	LayoutEntity = "layout"
)

// Quotas of a tenant, the same for every tenant.
const (
	// MaxEndpoints bounds the endpoints of a tenant.
	MaxEndpoints = 10_000
	// MaxSubscriptions bounds the subscriptions of a tenant.
	MaxSubscriptions = 10_000
	// MaxOrdered bounds the ordered endpoints of a tenant: their deliveries of
	// one event stand in one transaction, however large it is.
	MaxOrdered = 256
	// MaxTypes bounds the type patterns of a tenant's subscriptions together, and
	// MaxFilterBytes their filters, each distinct one counted once: fan-out compiles
	// all of a tenant before its next event, and nobody's event may wait long for that.
	MaxTypes       = 100_000
	MaxFilterBytes = 1 << 20
	// MaxKeys bounds the API keys of a tenant.
	MaxKeys = 1_000
	// MaxBytes bounds what control writes of a tenant, in bytes as stored, see
	// [TenantState.Bytes]: whoever needs a tenant reads all of it at once, and a read
	// has to end within the timeout of Redis. What deliver writes of its endpoints'
	// health (some hundred bytes each) counts, but is never refused.
	MaxBytes = 16 << 20
)

// Meta is what every entity of the registry has.
type Meta struct {
	// Version is the format's version, not the entity's (that is its offset).
	Version int `json:"v"`
	// CreatedAt and UpdatedAt are for people; nothing is decided by them.
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	// Idempotency is the key under which the entity was created, if any.
	Idempotency *Idempotency `json:"idempotency,omitempty"`
}

// Idempotency remembers, for 24 h, the Idempotency-Key of the POST that created
// an entity and the hash of the request.
type Idempotency struct {
	Key  string    `json:"key"`
	Hash string    `json:"hash"`
	At   time.Time `json:"at"`
}

// Tenant is a customer of the platform.
type Tenant struct {
	Meta
	ID       string            `json:"id"`
	Name     string            `json:"name,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	// Deleting is set from the beginning of a deletion to its tombstone.
	Deleting bool `json:"deleting,omitempty"`
	// Quota bounds what the tenant may send, per ingest process. Zero means
	// the process's default.
	Quota Quota `json:"quota,omitzero"`
}

// Quota bounds a tenant's intake per ingest process.
type Quota struct {
	EventsPerSecond float64 `json:"events_per_second,omitempty"`
	BytesPerSecond  float64 `json:"bytes_per_second,omitempty"`
}

// State is the state that an endpoint was given by its owner.
type State string

// The states of an endpoint. Only control writes them; that deliver disabled
// an endpoint stands in its Health.
const (
	// StateEnabled is an endpoint that is served.
	StateEnabled State = "enabled"
	// StatePaused is an endpoint whose deliveries park.
	StatePaused State = "paused"
	// StateDisabled is an endpoint for which fan-out makes no deliveries.
	StateDisabled State = "disabled"
)

// Endpoint says where and how to POST.
type Endpoint struct {
	Meta
	ID          string            `json:"id"`
	Tenant      string            `json:"tenant"`
	Description string            `json:"description,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	URL         string            `json:"url"`
	State       State             `json:"state"`
	// EnabledAfter is the offset of the endpoint's version before the last
	// enable: a Health that judged that version or an older one no longer counts.
	EnabledAfter int64 `json:"enabled_after"`
	// Secrets are the live signing secrets, newest first.
	Secrets []Secret `json:"secrets"`
	// Signing says how requests are signed; zero means Standard Webhooks.
	Signing Signing `json:"signing,omitzero"`
	// Timeout bounds one whole exchange; zero means 15 s. Allowed: 1 s to 60 s.
	Timeout Duration `json:"timeout,omitzero"`
	// MaxInFlight bounds the attempts under way at once; zero means 32. With shards
	// it is divided among them, and zero means 32 for each.
	MaxInFlight int `json:"max_in_flight,omitempty"`
	// Retry says when failed attempts are repeated; zero means the default.
	Retry Retry `json:"retry,omitzero"`
	// TraceContext has the attempts carry a traceparent header.
	TraceContext bool `json:"trace_context,omitempty"`
	// RateLimit bounds the attempts per second.
	RateLimit RateLimit `json:"rate_limit,omitzero"`
	// Breaker says when the endpoint is left alone for failing.
	Breaker Breaker `json:"breaker,omitzero"`
	// Ordered has deliveries with one partitionkey (or without any) delivered
	// one after the other, in the order of the log.
	Ordered bool `json:"ordered,omitempty"`
	// OnExhausted is what an ordered endpoint does with a delivery whose
	// schedule is used up; empty means skip.
	OnExhausted OnExhausted `json:"on_exhausted,omitempty"`
	// Shards is over how many lanes the endpoint is spread; 0 and 1 are one.
	// MostShards is the highest number that it ever had.
	Shards     int `json:"shards,omitempty"`
	MostShards int `json:"most_shards,omitempty"`
	// Receiver says how the requests look and what they authenticate with.
	Receiver
}

// Secret is one signing secret, sealed. ExpiresAt is when a rotated secret
// stops signing; zero is never. Public is the public key of an ed25519 secret
// (whpk_…), empty for HMAC.
type Secret struct {
	Sealed    string    `json:"sealed"`
	Public    string    `json:"public_key,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// Retry is an endpoint's retry policy.
type Retry struct {
	// Schedule holds the delay before attempt 2, 3, …; empty means the default
	// schedule. The delivery is exhausted after len(Schedule)+1 attempts.
	Schedule []Duration `json:"schedule,omitempty"`
	// MaxAge bounds the delivery's age; zero means 5 days.
	MaxAge Duration `json:"max_age,omitzero"`
}

// Health is what an endpoint's owner in deliver found out about it.
type Health struct {
	Meta
	Endpoint string `json:"endpoint_id"`
	Tenant   string `json:"tenant"`
	// Judged is the offset of the endpoint's version that was judged.
	Judged int64 `json:"judged"`
	// Disabled says that the endpoint is disabled, with why and since when.
	Disabled bool      `json:"disabled"`
	Reason   string    `json:"reason,omitempty"`
	Since    time.Time `json:"since,omitzero"`
}

// Effective returns the endpoint's state with its health taken into account: a
// health record counts while no enable came after the version it judged.
func (e *Endpoint) Effective(h *Health) State { return e.State.Effective(e.EnabledAfter, h) }

// Effective is [Endpoint.Effective] for an endpoint in this state, without the
// endpoint.
func (s State) Effective(enabledAfter int64, h *Health) State {
	if s == StateEnabled && h != nil && h.Disabled && h.Judged > enabledAfter {
		return StateDisabled
	}
	return s
}

// Subscription says which events go to an endpoint.
type Subscription struct {
	Meta
	ID       string `json:"id"`
	Tenant   string `json:"tenant"`
	Endpoint string `json:"endpoint_id"`
	// Types are exact types, prefixes ("order.*") or "*".
	Types []string `json:"types"`
	// Filter is a CEL expression over the event, or empty.
	Filter string `json:"filter,omitempty"`
}

// Role says what an API key may do.
type Role string

// The roles of API keys.
const (
	// RoleAdmin may manage its tenant (every tenant, if it belongs to Platform).
	RoleAdmin Role = "admin"
	// RoleProducer may send events.
	RoleProducer Role = "producer"
)

// Key is an API key. The token is "<id>.<secret>"; only its hash is kept. It
// stands in the view under its tenant and under its own id.
type Key struct {
	Meta
	ID     string `json:"id"`
	Tenant string `json:"tenant"`
	Role   Role   `json:"role"`
	Name   string `json:"name,omitempty"`
	// Hash is the SHA-256 of the token, in hex.
	Hash string `json:"hash"`
}

// LayoutRecord records, once, the partition counts on which the placement of
// endpoints depends.
type LayoutRecord struct {
	Meta
	Deliveries     int32 `json:"deliveries_partitions"`
	ScheduleShards int32 `json:"schedule_shards"`
	// Partitioner is the version of the endpoint → partition function; zero
	// means 1.
	Partitioner int `json:"partitioner,omitempty"`
}

// Duration is a time.Duration that JSON writes as "5m0s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("duration %q: want a form such as 30s, 5m or 2h45m", text)
	}
	*d = Duration(v)
	return nil
}

// Decode reads an entity's JSON.
func Decode[E any](value []byte) (*E, error) {
	e := new(E)
	if err := json.Unmarshal(value, e); err != nil {
		return nil, fmt.Errorf("registry entity: %w", err)
	}
	return e, nil
}
