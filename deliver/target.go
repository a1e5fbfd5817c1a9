package deliver

import (
	"fmt"
	"net/url"
	"time"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/signature"
)

// Defaults and bounds of an endpoint's delivery.
const (
	defaultTimeout = 15 * time.Second
	// MaxInFlight is the largest number of attempts under way for one endpoint.
	MaxInFlight = 32
	// DefaultMaxAge is how long a delivery lives unless its endpoint says less.
	DefaultMaxAge = 5 * 24 * time.Hour
	// maxRetryAfter bounds how long a receiver may hold its lane by Retry-After.
	maxRetryAfter = time.Hour
)

// DefaultSchedule returns the delays before attempt 2, 3, … of an endpoint that
// names none: ten attempts within about three days.
func DefaultSchedule() []time.Duration {
	return []time.Duration{
		5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
		10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
}

// target is one version of an endpoint as attempts need it. It never changes.
type target struct {
	endpoint    *registry.Endpoint
	offset      int64 // the version, as offset of the registry
	url         *url.URL
	keys        []liveKey
	timeout     time.Duration
	maxAge      time.Duration
	schedule    []time.Duration
	maxInFlight int
	extras
}

// liveKey is a signing key and when it stops signing; zero is never.
type liveKey struct {
	key     signature.Key
	expires time.Time
}

// secretField names a signing secret in the associated data of its seal.
const secretField = "secret"

// opener unseals what control sealed.
type opener interface {
	Open(sealed, tenant, entity, field string) ([]byte, error)
}

// newTarget prepares an endpoint: parses its URL and unseals its secrets.
func newTarget(e *registry.Endpoint, offset int64, seal opener, maxAge time.Duration) (*target, error) {
	u, err := url.Parse(e.URL)
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: its url can't be parsed", e.ID)
	}
	t := &target{
		endpoint: e, offset: offset, url: u,
		timeout: time.Duration(e.Timeout), maxAge: time.Duration(e.Retry.MaxAge),
		schedule: DefaultSchedule(), maxInFlight: e.MaxInFlight,
	}
	if t.timeout <= 0 {
		t.timeout = defaultTimeout
	}
	if t.maxAge <= 0 || t.maxAge > maxAge {
		t.maxAge = maxAge
	}
	if t.maxInFlight <= 0 || t.maxInFlight > MaxInFlight {
		t.maxInFlight = MaxInFlight
	}
	if len(e.Retry.Schedule) > 0 {
		t.schedule = make([]time.Duration, len(e.Retry.Schedule))
		for i, step := range e.Retry.Schedule {
			t.schedule[i] = time.Duration(step)
		}
	}
	for _, s := range e.Secrets {
		plain, err := seal.Open(s.Sealed, e.Tenant, e.ID, secretField)
		if err != nil {
			return nil, fmt.Errorf("endpoint %s: unseal its signing secret: %w", e.ID, err)
		}
		key, err := signature.Parse(string(plain))
		if err != nil {
			return nil, fmt.Errorf("endpoint %s: its signing secret: %w", e.ID, err)
		}
		t.keys = append(t.keys, liveKey{key, s.ExpiresAt})
	}
	return t, nil
}

// signers returns the keys that sign at a time.
func (t *target) signers(now time.Time) []signature.Key {
	keys := make([]signature.Key, 0, len(t.keys))
	for _, k := range t.keys {
		if k.expires.IsZero() || now.Before(k.expires) {
			keys = append(keys, k.key)
		}
	}
	return keys
}
