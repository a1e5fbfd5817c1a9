package control

import (
	"cmp"
	"fmt"
	"time"

	"github.com/postrider/postrider/internal/registry"
)

// Bounds of what can be set of an endpoint's limits.
const (
	minBreakerTime = time.Second
	maxBreakerTime = time.Hour
)

// rateLimitSettings bounds an endpoint's attempts.
type rateLimitSettings struct {
	PerSecond float64 `json:"per_second" minimum:"0.01" maximum:"100000" doc:"Attempts that may start per second, retries among them. What comes faster waits."`
	Burst     int     `json:"burst,omitempty" minimum:"1" maximum:"100000" doc:"Attempts that may start at once after a quiet time; at least one for each shard. Default per_second, rounded up, and not below the number of shards."`
}

// breakerSettings says when a failing endpoint is left alone.
type breakerSettings struct {
	Off            bool   `json:"off,omitempty" doc:"No breaker: every delivery is attempted on its own schedule."`
	Failures       int    `json:"failures,omitempty" minimum:"1" maximum:"10000" doc:"Opens after so many failures in a row, of different deliveries: retries of one count once. Default 10."`
	FailurePercent int    `json:"failure_percent,omitempty" minimum:"1" maximum:"100" doc:"Opens when so many percent of the window's attempts failed; a delivery that fails again counts once. Default 90."`
	MinAttempts    int    `json:"min_attempts,omitempty" minimum:"1" maximum:"100000" doc:"Attempts that the window must have for failure_percent to count. Default 50."`
	Window         string `json:"window,omitempty" example:"1m" doc:"How far back failure_percent looks: 1s to 1h. Default 1m."`
	ProbeAfter     string `json:"probe_after,omitempty" example:"5s" doc:"Wait from opening to the first probe: 1s to 1h. It doubles after each failed one. Default 5s."`
	MaxProbeAfter  string `json:"max_probe_after,omitempty" example:"1m" doc:"Longest wait for the next probe: 1s to 1h, not below probe_after. Default 1m, or probe_after if that is longer."`
}

// LimitSettings is the part of EndpointSettings about how fast, in which order
// and for how long an endpoint is attempted.
type LimitSettings struct {
	RateLimit   *rateLimitSettings `json:"rate_limit,omitempty"`
	Breaker     *breakerSettings   `json:"breaker,omitempty"`
	Ordered     bool               `json:"ordered,omitempty" doc:"Deliver events with one partitionkey (and those without any) one after the other, in order. A failed one holds up its key alone."`
	OnExhausted string             `json:"on_exhausted,omitempty" enum:"skip,block" doc:"With ordered: what follows the last attempt. skip: it is given up and the next one follows; block: it is attempted again at the schedule's last step, and its key waits. Default skip."`
	Shards      int                `json:"shards,omitempty" minimum:"1" maximum:"16" doc:"Spread the endpoint over so many workers; max_in_flight and rate_limit are divided among them, breaker and Retry-After hold for each shard by itself. Not with ordered. Default 1."`
}

// LimitPatch is the same part of a merge patch.
type LimitPatch struct {
	RateLimit *struct {
		PerSecond float64 `json:"per_second,omitempty" minimum:"0.01" maximum:"100000" nullable:"true"`
		Burst     int     `json:"burst,omitempty" minimum:"1" maximum:"100000" nullable:"true"`
	} `json:"rate_limit,omitempty"`
	Breaker *struct {
		Off            bool   `json:"off,omitempty" nullable:"true"`
		Failures       int    `json:"failures,omitempty" minimum:"1" maximum:"10000" nullable:"true"`
		FailurePercent int    `json:"failure_percent,omitempty" minimum:"1" maximum:"100" nullable:"true"`
		MinAttempts    int    `json:"min_attempts,omitempty" minimum:"1" maximum:"100000" nullable:"true"`
		Window         string `json:"window,omitempty" nullable:"true"`
		ProbeAfter     string `json:"probe_after,omitempty" nullable:"true"`
		MaxProbeAfter  string `json:"max_probe_after,omitempty" nullable:"true"`
	} `json:"breaker,omitempty"`
	Ordered     bool   `json:"ordered,omitempty" nullable:"true"`
	OnExhausted string `json:"on_exhausted,omitempty" enum:"skip,block" nullable:"true"`
	Shards      int    `json:"shards,omitempty" minimum:"1" maximum:"16" nullable:"true"`
}

func limitNames(n names) names {
	n["rate_limit"] = names{"per_second": nil, "burst": nil}
	n["breaker"] = names{
		"off": nil, "failures": nil, "failure_percent": nil, "min_attempts": nil, "window": nil, "probe_after": nil, "max_probe_after": nil,
	}
	n["ordered"], n["on_exhausted"], n["shards"] = nil, nil, nil
	return n
}

