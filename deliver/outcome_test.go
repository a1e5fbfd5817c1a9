package deliver

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/deliver/wheel"
	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/schemas"
)

// Each row of the outcome table.
func TestJudge(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	target := &target{schedule: []time.Duration{5 * time.Second, time.Minute}}
	failed := func(class egress.Class, timeout bool) egress.Result {
		return egress.Result{Err: &egress.Error{Class: class, Timeout: timeout}}
	}
	status := func(code int) egress.Result { return egress.Result{Status: code} }
	retryAfter := func(code int, value string) egress.Result { return egress.Result{Status: code, RetryAfter: value} }
	for _, test := range []struct {
		name   string
		result egress.Result
		want   verdict
		step   time.Duration // of the retry
	}{
		{"200", status(200), verdict{outcome: schemas.OutcomeDelivered}, 0},
		{"204", status(204), verdict{outcome: schemas.OutcomeDelivered}, 0},
		{"299", status(299), verdict{outcome: schemas.OutcomeDelivered}, 0},
		{"101", status(101), verdict{outcome: schemas.OutcomeRetry, class: "protocol"}, 5 * time.Second},
		{"302 is not followed", status(302), verdict{outcome: schemas.OutcomeRetry, class: "http_3xx"}, 5 * time.Second},
		{"304", status(304), verdict{outcome: schemas.OutcomeRetry, class: "http_3xx"}, 5 * time.Second},
		{"400", status(400), verdict{outcome: schemas.OutcomeRetry, class: "http_4xx"}, 5 * time.Second},
		{"404", status(404), verdict{outcome: schemas.OutcomeRetry, class: "http_4xx"}, 5 * time.Second},
		{"410 disables", status(410), verdict{outcome: schemas.OutcomeRetry, class: "gone", disable: true}, 5 * time.Second},
		{"429", status(429), verdict{outcome: schemas.OutcomeRetry, class: "too_many_requests", congested: true}, 5 * time.Second},
		{"429 with seconds", retryAfter(429, "120"), verdict{outcome: schemas.OutcomeRetry, class: "too_many_requests", congested: true, hold: 2 * time.Minute}, 2 * time.Minute},
		{"500", status(500), verdict{outcome: schemas.OutcomeRetry, class: "http_5xx"}, 5 * time.Second},
		{"500 with Retry-After", retryAfter(500, "120"), verdict{outcome: schemas.OutcomeRetry, class: "http_5xx"}, 5 * time.Second},
		{"503 with a date", retryAfter(503, "Sun, 22 Nov 2026 10:00:30 GMT"), verdict{outcome: schemas.OutcomeRetry, class: "unavailable", congested: true, hold: 30 * time.Second}, 30 * time.Second},
		{"503 shorter than the step", retryAfter(503, "1"), verdict{outcome: schemas.OutcomeRetry, class: "unavailable", congested: true, hold: time.Second}, 5 * time.Second},
		{"999", status(999), verdict{outcome: schemas.OutcomeRetry, class: "http_5xx"}, 5 * time.Second},
		{"dns", failed(egress.ClassDNS, false), verdict{outcome: schemas.OutcomeRetry, class: "dns"}, 5 * time.Second},
		{"dns timeout", failed(egress.ClassDNS, true), verdict{outcome: schemas.OutcomeRetry, class: "dns", congested: true}, 5 * time.Second},
		{"blocked", failed(egress.ClassBlockedAddress, false), verdict{outcome: schemas.OutcomeRetry, class: "blocked_address"}, 5 * time.Second},
		{"refused", failed(egress.ClassConnectRefused, false), verdict{outcome: schemas.OutcomeRetry, class: "connect_refused"}, 5 * time.Second},
		{"connect timeout", failed(egress.ClassConnectTimeout, true), verdict{outcome: schemas.OutcomeRetry, class: "connect_timeout", congested: true}, 5 * time.Second},
		{"connect", failed(egress.ClassConnect, false), verdict{outcome: schemas.OutcomeRetry, class: "connect"}, 5 * time.Second},
		{"proxy", failed(egress.ClassProxy, false), verdict{outcome: schemas.OutcomeRetry, class: "proxy"}, 5 * time.Second},
		{"tls", failed(egress.ClassTLS, false), verdict{outcome: schemas.OutcomeRetry, class: "tls"}, 5 * time.Second},
		{"timeout", failed(egress.ClassTimeout, true), verdict{outcome: schemas.OutcomeRetry, class: "timeout", congested: true}, 5 * time.Second},
		{"reset", failed(egress.ClassReset, false), verdict{outcome: schemas.OutcomeRetry, class: "reset"}, 5 * time.Second},
		{"protocol", failed(egress.ClassProtocol, false), verdict{outcome: schemas.OutcomeRetry, class: "protocol"}, 5 * time.Second},
		{"large headers", failed(egress.ClassHeadersTooLarge, false), verdict{outcome: schemas.OutcomeRetry, class: "response_headers_too_large"}, 5 * time.Second},
		{"invalid request", failed(egress.ClassInvalidRequest, false), verdict{outcome: schemas.OutcomeRetry, class: "invalid_request"}, 5 * time.Second},
		{"our own fault", failed(egress.ClassLocal, false), verdict{class: "local", undone: true}, 0},
		{"we stop", failed(egress.ClassCanceled, false), verdict{class: "canceled", undone: true}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := &schemas.Delivery{ID: "dlv_1", Attempt: 1}
			want := test.want
			if test.step > 0 {
				want.levels = wheel.Delay(test.step, d.ID, 1)
			}
			if diff := cmp.Diff(want, judge(target, d, &test.result, now), cmp.AllowUnexported(verdict{})); diff != "" {
				t.Errorf("first attempt (-want +got):\n%s", diff)
			}
			if d.Attempt = 3; want.outcome == schemas.OutcomeRetry {
				want.outcome, want.levels = schemas.OutcomeExhausted, 0
			}
			if diff := cmp.Diff(want, judge(target, d, &test.result, now), cmp.AllowUnexported(verdict{})); diff != "" {
				t.Errorf("last attempt (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                     0,
		"0":                    0,
		" 17 ":                 17 * time.Second,
		"3600":                 time.Hour,
		"3601":                 time.Hour,
		"4294967295":           time.Hour,
		"99999999999999999999": 0,
		"-5":                   0,
		"1.5":                  0,
		"soon":                 0,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):       0,
		now.Add(48 * time.Hour).Format(http.TimeFormat):   time.Hour,
		"Sunday, 22-Nov-26 10:00:10 GMT":                  10 * time.Second,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("Retry-After %q: %s, want %s", value, got, want)
		}
	}
}

// A lane opens its window while all is well, and closes it when the receiver is
// congested; what endpoint says bounds it.
func TestLaneWindow(t *testing.T) {
	l := newLane(nil, "ep_1", "acme")
	l.know.target = &target{maxInFlight: 12}
	now := time.Now()
	ok, busy := &verdict{outcome: schemas.OutcomeDelivered}, &verdict{outcome: schemas.OutcomeRetry, congested: true}
	var got []int
	for range 40 {
		l.answered(ok, time.Millisecond, false, now)
		if n := len(got); n == 0 || got[n-1] != l.limit() {
			got = append(got, l.limit())
		}
	}
	for range 5 {
		l.answered(busy, time.Millisecond, false, now)
		got = append(got, l.limit())
	}
	if diff := cmp.Diff([]int{2, 4, 8, 12, 6, 3, 1, 1, 1}, got); diff != "" {
		t.Errorf("window (-want +got):\n%s", diff)
	}
	if l.answered(ok, slowAfter, false, now); !l.slow {
		t.Error("an answer after 2 s is not slow")
	}
	if l.answered(ok, time.Millisecond, false, now); l.slow || !l.failingSince.IsZero() {
		t.Error("still slow or failing after a quick success")
	}
}
