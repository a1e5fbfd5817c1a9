package deliver

import (
	"cmp"
	"time"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// Defaults of a breaker.
const (
	DefaultBreakerFailures       = 10
	DefaultBreakerFailurePercent = 90
	DefaultBreakerMinAttempts    = 50
	DefaultBreakerWindow         = time.Minute
	DefaultProbeAfter            = registry.DefaultProbeAfter
	DefaultMaxProbeAfter         = time.Minute
)

// Why a breaker opened, in the endpoint's report.
const (
	openFailures = "consecutive_failures"
	openShare    = "failure_share"
)

// breakerPolicy is an endpoint's breaker with the defaults filled in.
type breakerPolicy struct {
	off         bool
	failures    int
	percent     int
	minAttempts int
	window      time.Duration
	probe       time.Duration
	maxProbe    time.Duration
}

func newBreakerPolicy(b registry.Breaker) breakerPolicy {
	p := breakerPolicy{
		off:         b.Off,
		failures:    cmp.Or(b.Failures, DefaultBreakerFailures),
		percent:     cmp.Or(b.FailurePercent, DefaultBreakerFailurePercent),
		minAttempts: cmp.Or(b.MinAttempts, DefaultBreakerMinAttempts),
		window:      cmp.Or(time.Duration(b.Window), DefaultBreakerWindow),
		probe:       cmp.Or(time.Duration(b.ProbeAfter), DefaultProbeAfter),
		maxProbe:    cmp.Or(time.Duration(b.MaxProbeAfter), DefaultMaxProbeAfter),
	}
	p.maxProbe = max(p.probe, p.maxProbe)
	return p
}

// breaker knows whether an endpoint is worth an attempt. Closed, it counts; open,
// its lane parks and makes single attempts (probes), further and further apart;
// the first success closes it.
//
// Most lanes never fail: what only failures need is kept apart.
type breaker struct {
	row   int32          // failures since the last success, of different deliveries
	spans [2]attemptSpan // this half of the window and the one before
	since time.Time      // when the half began
	last  *[16]byte      // the delivery that failed last, nil for none
	*trip                // nil: closed
}

// trip is since when and why a breaker is open.
type trip struct {
	opened  time.Time
	reason  string
	probeAt time.Time     // no probe before
	pause   time.Duration // between the last probe and that time
}

// attemptSpan counts the attempts of a time.
type attemptSpan struct{ attempts, failures int32 }

func (b *breaker) isOpen() bool { return b.trip != nil }

// record counts an attempt and reports whether the breaker has opened or closed.
func (b *breaker) record(p *breakerPolicy, delivery string, ok bool, now time.Time) bool {
	if ok {
		b.row, b.last = 0, nil
		b.count(p, 0, now)
		if b.isOpen() {
			*b = breaker{}
			return true
		}
		return false
	}
	if id := schemas.IDBytes(delivery); b.last == nil || id != *b.last {
		b.last = &id
		b.row++
	}
	b.count(p, 1, now)
	if b.isOpen() {
		b.probeFailed(p, now)
		return false
	}
	var reason string
	switch attempts, failures := b.totals(); {
	case p.off:
		return false
	case int(b.row) >= p.failures:
		reason = openFailures
	case attempts >= p.minAttempts && failures*100 >= attempts*p.percent:
		reason = openShare
	default:
		return false
	}
	b.restore(p, now, reason, now)
	return true
}

// probeFailed waits for the next probe twice as long. Attempts that were under
// way when the breaker opened are no probes.
func (b *breaker) probeFailed(p *breakerPolicy, now time.Time) {
	if now.Before(b.probeAt) {
		return
	}
	b.pause = min(2*b.pause, p.maxProbe)
	b.probeAt = now.Add(b.pause)
}

// restore opens the breaker as its last owner left it.
func (b *breaker) restore(p *breakerPolicy, opened time.Time, reason string, now time.Time) {
	b.trip = &trip{opened: opened, reason: reason, pause: p.probe, probeAt: now.Add(p.probe)}
}

func (b *breaker) count(p *breakerPolicy, failures int32, now time.Time) {
	switch half := p.window / 2; {
	case now.Sub(b.since) >= 2*half:
		b.spans, b.since = [2]attemptSpan{}, now
	case now.Sub(b.since) >= half:
		b.spans, b.since = [2]attemptSpan{{}, b.spans[0]}, now
	}
	b.spans[0].attempts++
	b.spans[0].failures += failures
}

func (b *breaker) totals() (attempts, failures int) {
	return int(b.spans[0].attempts + b.spans[1].attempts), int(b.spans[0].failures + b.spans[1].failures)
}
