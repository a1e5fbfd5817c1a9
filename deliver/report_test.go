package deliver

import (
	"context"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
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
	w.cfg.DisableAfter = -1 // never
	if r := w.report(l, now); r.FailingSince.IsZero() || !r.DisableAt.IsZero() || r.Warning != 0 {
		t.Errorf("where nothing is disabled: %+v", r)
	}
	l.failingSince, l.breaker.trip = now.Add(-11*time.Hour), nil
	if r := w.report(l, now); told(&r) {
		t.Errorf("where nothing is disabled, after eleven hours: %+v", r)
	}
	l.breaker.trip = &trip{opened: now, reason: openFailures}
	l.know.readAt = 5 // and there is no such endpoint
	if r := w.report(l, now); told(&r) {
		t.Errorf("told of a deleted endpoint: %+v", r)
	}
}

// How long an endpoint has failed outlives its owners, but not an enable: what was
// found before is void, also where the owner that found it never heard of that.
func TestDaysOutliveTheOwner(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, func(int, *http.Request) int { return http.StatusInternalServerError })
		failing, _ := r.endpoint(s.URL, quick(8))
		enabled, _ := r.endpoint(s.URL, quick(8), func(e *registry.Endpoint) { e.EnabledAfter = 0 })
		for _, e := range []*registry.Endpoint{failing, enabled} {
			state := laneState{Version: 1, Tenant: "acme", FailingSince: time.Now().Add(-6 * 24 * time.Hour).UTC(), Failures: disableAttempts, EnabledAfter: -1}
			r.state(e.ID, state)
		}
		w, _ := r.worker("w1")
		r.send(r.delivery(failing.ID), r.delivery(enabled.ID))
		know := func(e *registry.Endpoint) (*registry.Health, int) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if h := w.homes[r.layout.Partition(e.ID)]; h != nil && h.lanes[e.ID] != nil {
				return h.lanes[e.ID].know.health, h.lanes[e.ID].failures
			}
			return nil, 0
		}
		r.eventually("disabled by the first failure after a hand-over", func() bool {
			h, _ := know(failing)
			return h != nil && h.Reason == disabledFailing
		})
		r.eventually("two failures after an enable", func() bool {
			_, failures := know(enabled)
			return failures >= 2
		})
		if h, _ := know(enabled); h != nil {
			t.Errorf("an endpoint that was enabled a moment ago: %+v", h)
		}
	})
}

// state writes the state of a lane as an owner does.
func (r *rig) state(lane string, s laneState) {
	r.t.Helper()
	rec := &kgo.Record{Topic: r.topics.Lanes, Partition: r.layout.Partition(lane), Key: []byte(lane + stateSuffix), Value: mustJSON(s)}
	if err := r.client.ProduceSync(r.t.Context(), rec).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

// What is known of a lane goes with its endpoint, also where that was deleted while
// nobody owned it and nothing comes for it any more.
func TestStateGoesWithTheEndpoint(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		r.endpoint("http://127.0.0.1:1/") // the registry is not empty
		gone := schemas.NewID("ep")
		r.state(gone, laneState{
			Version: 1, Tenant: "acme", FailingSince: time.Now().Add(-24 * time.Hour).UTC(), Failures: disableAttempts,
			OpenSince: time.Now().Add(-time.Hour).UTC(), OpenReason: openFailures, Reported: true,
		})
		r.worker("w1")
		r.eventually("the state is taken back", func() bool {
			var last []byte
			r.scan(r.topics.Lanes, func(rec *kgo.Record) {
				if string(rec.Key) == gone+stateSuffix {
					last = rec.Value
				}
			})
			return last == nil
		})
	})
}

// versions has a lane learn versions of an endpoint, all at one time.
func versions(t *testing.T, w *Worker, l *lane, now time.Time) func(offset, enabledAfter int64) {
	t.Helper()
	w.alarms = newAlarms()
	w.cfg, w.deps, w.unreported = Config{}.withDefaults(), Deps{Sealer: newSealer(t)}, map[*lane]struct{}{}
	w.log = slog.New(slog.DiscardHandler)
	return func(offset, enabledAfter int64) {
		t.Helper()
		e := &registry.Endpoint{ID: "ep_1", Tenant: "acme", URL: "https://a.example/", State: registry.StateEnabled, EnabledAfter: enabledAfter}
		if w.learnEndpoint(l, mustJSON(e), offset, now); l.know.broken {
			t.Fatal("the endpoint can't be used")
		}
	}
}

