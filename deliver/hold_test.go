package deliver

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// told returns what the registry was told of an endpoint's only lane.
func (r *rig) told(endpoint string) (out registry.Report) {
	found, err := r.view.Entities(r.t.Context(), []registry.Ref{registry.ReportRef(endpoint)})
	if err == nil && found[0].OK {
		if got, err := registry.Decode[registry.Report](found[0].Value); err == nil {
			out = *got
		}
	}
	return out
}

// A hold is told, and ends when the endpoint gets another url, or is enabled: what
// waits is delivered then. A new owner knows it, and what ended it meanwhile.
func TestHoldIsToldAndLifted(t *testing.T) {
	for _, lifted := range []string{"url", "enable", "url while nobody owned it"} {
		t.Run(lifted, func(t *testing.T) {
			onEach(t, func(t *testing.T, r *rig) {
				held := newSink(t, func(n int, _ *http.Request) int {
					if n == 1 {
						return http.StatusTooManyRequests
					}
					return http.StatusOK
				})
				held.header = http.Header{"Retry-After": {"100000"}}
				well := newSink(t, nil)
				e, _ := r.endpoint(held.URL, quick(3))
				w, stop := r.worker("w1")
				began := time.Now()
				r.send(r.delivery(e.ID))
				r.eventually("told", func() bool { return r.told(e.ID).HoldReason == errorBusy })
				rep := r.told(e.ID)
				if rep.HoldSince.Before(began.Add(-time.Second)) || rep.HoldUntil.Sub(rep.HoldSince).Round(time.Second) != maxRetryAfter {
					t.Errorf("told of a hold since %s until %s", rep.HoldSince, rep.HoldUntil)
				}
				r.send(r.deliveries(e.ID, 5)...)
				r.eventually("held", func() bool { return w.parkedNow() == 5 })
				e.Description = "another version"
				r.store(e)
				stop()
				if lifted == "url while nobody owned it" {
					e.URL = well.URL
					r.store(e)
				}
				w, _ = r.worker("w2")
				switch lifted {
				case "url":
					r.eventually("held by the new owner", func() bool { return w.parkedNow() == 5 })
					e.URL = well.URL
					r.store(e)
				case "enable":
					r.eventually("held by the new owner", func() bool { return w.parkedNow() == 5 })
					e.EnabledAfter = r.store(e)
					r.store(e)
				}
				r.eventually("delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == 5 })
				r.eventually("taken back", func() bool { return r.told(e.ID) == registry.Report{} })
				if n := held.len(); lifted != "enable" && n != 1 {
					t.Errorf("%d requests to the receiver that asked to wait", n)
				}
			})
		})
	}
}

// What is told of a hold: one that is long enough, while it is in force.
func TestHoldReport(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000).UTC()
	w := &Worker{cfg: Config{}.withDefaults()}
	l := newLane(nil, "ep_1", "acme")
	for _, test := range []struct {
		name string
		hold *hold
		told bool
	}{
		{"none", nil, false},
		{"long", &hold{since: now.Add(-time.Second), until: now.Add(time.Minute), reason: errorUnavailable}, true},
		{"nearly over", &hold{since: now.Add(-time.Minute), until: now.Add(time.Second), reason: errorUnavailable}, true},
		{"over", &hold{since: now.Add(-time.Minute), until: now, reason: errorUnavailable}, false},
		{"short", &hold{since: now, until: now.Add(holdWorth - 1), reason: errorBusy}, false},
		{"for a reason of ours", &hold{until: now.Add(time.Second)}, false},
	} {
		l.hold = test.hold
		want := registry.Report{Endpoint: "ep_1", Tenant: "acme"}
		if test.told {
			want.HoldSince, want.HoldUntil, want.HoldReason = test.hold.since, test.hold.until, test.hold.reason
		}
		r := w.report(l, now)
		if diff := cmp.Diff(want, r); diff != "" || told(&r) != test.told {
			t.Errorf("%s: report (-want +got):\n%s", test.name, diff)
		}
	}
}

// However often a receiver asks for more, the registry is told a few times a minute,
// and of short holds never.
func TestHoldsAreToldSeldom(t *testing.T) {
	for _, test := range []struct {
		wait string
		most int
	}{{"5", 0}, {"20", 10}} {
		t.Run(test.wait, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, 5)
				s.failing = func(string, int) bool { return true }
				s.status, s.wait = http.StatusServiceUnavailable, test.wait
				s.endpoint(registry.Endpoint{ID: "ep_1", Retry: every(time.Second, 20), Breaker: registry.Breaker{Off: true}})
				s.run(func(*life) {
					for n := range 40 {
						s.send("ep_1", fmt.Sprint("k", n), n)
					}
					sleep(t.Context(), 2*time.Minute)
				})
				if n := len(s.logs[s.topics.Registry]); n > test.most || test.most > 0 && n == 0 {
					t.Errorf("%d reports in two minutes", n)
				}
				if len(s.posts) < 4 {
					t.Errorf("%d requests: it was not held again and again", len(s.posts))
				}
			})
		})
	}
}

// No delivery waits for longer than an hour because of Retry-After; one whose step is
// longer waits for that.
func TestRetryAfterIsBounded(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	step := func(d time.Duration) *target { return &target{schedule: []time.Duration{d}} }
	for i := range 1000 {
		d := &schemas.Delivery{ID: schemas.DeliveryID(strconv.Itoa(i), "ep_1", ""), Attempt: 1}
		for _, wait := range []time.Duration{time.Minute, 50 * time.Minute, time.Hour, 100 * time.Hour} {
			res := egress.Result{Status: http.StatusTooManyRequests, RetryAfter: strconv.Itoa(int(wait.Seconds()))}
			v := judge(step(5*time.Second), d, &res, now)
			if got := time.Duration(v.levels) * time.Second; got > maxRetryAfter || got < min(wait, maxRetryAfter) {
				t.Fatalf("Retry-After of %s: the delivery waits for %s", wait, got)
			}
			v = judge(step(2*time.Hour), d, &res, now)
			if got := time.Duration(v.levels) * time.Second; got < 2*time.Hour {
				t.Fatalf("Retry-After of %s and a step of 2h: the delivery waits for %s", wait, got)
			}
		}
	}
}

// What a receiver asks for that the endpoint no longer has holds nothing up.
func TestHoldOfAnotherReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 6)
		e := registry.Endpoint{ID: "ep_1", Retry: every(time.Second, 20)}
		s.endpoint(e)
		s.status, s.wait = http.StatusTooManyRequests, "3600"
		s.failing = func(id string, _ int) bool {
			if id == eventOf(0) { // changed while its first attempt is under way
				e.URL = "https://other.example/ep_1"
				s.change(e)
			}
			return id == eventOf(0)
		}
		s.run(func(*life) {
			s.send("ep_1", "a", 0)
			sleep(t.Context(), time.Minute)
			s.send("ep_1", "b", 1)
			sleep(t.Context(), time.Minute)
			if n := len(s.postsOf(1)); n != 1 {
				t.Errorf("the event after came %d times", n)
			}
		})
	})
}
