package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/match"
	"github.com/postrider/postrider/internal/registry"
)

// Bounds of what can be set.
const (
	minTimeout      = time.Second
	maxTimeout      = 60 * time.Second
	maxMetadata     = 50
	maxMetadataName = 64
	maxMetadataText = 1024
	maxRetries      = 20
	minRetryStep    = time.Second
	maxRetryStep    = 28 * time.Hour
	// maxStretch is how much longer than its step a wait on the wheel may be
	// (DESIGN 4.7), in percent.
	maxStretch = 127
	maxTypes   = 100
)

func defaultSchedule() []registry.Duration {
	const second, minute, hour = registry.Duration(time.Second), registry.Duration(time.Minute), registry.Duration(time.Hour)
	return []registry.Duration{
		5 * second, 5 * minute, 30 * minute, 2 * hour, 5 * hour, 10 * hour, 14 * hour, 20 * hour, 24 * hour,
	}
}

// EndpointSettings is what can be set of an endpoint; its state is changed by
// verbs. A field that is absent is the gateway's default.
type EndpointSettings struct {
	URL          string            `json:"url" maxLength:"2048" example:"https://example.com/hooks" doc:"Where to POST: http or https, port 80, 443 or from 1024 up, no credentials."`
	Description  string            `json:"description,omitempty" maxLength:"1024"`
	Metadata     map[string]string `json:"metadata,omitempty" maxProperties:"50" doc:"At most 50 of up to 1,024 bytes each; names up to 64 bytes."`
	Timeout      string            `json:"timeout,omitempty" example:"15s" doc:"Bounds one whole exchange: 1s to 60s. Default 15s."`
	MaxInFlight  int               `json:"max_in_flight,omitempty" minimum:"1" maximum:"512" doc:"Attempts under way at once, at most 32 for each shard. Default 32 for each shard."`
	Retry        *retrySettings    `json:"retry,omitempty"`
	Signing      *signingSettings  `json:"signing,omitempty"`
	TraceContext bool              `json:"trace_context,omitempty" doc:"Send a traceparent header."`
	LimitSettings
	ReceiverSettings
}

// retrySettings says when failed attempts are repeated.
type retrySettings struct {
	Schedule []string `json:"schedule,omitempty" nullable:"false" minItems:"1" maxItems:"20" example:"[\"5s\",\"5m\",\"2h\"]" doc:"The delay before attempt 2, 3, …; each 1s to 28h."`
	MaxAge   string   `json:"max_age,omitempty" example:"72h" doc:"The delivery's age at which it is given up; at least 1.27 times the schedule's sum, and a second for each step; at most the gateway's max-age, its default."`
}

// endpointPatch is a merge patch of EndpointSettings: null means the default.
type endpointPatch struct {
	URL          string             `json:"url,omitempty" maxLength:"2048"`
	Description  string             `json:"description,omitempty" maxLength:"1024" nullable:"true"`
	Metadata     map[string]*string `json:"metadata,omitempty" maxProperties:"50" doc:"null for a name removes it."`
	Timeout      string             `json:"timeout,omitempty" nullable:"true"`
	MaxInFlight  int                `json:"max_in_flight,omitempty" minimum:"1" maximum:"512" nullable:"true"`
	Retry        *retryPatch        `json:"retry,omitempty"`
	Signing      *signingPatch      `json:"signing,omitempty"`
	TraceContext bool               `json:"trace_context,omitempty" nullable:"true"`
	LimitPatch
	ReceiverPatch
}

type retryPatch struct {
	Schedule []string `json:"schedule,omitempty" nullable:"true" minItems:"1" maxItems:"20"`
	MaxAge   string   `json:"max_age,omitempty" nullable:"true"`
}

// settingsOf is the inverse of apply.
func settingsOf(e *registry.Endpoint) EndpointSettings {
	set := EndpointSettings{
		URL: e.URL, Description: e.Description, Metadata: e.Metadata, Timeout: showDuration(e.Timeout),
		MaxInFlight: e.MaxInFlight, TraceContext: e.TraceContext, LimitSettings: limitsOf(e), ReceiverSettings: receiverOf(e),
	}
	set.Signing = signingOf(e)
	if len(e.Retry.Schedule) > 0 || e.Retry.MaxAge != 0 {
		set.Retry = &retrySettings{MaxAge: showDuration(e.Retry.MaxAge)}
		for _, step := range e.Retry.Schedule {
			set.Retry.Schedule = append(set.Retry.Schedule, showDuration(step))
		}
	}
	return set
}

func showDuration(d registry.Duration) string {
	if d == 0 {
		return ""
	}
	return time.Duration(d).String()
}

// apply sets the settings on the endpoint, or says what is wrong with them.
func (s *Server) apply(set EndpointSettings, e *registry.Endpoint) []fault {
	faults := s.checkURL(set.URL)
	faults = append(faults, checkMetadata("/metadata", set.Metadata)...)
	timeout, f := duration("/timeout", set.Timeout, minTimeout, maxTimeout, codeValidation)
	faults = append(faults, f...)
	var retry registry.Retry
	if set.Retry != nil {
		retry, f = s.retry(*set.Retry)
		faults = append(faults, f...)
	}
	faults = append(faults, applySigning(set.Signing, e)...)
	e.URL, e.Description, e.Metadata, e.TraceContext = set.URL, set.Description, set.Metadata, set.TraceContext
	e.Timeout, e.MaxInFlight, e.Retry = timeout, set.MaxInFlight, retry
	faults = append(faults, applyLimits(set.LimitSettings, set.MaxInFlight, e)...)
	return append(faults, s.applyReceiver(set.ReceiverSettings, e)...)
}