// An endpoint that is enabled has its days before it, is probed at once where its
// breaker is open, and begins with few attempts. Other changes leave its days.
func TestEnableBeginsAnew(t *testing.T) {
	w, l := &Worker{}, newLane(newHome(t.Context(), 0), "ep_1", "acme")
	defer l.home.cancel()
	now := time.Now()
	version := versions(t, w, l, now)
	version(10, 0)
	l.know.readAt = 10
	l.failingSince, l.failures, l.window = now.Add(-6*24*time.Hour), 50, 32
	l.breaker.restore(l.policy(), now.Add(-time.Hour), openFailures, now)
	if c := l.condition(now, 10); c != conditionOpen {
		t.Fatalf("the lane is %s, want open", c)
	}
	if version(11, 0); l.failures != 50 || l.failingSince.IsZero() {
		t.Error("any change makes the failures void")
	}
	if c := l.condition(now, 11); c != conditionActive {
		t.Errorf("at a change the lane is %s: not probed at once", c)
	}
	l.breaker.restore(l.policy(), now.Add(-time.Hour), openFailures, now)
	version(12, 11)
	if l.failures != 0 || !l.failingSince.IsZero() || l.window != slowStart {
		t.Errorf("enabled: %d failures since %s, %d attempts at once", l.failures, l.failingSince, l.window)
	}
	if c := l.condition(now, 12); !l.breaker.isOpen() || c != conditionActive {
		t.Errorf("at an enable the lane is %s: not probed at once", c)
	}
}

// A new owner of an open lane probes it after the time that its settings say: when it
// learns the endpoint, that has not changed. Where it was enabled meanwhile, at once.
func TestNewOwnerProbes(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		name         string
		enabledAfter int64
		want         condition
	}{{"the same", 3, conditionOpen}, {"enabled meanwhile", 9, conditionActive}} {
		w, l := &Worker{}, newLane(newHome(t.Context(), 0), "ep_1", "acme")
		version := versions(t, w, l, now)
		l.keepState(laneState{Version: 1, EnabledAfter: 3, OpenSince: now.Add(-time.Hour), OpenReason: openFailures})
		l.breaker.restore(l.policy(), now.Add(-time.Hour), openFailures, now)
		version(10, test.enabledAfter)
		l.know.readAt = 10
		if got := l.condition(now, 10); got != test.want {
			t.Errorf("%s: the lane is %s, want %s", test.name, got, test.want)
		}
		if test.want == conditionOpen && (l.alarm.IsZero() || l.condition(l.alarm, 10) != conditionActive) {
			t.Errorf("%s: not probed at its alarm, %s from now", test.name, l.alarm.Sub(now))
		}
		l.home.cancel()
	}
}

// A 410 disables the version that it was an answer to, and is told once.
func TestGoneIsOfOneVersion(t *testing.T) {
	w, l := &Worker{}, newLane(newHome(t.Context(), 0), "ep_1", "acme")
	defer l.home.cancel()
	version := versions(t, w, l, time.Now())
	told := &countedWriter{}
	w.out = told
	gone := &verdict{outcome: schemas.OutcomeRetry, class: errorGone, disable: true}
	version(10, 0)
	before := l.know.target
	version(11, 0) // another URL, maybe
	w.judgeEndpoint(l, before, gone, time.Now())
	if l.know.health != nil || told.records != 0 {
		t.Errorf("an answer to the version before: %+v", l.know.health)
	}
	for range 3 { // under way at once
		w.judgeEndpoint(l, l.know.target, gone, time.Now())
	}
	if h := l.know.health; h == nil || h.Judged != 11 || h.Reason != disabledGone || told.records != 1 {
		t.Errorf("%d records, health %+v", told.records, h)
	}
	version(12, 11)
	if w.judgeEndpoint(l, l.know.target, gone, time.Now()); told.records != 2 || l.know.health.Judged != 12 {
		t.Errorf("gone again after an enable: %d records, health %+v", told.records, l.know.health)
	}
}

// countedWriter counts the records that it is given and never acknowledges one.
type countedWriter struct {
	recordWriter
	records int
}

// TryProduce counts a record.
func (c *countedWriter) TryProduce(context.Context, *kgo.Record, func(*kgo.Record, error)) {
	c.records++
}
