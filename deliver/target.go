package deliver

import (
	"fmt"
	"math"
	"net/url"
	"time"

	"github.com/postrider/postrider/internal/registry"
)

// Defaults and bounds of an endpoint's delivery.
const (
	defaultTimeout = 15 * time.Second
	// MaxInFlight is the largest number of attempts under way for one endpoint,
	// or for one of its shards.
	MaxInFlight = registry.MaxInFlight
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

// defaultSchedule is shared by all targets without one of their own.
var defaultSchedule = DefaultSchedule() //nolint:gochecknoglobals // never changed

// target is one version of an endpoint as attempts need it. It never changes, and
// keeps nothing of the endpoint that no attempt needs: there may be 100,000.
type target struct {
	endpoint    standing
	offset      int64 // the version, as offset of the registry
	url         *url.URL
	signer      *signer
	timeout     time.Duration
	maxAge      time.Duration
	schedule    []time.Duration
	maxInFlight int // of one shard
	rate        float64
	burst       int
	breaker     breakerPolicy
	ordered     bool
	blocks      bool // an ordered delivery is never exhausted
	former      bool // the lane is none of the endpoint's shards any more
	extras
}

// standing is what a target keeps of its endpoint as it is.
type standing struct {
	State        registry.State
	EnabledAfter int64
	TraceContext bool
}

// Effective returns the endpoint's state with its health taken into account.
func (s *standing) Effective(h *registry.Health) registry.State {
	return s.State.Effective(s.EnabledAfter, h)
}

// newTarget prepares an endpoint for one of its shards: parses its URL and unseals
// its secrets.
func newTarget(e *registry.Endpoint, offset int64, shard int, seal opener, maxAge time.Duration) (*target, error) {
	u, err := url.Parse(e.URL)
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: its url can't be parsed", e.ID)
	}
	t := &target{
		endpoint: standing{e.State, e.EnabledAfter, e.TraceContext}, offset: offset, url: u,
		timeout: time.Duration(e.Timeout), maxAge: time.Duration(e.Retry.MaxAge),
		schedule: defaultSchedule, breaker: newBreakerPolicy(e.Breaker),
		ordered: e.Ordered, blocks: e.Ordered && e.OnExhausted == registry.BlockExhausted,
	}
	t.share(e, shard)
	if t.timeout <= 0 {
		t.timeout = defaultTimeout
	}
	if t.maxAge <= 0 || t.maxAge > maxAge {
		t.maxAge = maxAge
	}
	if len(e.Retry.Schedule) > 0 {
		t.schedule = make([]time.Duration, len(e.Retry.Schedule))
		for i, step := range e.Retry.Schedule {
			t.schedule[i] = time.Duration(step)
		}
	}
	if t.signer, err = newSigner(e, seal); err != nil {
		return nil, err
	}
	return t, nil
}

// sameReceiver reports whether requests still go where they went at another
// version.
func (t *target) sameReceiver(other *target) bool {
	return t == other || t != nil && *t.url == *other.url
}

// share sets the limits of one shard: its part of the endpoint's. A lane that is no
// shard any more keeps the part that it had while there were most, beside those
// that now divide the whole among them: no lane knows whether another one has
// anything left. So the limits are never exceeded to twice, but that each lane may
// make one attempt.
func (t *target) share(e *registry.Endpoint, shard int) {
	shards := max(e.Shards, 1)
	by := shards
	if t.former = shard >= shards; t.former {
		by = max(e.MostShards, shard+1)
	}
	flying := e.MaxInFlight
	if flying <= 0 {
		flying = MaxInFlight * shards
	}
	t.maxInFlight = min(part(flying, by, shard), MaxInFlight)
	if e.RateLimit.PerSecond <= 0 {
		return
	}
	burst := e.RateLimit.Burst
	if burst <= 0 {
		burst = int(math.Ceil(e.RateLimit.PerSecond))
	}
	t.rate, t.burst = e.RateLimit.PerSecond/float64(by), part(burst, by, shard)
}

// part returns a shard's part of a limit. The parts add up to the limit, but that
// no shard has less than one.
func part(limit, shards, shard int) int {
	n := limit / shards
	if shard < limit%shards {
		n++
	}
	return max(n, 1)
}
