package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A probe of Kubernetes waits 1 s by default: checks end before the answer is
// due, and the answer before the probe gives up.
const (
	checkTimeout  = 800 * time.Millisecond
	answerTimeout = 900 * time.Millisecond
)

// deadAfter is the number of limits after which a loop that stands still fails
// liveness, too.
const deadAfter = 3

// Status is how a check, or the process as a whole, is doing.
type Status string

const (
	// StatusOK means that nothing is wrong.
	StatusOK Status = "ok"
	// StatusDegraded means that something wants attention while work goes on:
	// a warning, or in liveness a loop that is late but not yet given up.
	StatusDegraded Status = "degraded"
	// StatusFailing means not ready, or in liveness not worth keeping.
	StatusFailing Status = "failing"
)

// CheckResult is one check or watched loop in a Report.
type CheckResult struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Detail says what is wrong; empty while Status is StatusOK.
	Detail string `json:"detail"`
}

// Warning is a state that is accepted but stays visible, such as unsafe settings.
type Warning struct {
	Name   string `json:"name"`
	Detail string `json:"detail"`
}

// Report is the body of /healthz and /readyz. Status is the worst of the
// checks; warnings alone make it StatusDegraded.
type Report struct {
	Status   Status        `json:"status"`
	Checks   []CheckResult `json:"checks"`
	Warnings []Warning     `json:"warnings"`
}

// Health collects what decides whether this process is alive and ready. Its
// methods may be called concurrently.
type Health struct {
	mu       sync.Mutex
	checks   []*check
	beats    []*Beat
	warnings []Warning
}

// NewHealth returns a Health without checks: alive and ready.
func NewHealth() *Health { return &Health{} }

// Check registers a readiness check, in place of an earlier one of that name.
// It is called for each probe, at most once at a time (probes at the same
// moment share the answer), and gets 800 ms; one that does not return by then
// counts as failing. Its error is shown to whoever reads /readyz.
func (h *Health) Check(name string, test func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks = put(h.checks, &check{name: name, test: test}, func(c *check) string { return c.name })
}

// Watchdog registers a loop that must tick at least once per limit, counted
// from now, in place of an earlier one of that name. A loop that is late fails
// readiness; one that is late by three limits fails liveness, too.
func (h *Health) Watchdog(name string, limit time.Duration) *Beat {
	b := &Beat{name: name, limit: limit, health: h, start: time.Now()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.beats = put(h.beats, b, func(b *Beat) string { return b.name })
	return b
}

// Warn makes a text visible in /readyz without failing it, in place of an
// earlier one of that name. An empty text withdraws the warning.
func (h *Health) Warn(name, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if text == "" {
		h.warnings = slices.DeleteFunc(h.warnings, func(w Warning) bool { return w.Name == name })
		return
	}
	h.warnings = put(h.warnings, Warning{Name: name, Detail: text}, func(w Warning) string { return w.Name })
}

// put replaces the item with the same name, or appends, so that reports keep
// the order of registration.
func put[T any](items []T, item T, name func(T) string) []T {
	i := slices.IndexFunc(items, func(other T) bool { return name(other) == name(item) })
	if i < 0 {
		return append(items, item)
	}
	items[i] = item
	return items
}

// Ready runs all checks, at once, and looks at all loops. It answers within
// 900 ms, or sooner if ctx ends.
func (h *Health) Ready(ctx context.Context) Report {
	checks, beats, warnings := h.snapshot()
	report := Report{Status: StatusOK, Checks: []CheckResult{}, Warnings: warnings}
	if len(warnings) > 0 {
		report.Status = StatusDegraded
	}
	runs := make([]*checkRun, len(checks))
	for i, c := range checks {
		runs[i] = c.begin(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	for i, c := range checks {
		report.add(c.name, StatusFailing, runs[i].wait(ctx))
	}
	for _, b := range beats {
		report.add(b.name, StatusFailing, b.late(b.limit))
	}
	return report
}

// Live looks at the loops only: what a restart would not mend has no place in
// liveness.
func (h *Health) Live() Report {
	_, beats, warnings := h.snapshot()
	report := Report{Status: StatusOK, Checks: []CheckResult{}, Warnings: warnings}
	for _, b := range beats {
		if err := b.late(deadAfter * b.limit); err != nil {
			report.add(b.name, StatusFailing, err)
			continue
		}
		report.add(b.name, StatusDegraded, b.late(b.limit))
	}
	return report
}

// add notes a check that got err: bad is its status unless err is nil.
func (r *Report) add(name string, bad Status, err error) {
	result := CheckResult{Name: name, Status: StatusOK}
	if err != nil {
		result.Status, result.Detail = bad, err.Error()
		if r.Status != StatusFailing {
			r.Status = bad
		}
	}
	r.Checks = append(r.Checks, result)
}

func (h *Health) snapshot() ([]*check, []*Beat, []Warning) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.checks), slices.Clone(h.beats), append([]Warning{}, h.warnings...)
}

// Healthz serves /healthz: 503 if a loop has stood still for three limits, else
// 200.
func (h *Health) Healthz() http.Handler {
	return serveReport(func(context.Context) Report { return h.Live() })
}

// Readyz serves /readyz: 503 if a check fails or a loop is late, else 200.
func (h *Health) Readyz() http.Handler { return serveReport(h.Ready) }

func serveReport(report func(context.Context) Report) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		answer := report(r.Context())
		var body bytes.Buffer
		enc := json.NewEncoder(&body)
		enc.SetEscapeHTML(false) // people read it
		if err := enc.Encode(answer); err != nil {
			http.Error(w, fmt.Sprintf("encode the report: %v", err), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if answer.Status == StatusFailing {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write(body.Bytes()) // the prober went away: nobody to tell
	})
}
