package ingest

import (
	"cmp"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/postrider/postrider/internal/registry"
)

// quotas remembers how much each tenant sent.
type quotas struct {
	events, bytes float64
	known         *otter.Cache[string, *account]
}

// account is what one tenant has left.
type account struct {
	mu            sync.Mutex
	events, bytes bucket
}

// bucket is a token bucket that can be overdrawn: who has anything left may
// take all at once and then waits. (With x/time/rate a request larger than the
// burst is never let in, so the burst would have to be the largest batch.)
type bucket struct {
	left float64
	at   time.Time
}

func newQuotas(cfg Config) *quotas {
	return &quotas{
		events: cfg.EventsPerSecond, bytes: cfg.BytesPerSecond,
		known: otter.Must(&otter.Options[string, *account]{
			MaximumSize: cfg.QuotaTenants,
			Executor:    func(fn func()) { fn() }, // no goroutine outlives a call
		}),
	}
}

// take charges the tenant and returns 0, or how long it has to wait and charges
// nothing.
func (q *quotas) take(t *registry.Tenant, events, bytes int, now time.Time) time.Duration {
	perSecond := cmp.Or(t.Quota.EventsPerSecond, q.events)
	bytesPerSecond := cmp.Or(t.Quota.BytesPerSecond, q.bytes)
	if perSecond <= 0 && bytesPerSecond <= 0 {
		return 0
	}
	a, ok := q.known.GetIfPresent(t.ID)
	if !ok {
		a, _ = q.known.SetIfAbsent(t.ID, &account{})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	wait := max(a.events.refill(perSecond, now), a.bytes.refill(bytesPerSecond, now))
	if wait == 0 {
		a.events.left -= float64(events)
		a.bytes.left -= float64(bytes)
	}
	return wait
}

// refill adds what has accrued since the last time, at most one second's worth,
// and returns how long it takes until something is left. A rate of 0 is no
// bound.
func (b *bucket) refill(rate float64, now time.Time) time.Duration {
	if rate <= 0 {
		*b = bucket{}
		return 0
	}
	most := max(rate, 1)
	if b.at.IsZero() {
		b.left = most
	} else if passed := now.Sub(b.at); passed > 0 {
		b.left = min(most, b.left+passed.Seconds()*rate)
	}
	b.at = now
	if b.left > 0 {
		return 0
	}
	return min(max(time.Duration(-b.left/rate*float64(time.Second)), time.Millisecond), time.Hour)
}
