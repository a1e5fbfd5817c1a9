package deliver

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/registry"
)

// An endpoint is disabled after disable-after of nothing but failures, at least
// 12 hours and 20 of them; its owner is warned at 50, 70 and 90 percent.
func TestDisableRules(t *testing.T) {
	const day = 24 * time.Hour
	for _, test := range []struct {
		name     string
		after    time.Duration
		failing  time.Duration
		failures int
		disabled bool
		warning  int
	}{
		{"a day", DefaultDisableAfter, day, 100, false, 0},
		{"half of the time", DefaultDisableAfter, 60 * time.Hour, 100, false, 50},
		{"seven tenths", DefaultDisableAfter, 84 * time.Hour, 100, false, 70},
		{"nine tenths", DefaultDisableAfter, 108 * time.Hour, 100, false, 90},
		{"all of it", DefaultDisableAfter, 5 * day, 20, true, 90},
		{"too few failures", DefaultDisableAfter, 6 * day, 19, false, 90},
		{"another time", day, day, 20, true, 90},
		{"half of another time", day, 12 * time.Hour, 20, false, 50},
		{"never", -1, 100 * day, 1000, false, 0},
		{"never below 12 hours", time.Hour, 11 * time.Hour, 1000, false, 90},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := time.Unix(1_700_000_000, 0)
			w := &Worker{cfg: Config{DisableAfter: test.after}.withDefaults()}
			l := newLane(nil, "ep_1", "acme")
			l.failingSince, l.failures = now.Add(-test.failing), test.failures
			if got := w.outlived(l, now); got != test.disabled {
				t.Errorf("disabled %t, want %t", got, test.disabled)
			}
			if got := w.warning(l, now); got != test.warning {
				t.Errorf("warning at %d percent, want %d", got, test.warning)
			}
		})
	}
}

// What is told of a lane: an open breaker at once, failures once they have lasted.
func TestReport(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000).UTC()
	w := &Worker{cfg: Config{}.withDefaults()}
	l := newLane(nil, "ep_1-2", "acme")
	l.failingSince, l.failures = now.Add(-11*time.Hour), 500
	if r := w.report(l, now); told(&r) {
		t.Errorf("told after eleven hours: %+v", r)
	}
	l.failingSince = now.Add(-84 * time.Hour)
	l.breaker.trip = &trip{opened: now.Add(-time.Hour), reason: openFailures}
	want := registry.Report{
		Endpoint: "ep_1", Tenant: "acme", Shard: 2, OpenSince: now.Add(-time.Hour), OpenReason: openFailures,
		FailingSince: now.Add(-84 * time.Hour), DisableAt: now.Add(36 * time.Hour), Warning: 70,
	}
	if diff := cmp.Diff(want, w.report(l, now)); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	l.know.readAt = 5 // and there is no such endpoint
	if r := w.report(l, now); told(&r) {
		t.Errorf("told of a deleted endpoint: %+v", r)
	}
}

// Failures are told after half of the time until the endpoint is disabled, and
// after 12 hours at the latest; the same where it never is.
func TestWhenFailuresAreTold(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	for after, worth := range map[time.Duration]time.Duration{
		DefaultDisableAfter: 12 * time.Hour, 12 * time.Hour: 6 * time.Hour, -1: 12 * time.Hour,
	} {
		w := &Worker{cfg: Config{DisableAfter: after}.withDefaults()}
		l := newLane(nil, "ep_1", "acme")
		l.failures = 100
		for failing, want := range map[time.Duration]bool{worth - time.Second: false, worth: true} {
			l.failingSince = now.Add(-failing)
			if r := w.report(l, now); told(&r) != want {
				t.Errorf("disable after %s: told %t after %s", after, !want, failing)
			}
		}
	}
}
