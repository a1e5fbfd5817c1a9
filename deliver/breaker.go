package deliver

import (
	"cmp"
	"encoding/binary"
	"slices"
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

// spanIDs bounds the failed deliveries that are remembered of each half of the
// window: where more have failed, it is not for a few of them.
const spanIDs = 128

// breaker knows whether an endpoint is worth an attempt. Closed, it counts; open,
// its lane parks and makes single attempts (probes), further and further apart;
// the first success closes it.
//
// A delivery that fails over and over says little about its endpoint. So it counts
// once in a row, and once for the share.
//
// Most lanes never fail: what only failures need is kept apart.
type breaker struct {
	spans  [2]attemptSpan // this half of the window and the one before
	since  time.Time      // when the half began
	failed *failed        // nil: nothing failed in the window, nor since the last success
	*trip                 // nil: closed
}

// failed is which deliveries failed, by a hash of their ids.
type failed struct {
	row   []uint64    // since the last success, each once; at most as many as open the breaker
	spans [2][]uint64 // in each half of the window, at most spanIDs
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

// tried is an attempt as a breaker sees it.
type tried struct {
	delivery string
	started  time.Time
	ok       bool
}

// record counts an attempt and reports whether the breaker has opened or closed. An
// attempt that was under way when it opened is no probe: its failure says nothing new.
func (b *breaker) record(p *breakerPolicy, a tried, now time.Time) bool {
	switch {
	case b.isOpen() && a.ok:
		*b = breaker{}
		return true
	case b.isOpen():
		if !a.started.Before(b.opened) {
			b.probeFailed(p, now)
		}
		return false
	case p.off:
		return false
	}
	if b.turn(p, now); a.ok {
		b.spans[0].attempts++
		b.succeeded()
		return false
	}
	b.fail(p, a.delivery)
	var reason string
	switch attempts, failures := b.totals(); {
	case b.inRow() >= p.failures:
		reason = openFailures
	case attempts >= p.minAttempts && failures*100 >= attempts*p.percent:
		reason = openShare
	default:
		return false
	}
	*b = breaker{}
	b.restore(p, now, reason, now)
	return true
}

// inRow returns how many deliveries have failed since the last success.
func (b *breaker) inRow() int {
	if b.failed == nil {
		return 0
	}
	return len(b.failed.row)
}

// succeeded ends the row.
func (b *breaker) succeeded() {
	f := b.failed
	switch {
	case f == nil:
	case len(f.spans[0]) == 0 && len(f.spans[1]) == 0:
		b.failed = nil
	case cap(f.row) > spanIDs:
		f.row = nil
	default:
		f.row = f.row[:0]
	}
}

// fail counts a failure, where its delivery does not count already.
func (b *breaker) fail(p *breakerPolicy, delivery string) {
	raw := schemas.IDBytes(delivery)
	id := binary.LittleEndian.Uint64(raw[:8]) ^ binary.LittleEndian.Uint64(raw[8:])
	if b.failed == nil {
		b.failed = &failed{}
	}
	f := b.failed
	if len(f.row) < p.failures && !slices.Contains(f.row, id) {
		f.row = append(f.row, id)
	}
	if slices.Contains(f.spans[0], id) || slices.Contains(f.spans[1], id) {
		return
	}
	if len(f.spans[0]) < spanIDs {
		f.spans[0] = append(f.spans[0], id)
	}
	b.spans[0].attempts++
	b.spans[0].failures++
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

// turn begins a new half of the window where the last one is over.
func (b *breaker) turn(p *breakerPolicy, now time.Time) {
	half := p.window / 2
	age := now.Sub(b.since)
	if age < half {
		return
	}
	var before attemptSpan
	var ids []uint64
	if age < 2*half {
		before = b.spans[0]
	}
	if b.failed != nil {
		if age < 2*half {
			ids = b.failed.spans[0]
		}
		b.failed.spans = [2][]uint64{nil, ids}
	}
	b.spans, b.since = [2]attemptSpan{{}, before}, now
}

func (b *breaker) totals() (attempts, failures int) {
	return int(b.spans[0].attempts + b.spans[1].attempts), int(b.spans[0].failures + b.spans[1].failures)
}
