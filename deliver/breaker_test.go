package deliver

import (
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// attemptsOf makes a breaker count attempts: "f" is a failure of a delivery of its
// own, "s" one of the same delivery as before, "." a success.
func attemptsOf(b *breaker, p *breakerPolicy, script string, now time.Time) {
	n := 0
	for i, c := range script {
		if c == 'f' {
			n = i + 1
		}
		b.record(p, schemas.DeliveryID(strconv.Itoa(n), "ep_1", ""), c == '.', now)
	}
}

// A breaker opens on failures in a row or on their share, as its settings say.
// Each row is one field.
func TestBreakerOpens(t *testing.T) {
	for _, test := range []struct {
		name, script string
		settings     registry.Breaker
		want         string
	}{
		{"one less than the default", "fffffffff", registry.Breaker{}, ""},
		{"the default in a row", "ffffffffff", registry.Breaker{}, openFailures},
		{"a success begins the row anew", "fffffffff.fffffffff", registry.Breaker{}, ""},
		{"retries of one delivery are one failure", "fsssssssssssssssss", registry.Breaker{}, ""},
		{"failures", "fff", registry.Breaker{Failures: 3}, openFailures},
		{"failure_percent", ".f.f.f.f.f", registry.Breaker{FailurePercent: 50, MinAttempts: 10}, openShare},
		{"below failure_percent", ".f.f.f.f.f", registry.Breaker{FailurePercent: 51, MinAttempts: 10}, ""},
		{"below min_attempts", ".f.f.f.f.f", registry.Breaker{FailurePercent: 50, MinAttempts: 11}, ""},
		{"off", "ffffffffffffffffffffffff", registry.Breaker{Off: true}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var b breaker
			p := newBreakerPolicy(test.settings)
			attemptsOf(&b, &p, test.script, time.Unix(1_700_000_000, 0))
			reason := ""
			if b.isOpen() {
				reason = b.reason
			}
			if reason != test.want {
				t.Errorf("open %t for %q, want %q", b.isOpen(), reason, test.want)
			}
		})
	}
}

// What lies further back than the window does not count for the share.
func TestBreakerWindow(t *testing.T) {
	p := newBreakerPolicy(registry.Breaker{FailurePercent: 50, MinAttempts: 10, Window: registry.Duration(10 * time.Second)})
	now := time.Unix(1_700_000_000, 0)
	var b breaker
	attemptsOf(&b, &p, ".f.f.f.f", now)
	attemptsOf(&b, &p, ".f", now.Add(20*time.Second))
	if b.isOpen() {
		t.Error("opened by what lies before the window")
	}
	attemptsOf(&b, &p, ".f.f.f.f", now.Add(26*time.Second))
	if !b.isOpen() {
		t.Error("what lies inside the window does not count")
	}
}

// Open, the wait for the next probe doubles up to its bound; attempts that were
// under way when it opened don't count as probes; the first success closes it.
func TestBreakerProbes(t *testing.T) {
	p := newBreakerPolicy(registry.Breaker{ProbeAfter: registry.Duration(5 * time.Second), MaxProbeAfter: registry.Duration(30 * time.Second)})
	now := time.Unix(1_700_000_000, 0)
	var b breaker
	attemptsOf(&b, &p, "ffffffffff", now)
	attemptsOf(&b, &p, "ff", now.Add(time.Second)) // were under way
	var waits []time.Duration
	at := now
	for range 5 {
		waits = append(waits, b.probeAt.Sub(at))
		at = b.probeAt
		attemptsOf(&b, &p, "f", at)
	}
	want := []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second, 30 * time.Second}
	if diff := cmp.Diff(want, waits); diff != "" {
		t.Errorf("waits for probes (-want +got):\n%s", diff)
	}
	if !b.record(&p, "dlv_x", true, at) || b.isOpen() || b.row != 0 {
		t.Errorf("after a success: %+v", b)
	}
}
