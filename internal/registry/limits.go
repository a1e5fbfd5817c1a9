package registry

import "time"

// RateLimit bounds how many attempts of an endpoint start.
type RateLimit struct {
	// PerSecond is how many attempts may start per second, retries and probes
	// among them; zero is no limit.
	PerSecond float64 `json:"per_second,omitempty"`
	// Burst is how many may start at once after a time without any; zero means
	// PerSecond, rounded up.
	Burst int `json:"burst,omitempty"`
}

// Breaker says when a failing endpoint is left alone. It opens on either of two
// conditions; while it is open, deliveries park and single attempts probe.
type Breaker struct {
	// Off switches the breaker off.
	Off bool `json:"off,omitempty"`
	// Failures opens it after so many failures in a row, of different
	// deliveries; zero means 10.
	Failures int `json:"failures,omitempty"`
	// FailurePercent opens it when that part of the attempts of the window
	// failed, where a delivery that fails again counts once; zero means 90, 100 is
	// only failures.
	FailurePercent int `json:"failure_percent,omitempty"`
	// MinAttempts is how many attempts the window must have for FailurePercent
	// to count; zero means 50.
	MinAttempts int `json:"min_attempts,omitempty"`
	// Window is how far back FailurePercent looks; zero means 1 min.
	Window Duration `json:"window,omitzero"`
	// ProbeAfter is the wait from opening to the first probe. It doubles after
	// each failed probe, up to MaxProbeAfter; zero means 5 s.
	ProbeAfter Duration `json:"probe_after,omitzero"`
	// MaxProbeAfter bounds the wait for the next probe; zero means 1 min, or
	// ProbeAfter if that is more.
	MaxProbeAfter Duration `json:"max_probe_after,omitzero"`
}

// OnExhausted is what happens to an ordered delivery after its last attempt.
type OnExhausted string

// What an ordered endpoint does with a delivery whose schedule is used up.
const (
	// SkipExhausted gives it up: it goes to dead, the next one of its key follows.
	SkipExhausted OnExhausted = "skip"
	// BlockExhausted goes on with it at the schedule's last step: its key waits
	// until it is delivered, cancelled, or older than max_age.
	BlockExhausted OnExhausted = "block"
)

// What holds for settings and for their effect.
const (
	// MaxShards bounds the shards of an endpoint.
	MaxShards = 16
	// MaxInFlight bounds the attempts under way for one endpoint, or for one of its
	// shards.
	MaxInFlight = 32
	// DefaultProbeAfter is what a zero ProbeAfter means.
	DefaultProbeAfter = 5 * time.Second
)

// ReportSuffix follows a lane's name in the record in which its owner in deliver
// tells how the endpoint fares. Unlike health it decides nothing.
const ReportSuffix = "/report"

// Report is how an endpoint fares, as its owner in deliver last told. A lane
// without anything to tell has none.
type Report struct {
	Meta
	Endpoint string `json:"endpoint_id"`
	Tenant   string `json:"tenant"`
	// Shard is the lane's number where the endpoint has several.
	Shard int `json:"shard,omitempty"`
	// OpenSince is since when the breaker is open, zero while it is closed, and
	// OpenReason why it opened.
	OpenSince  time.Time `json:"open_since,omitzero"`
	OpenReason string    `json:"open_reason,omitempty"`
	// HoldSince and HoldUntil are since and until when nothing is sent, zero if that
	// is not so, or not for long; HoldReason is the error class of the answer that
	// asked for it (Retry-After).
	HoldSince  time.Time `json:"hold_since,omitzero"`
	HoldUntil  time.Time `json:"hold_until,omitzero"`
	HoldReason string    `json:"hold_reason,omitempty"`
	// FailingSince is since when the endpoint did nothing but fail; told once
	// that has lasted. DisableAt is when it is disabled if it goes on so.
	FailingSince time.Time `json:"failing_since,omitzero"`
	DisableAt    time.Time `json:"disable_at,omitzero"`
	// Warning is how much of the time until DisableAt has passed: 50, 70 or 90
	// percent, 0 before.
	Warning int `json:"warning_percent,omitempty"`
}