// limitsOf is the inverse of applyLimits.
func limitsOf(e *registry.Endpoint) LimitSettings {
	set := LimitSettings{Ordered: e.Ordered, OnExhausted: string(e.OnExhausted), Shards: e.Shards}
	if e.RateLimit != (registry.RateLimit{}) {
		set.RateLimit = &rateLimitSettings{e.RateLimit.PerSecond, e.RateLimit.Burst}
	}
	if b := e.Breaker; b != (registry.Breaker{}) {
		set.Breaker = &breakerSettings{
			b.Off, b.Failures, b.FailurePercent, b.MinAttempts, showDuration(b.Window), showDuration(b.ProbeAfter), showDuration(b.MaxProbeAfter),
		}
	}
	return set
}

// applyLimits sets the limits on the endpoint, or says what is wrong with them.
func applyLimits(set LimitSettings, maxInFlight int, e *registry.Endpoint) (faults []fault) {
	e.RateLimit, e.Breaker = registry.RateLimit{}, registry.Breaker{}
	if r := set.RateLimit; r != nil {
		e.RateLimit = registry.RateLimit{PerSecond: r.PerSecond, Burst: r.Burst}
		if r.PerSecond == 0 {
			faults = append(faults, fault{pointer: "/rate_limit/per_second", detail: "is required with rate_limit"})
		}
	}
	if set.Breaker != nil {
		b, f := breakerOf(set.Breaker)
		e.Breaker, faults = b, append(faults, f...)
	}
	e.Ordered, e.OnExhausted, e.Shards = set.Ordered, registry.OnExhausted(set.OnExhausted), set.Shards
	e.MostShards = max(e.MostShards, e.Shards)
	faults = append(faults, checkShares(set, maxInFlight)...)
	if set.Ordered && set.Shards > 1 {
		faults = append(faults, fault{pointer: "/shards", detail: "an ordered endpoint has one shard"})
	}
	if !set.Ordered && set.OnExhausted != "" {
		faults = append(faults, fault{pointer: "/on_exhausted", detail: "has an effect only with ordered"})
	}
	return faults
}

// checkShares refuses limits that can't be divided among the endpoint's shards: each
// is served on its own, so none has less than one.
func checkShares(set LimitSettings, maxInFlight int) (faults []fault) {
	shards := max(set.Shards, 1)
	if most := registry.MaxInFlight * shards; maxInFlight > most {
		faults = append(faults, fault{pointer: "/max_in_flight", detail: fmt.Sprintf("at most %d, %d for each shard", most, registry.MaxInFlight)})
	}
	if maxInFlight > 0 && maxInFlight < shards {
		faults = append(faults, fault{pointer: "/max_in_flight", detail: fmt.Sprintf("at least %d, one for each shard", shards)})
	}
	if r := set.RateLimit; r != nil && r.Burst > 0 && r.Burst < shards {
		faults = append(faults, fault{pointer: "/rate_limit/burst", detail: fmt.Sprintf("at least %d, one for each shard", shards)})
	}
	return faults
}

func breakerOf(set *breakerSettings) (registry.Breaker, []fault) {
	window, faults := duration("/breaker/window", set.Window, minBreakerTime, maxBreakerTime, codeValidation)
	probe, f1 := duration("/breaker/probe_after", set.ProbeAfter, minBreakerTime, maxBreakerTime, codeValidation)
	most, f2 := duration("/breaker/max_probe_after", set.MaxProbeAfter, minBreakerTime, maxBreakerTime, codeValidation)
	faults = append(append(faults, f1...), f2...)
	if first := cmp.Or(probe, registry.Duration(registry.DefaultProbeAfter)); most != 0 && most < first && len(faults) == 0 {
		faults = append(faults, fault{pointer: "/breaker/max_probe_after", detail: "is shorter than probe_after, " + showDuration(first)})
	}
	return registry.Breaker{
		Off: set.Off, Failures: set.Failures, FailurePercent: set.FailurePercent, MinAttempts: set.MinAttempts,
		Window: window, ProbeAfter: probe, MaxProbeAfter: most,
	}, faults
}

// withinOrdered refuses one ordered endpoint more than a tenant may have.
func withinOrdered(st *registry.TenantState, next *registry.Endpoint) error {
	if !next.Ordered {
		return nil
	}
	others := 0
	for id, ep := range st.Endpoints {
		if ep.Ordered && id != next.ID {
			others++
		}
	}
	return withinQuota("ordered endpoints", others, 1, registry.MaxOrdered)
}