// duration reads a duration within bounds; "" is 0, the default.
func duration(pointer, text string, least, most time.Duration, code string) (registry.Duration, []fault) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, []fault{{pointer, "want a duration such as 30s, 5m or 2h45m", code}}
	}
	if d < least || d > most {
		return 0, []fault{{pointer, fmt.Sprintf("want %s to %s", least, most), code}}
	}
	return registry.Duration(d), nil
}

// retry reads a policy and refuses one whose retries could outlast max_age.
func (s *Server) retry(set retrySettings) (registry.Retry, []fault) {
	maxAge, faults := duration("/retry/max_age", set.MaxAge, minRetryStep, s.cfg.Kafka.MaxAge, codeInvalidRetry)
	policy := registry.Retry{MaxAge: maxAge}
	if len(set.Schedule) > maxRetries {
		faults = append(faults, fault{"/retry/schedule", fmt.Sprintf("has %d steps, at most %d are allowed", len(set.Schedule), maxRetries), codeInvalidRetry})
	}
	for i, text := range set.Schedule {
		pointer := "/retry/schedule/" + strconv.Itoa(i)
		step, f := duration(pointer, text, minRetryStep, maxRetryStep, codeInvalidRetry)
		if step == 0 && f == nil {
			f = []fault{{pointer, "want a duration such as 30s, 5m or 2h45m", codeInvalidRetry}}
		}
		faults = append(faults, f...)
		policy.Schedule = append(policy.Schedule, step)
	}
	if len(faults) > 0 {
		return policy, faults
	}
	return policy, s.outlasts(policy)
}

// outlasts compares the longest that the schedule can take with max_age, either
// of which may be the gateway's default.
func (s *Server) outlasts(policy registry.Retry) []fault {
	schedule, maxAge, pointer := policy.Schedule, time.Duration(policy.MaxAge), "/retry/schedule"
	if len(schedule) == 0 {
		schedule, pointer = s.cfg.DefaultRetry.Schedule, "/retry/max_age"
	}
	if maxAge == 0 {
		maxAge = time.Duration(s.cfg.DefaultRetry.MaxAge)
	}
	var sum time.Duration
	for _, step := range schedule {
		sum += time.Duration(step)
	}
	if worst := sum/100*maxStretch + time.Duration(len(schedule))*time.Second; worst > maxAge {
		return []fault{{pointer, fmt.Sprintf("the retries can take %s, max_age is %s", worst.Round(time.Second), maxAge), codeInvalidRetry}}
	}
	return nil
}

func checkMetadata(pointer string, metadata map[string]string) (faults []fault) {
	if len(metadata) > maxMetadata {
		faults = append(faults, fault{pointer: pointer, detail: fmt.Sprintf("has %d entries, at most %d are allowed", len(metadata), maxMetadata)})
	}
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		switch at := pointer + "/" + escape(name); {
		case name == "" || len(name) > maxMetadataName:
			faults = append(faults, fault{pointer: at, detail: fmt.Sprintf("the name wants 1 to %d bytes", maxMetadataName)})
		case len(metadata[name]) > maxMetadataText:
			faults = append(faults, fault{pointer: at, detail: fmt.Sprintf("has %d bytes, at most %d are allowed", len(metadata[name]), maxMetadataText)})
		}
	}
	return faults
}

// checkURL looks at the text of a URL and at an address in it.
func (s *Server) checkURL(raw string) []fault {
	if raw == "" {
		return []fault{{"/url", "is required", codeInvalidURL}}
	}
	if u, err := url.Parse(raw); err == nil && u.User != nil {
		return []fault{{"/url", "credentials in the URL are not allowed", codeCredentials}}
	}
	_, err := s.deps.Egress.CheckURL(raw)
	return urlFaults(err)
}

// checkHost looks up the host of a URL that passes CheckURL: an address that
// would be refused when dialling is refused now. A failing look-up is not: it may
// be over by the first event.
func (s *Server) checkHost(ctx context.Context, raw string) []fault {
	u, err := s.deps.Egress.CheckURL(raw)
	if err != nil {
		return nil // apply says what is wrong
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	err = s.deps.Egress.CheckHost(ctx, u.Hostname())
	if _, blocked := errors.AsType[*egress.BlockedError](err); !blocked {
		return nil
	}
	return urlFaults(err)
}

func urlFaults(err error) []fault {
	var blocked *egress.BlockedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &blocked) && blocked.Class != egress.AddrPort:
		return []fault{{"/url", blocked.Error(), codeBlockedAddress}}
	}
	return []fault{{"/url", err.Error(), codeInvalidURL}}
}

// checkSubscription checks types and filter; pointer is where they stand.
func (s *Server) checkSubscription(pointer string, types []string, filter string) (faults []fault) {
	if len(types) == 0 || len(types) > maxTypes {
		faults = append(faults, fault{pointer + "/types", fmt.Sprintf("want 1 to %d type patterns", maxTypes), codeInvalidType})
	}
	for i, pattern := range types {
		if err := match.CheckPattern(pattern); err != nil {
			faults = append(faults, fault{pointer + "/types/" + strconv.Itoa(i), err.Error(), codeInvalidType})
		}
	}
	if filter != "" {
		if err := s.programs.CheckFilter(filter); err != nil {
			faults = append(faults, fault{pointer + "/filter", err.Error(), codeInvalidFilter})
		}
	}
	return faults
}
