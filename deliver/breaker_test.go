package deliver

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// attemptsOf makes a breaker count attempts: "f" is a failure of a delivery of its
// own, "s" one of the same delivery as before, a digit one of the delivery with that
// number, "." a success.
func attemptsOf(b *breaker, p *breakerPolicy, script string, now time.Time) {
	n := 0
	for i, c := range script {
		switch {
		case c == 'f':
			n = int(now.Unix())*10_000 + i
		case c >= '0' && c <= '9':
			n = int(c - '0')
		}
		b.record(p, tried{schemas.DeliveryID(strconv.Itoa(n), "ep_1", ""), now, c == '.'}, now)
	}
}

// What was under way when a breaker opened is no probe: when it fails, the next probe
// is no further away, however late that is. A success closes it all the same.
func TestUnderWayIsNoProbe(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	p := newBreakerPolicy(registry.Breaker{})
	open := func() *breaker {
		var b breaker
		attemptsOf(&b, &p, "ffffffffff", now)
		return &b
	}
	b := open()
	before := *b.trip
	for _, after := range []time.Duration{time.Second, 6 * time.Second, 17 * time.Second} {
		b.record(&p, tried{"dlv_x", now.Add(-time.Second), false}, now.Add(after))
	}
	if *b.trip != before {
		t.Errorf("breaker %+v after failures of what was under way, want %+v", *b.trip, before)
	}
	if b.record(&p, tried{"dlv_x", now.Add(6 * time.Second), false}, now.Add(7*time.Second)); !b.probeAt.After(before.probeAt) {
		t.Error("a probe that failed puts the next one no further away")
	}
	if b = open(); !b.record(&p, tried{"dlv_x", now.Add(-time.Second), true}, now.Add(time.Second)) || b.isOpen() {
		t.Error("a success does not close it")
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
		{"retries of two that alternate", "0101010101010101010101010101", registry.Breaker{}, ""},
		{"retries of nine", strings.Repeat("012345678", 9), registry.Breaker{}, ""},
		{"retries of ten", "01201234501234567890", registry.Breaker{}, openFailures},
		{"retries of ten after a success", "0123456789"[:9] + "." + "0123456789"[:9] + "9", registry.Breaker{}, openFailures},
		{"retries count once for the share", strings.Repeat("01", 50), registry.Breaker{Failures: 1000, FailurePercent: 1, MinAttempts: 3}, ""},
		{"each for the share", "0101012", registry.Breaker{Failures: 1000, MinAttempts: 3}, openShare},
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

// In each half of the window a delivery counts anew, at the earliest when its last
// failure lies out of it; and what is remembered of them is bounded.
func TestBreakerForgets(t *testing.T) {
	p := newBreakerPolicy(registry.Breaker{Failures: 10_000, FailurePercent: 100, MinAttempts: 10_000, Window: registry.Duration(10 * time.Second)})
	now := time.Unix(1_700_000_000, 0)
	var b breaker
	counted := func(script string, after time.Duration) int {
		attemptsOf(&b, &p, script, now.Add(after))
		_, failures := b.totals()
		return failures
	}
	var got []int
	for _, after := range []int{0, 4, 6, 9, 11, 40} {
		got = append(got, counted("0101", time.Duration(after)*time.Second))
	}
	if diff := cmp.Diff([]int{2, 2, 2, 2, 2, 2}, got); diff != "" {
		t.Errorf("two deliveries count (-want +got):\n%s", diff)
	}
	if n := counted(strings.Repeat("f", 5000), 40*time.Second); n != 5002 || len(b.failed.spans[0]) != spanIDs {
		t.Errorf("%d failures of 5002 deliveries, %d of them remembered", n, len(b.failed.spans[0]))
	}
	if n := b.inRow(); n != 5002 {
		t.Errorf("%d in a row, want 5002", n)
	}
	if counted(".", 40*time.Second); b.inRow() != 0 || cap(b.failed.row) > spanIDs {
		t.Errorf("after a success: %d in a row, room for %d", b.inRow(), cap(b.failed.row))
	}
	if counted(".", time.Minute); b.failed != nil {
		t.Error("what failed is remembered beyond the window")
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
	if !b.record(&p, tried{"dlv_x", at, true}, at) || b.isOpen() || b.inRow() != 0 {
		t.Errorf("after a success: %+v", b)
	}
}

// An endpoint that is just back gets few attempts at once, however many it had
// before it failed.
func TestSlowStartBehindTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return false }
		s.endpoint(registry.Endpoint{ID: "ep_1", Breaker: registry.Breaker{Failures: 3}})
		l := s.start("w0")
		s.send("ep_1", "", 1)
		for len(s.attempts()) == 0 {
			sleep(t.Context(), time.Second)
		}
		l.w.mu.Lock()
		one, now := l.w.homes[0].lanes["ep_1"], time.Now()
		one.window = 32
		for i := range 3 {
			l.w.countAttempt(one, tried{schemas.DeliveryID(strconv.Itoa(i), "ep_1", ""), now, false}, now)
		}
		if !one.breaker.isOpen() || one.window != 32 {
			t.Errorf("open: %t, %d attempts at once", one.breaker.isOpen(), one.window)
		}
		now = now.Add(time.Minute)
		l.w.countAttempt(one, tried{schemas.DeliveryID("probe", "ep_1", ""), now, true}, now)
		if one.breaker.isOpen() || one.window != slowStart {
			t.Errorf("after the probe: open: %t, %d attempts at once", one.breaker.isOpen(), one.window)
		}
		l.w.mu.Unlock()
		l.die()
	})
}
