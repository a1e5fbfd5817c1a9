package telemetry_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/telemetry"
)

func probe(t *testing.T, handler http.Handler) (int, telemetry.Report) {
	t.Helper()
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/", nil))
	if got := answer.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	var report telemetry.Report
	if err := json.Unmarshal(answer.Body.Bytes(), &report); err != nil {
		t.Fatalf("body %q: %v", answer.Body.String(), err)
	}
	if strings.Contains(answer.Body.String(), `\u00`) {
		t.Errorf("%s is not for people to read", answer.Body.String())
	}
	return answer.Code, report
}

func TestReadyz(t *testing.T) {
	fine := func(context.Context) error { return nil }
	broken := func(context.Context) error { return errors.New("no broker answers") }
	for _, tc := range []struct {
		name   string
		setup  func(*telemetry.Health)
		code   int
		report telemetry.Report
	}{
		{"nothing registered", func(*telemetry.Health) {}, 200, telemetry.Report{Status: "ok"}},
		{"all pass", func(h *telemetry.Health) { h.Check("kafka", fine); h.Check("redis", fine) }, 200, telemetry.Report{
			Status: "ok", Checks: []telemetry.CheckResult{{Name: "kafka", Status: "ok"}, {Name: "redis", Status: "ok"}},
		}},
		{"one fails", func(h *telemetry.Health) { h.Check("kafka", broken); h.Check("redis", fine) }, 503, telemetry.Report{
			Status: "failing", Checks: []telemetry.CheckResult{
				{Name: "kafka", Status: "failing", Detail: "no broker answers"}, {Name: "redis", Status: "ok"},
			},
		}},
		{"a warning does not fail", func(h *telemetry.Health) { h.Check("kafka", fine); h.Warn("unsafe", "copies: 1, want >= 3") }, 200, telemetry.Report{
			Status: "degraded", Checks: []telemetry.CheckResult{{Name: "kafka", Status: "ok"}},
			Warnings: []telemetry.Warning{{Name: "unsafe", Detail: "copies: 1, want >= 3"}},
		}},
		{"a warning does not hide a failure", func(h *telemetry.Health) { h.Warn("unsafe", "one copy"); h.Check("kafka", broken) }, 503, telemetry.Report{
			Status: "failing", Checks: []telemetry.CheckResult{{Name: "kafka", Status: "failing", Detail: "no broker answers"}},
			Warnings: []telemetry.Warning{{Name: "unsafe", Detail: "one copy"}},
		}},
		{"the same name replaces", func(h *telemetry.Health) {
			h.Check("kafka", broken)
			h.Check("kafka", fine)
			h.Warn("unsafe", "one copy")
			h.Warn("unsafe", "two copies")
		}, 200, telemetry.Report{
			Status: "degraded", Checks: []telemetry.CheckResult{{Name: "kafka", Status: "ok"}},
			Warnings: []telemetry.Warning{{Name: "unsafe", Detail: "two copies"}},
		}},
		{"a warning withdrawn", func(h *telemetry.Health) { h.Warn("skew", "3 s"); h.Warn("skew", "") }, 200, telemetry.Report{Status: "ok"}},
		{"a panic fails its check", func(h *telemetry.Health) { h.Check("kafka", func(context.Context) error { panic("nil map") }) }, 503, telemetry.Report{
			Status: "failing", Checks: []telemetry.CheckResult{{Name: "kafka", Status: "failing", Detail: "check panicked: nil map"}},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			health := telemetry.NewHealth()
			tc.setup(health)
			code, report := probe(t, health.Readyz())
			if code != tc.code {
				t.Errorf("code = %d, want %d", code, tc.code)
			}
			if report.Checks == nil || report.Warnings == nil {
				t.Errorf("lists are null: %+v", report)
			}
			want := tc.report
			want.Checks = append([]telemetry.CheckResult{}, want.Checks...)
			want.Warnings = append([]telemetry.Warning{}, want.Warnings...)
			if diff := cmp.Diff(want, report); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
		})
	}
}

// A loop that stands still is late for readiness after one limit, and for
// liveness after three.
func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		health := telemetry.NewHealth()
		beat := health.Watchdog("pollLoop", 10*time.Second)
		expect := func(when string, ready, live int, liveStatus telemetry.Status) {
			t.Helper()
			code, report := probe(t, health.Readyz())
			if code != ready {
				t.Errorf("%s: /readyz = %d, want %d", when, code, ready)
			}
			if ready != 200 && !strings.Contains(report.Checks[0].Detail, "loop pollLoop has not ticked for") {
				t.Errorf("%s: detail %q does not name the loop", when, report.Checks[0].Detail)
			}
			code, report = probe(t, health.Healthz())
			if code != live || report.Status != liveStatus {
				t.Errorf("%s: /healthz = %d %s, want %d %s", when, code, report.Status, live, liveStatus)
			}
		}
		pass(10 * time.Second)
		expect("at the limit", 200, 200, "ok")
		pass(time.Second)
		expect("past the limit", 503, 200, "degraded")
		pass(20 * time.Second)
		expect("past three limits", 503, 503, "failing")
		beat.Tick()
		expect("after a tick", 200, 200, "ok")
		pass(time.Hour)
		beat.Stop()
		expect("after Stop", 200, 200, "ok")
	})
}

func TestStopOfAReplacedLoopKeepsItsSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		health := telemetry.NewHealth()
		old := health.Watchdog("lift", time.Second)
		health.Watchdog("lift", time.Second)
		old.Stop()
		pass(2 * time.Second)
		if code, _ := probe(t, health.Readyz()); code != 503 {
			t.Errorf("code = %d: the successor is not watched", code)
		}
	})
}

// pass lets the clock of a synctest bubble run.
func pass(d time.Duration) { <-time.After(d) }

func TestNilBeat(*testing.T) {
	var beat *telemetry.Beat
	beat.Tick()
	beat.Stop()
}

func TestChecksAreNoPartOfLiveness(t *testing.T) {
	health := telemetry.NewHealth()
	health.Check("redis", func(context.Context) error { return errors.New("away") })
	if code, report := probe(t, health.Healthz()); code != 200 || len(report.Checks) != 0 {
		t.Errorf("/healthz = %d %+v: a restart would not bring Redis back", code, report)
	}
}

// However often it is probed, a check that hangs runs once, is named, and holds
// up neither the answer nor the other checks.
func TestHangingCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		release := make(chan struct{})
		health := telemetry.NewHealth()
		health.Check("stuck", func(context.Context) error { runs.Add(1); <-release; return nil })
		health.Check("fine", func(context.Context) error { return nil })
		start := time.Now()
		var probes sync.WaitGroup
		for range 3 {
			probes.Go(func() {
				report := health.Ready(t.Context())
				want := []telemetry.CheckResult{
					{Name: "stuck", Status: "failing", Detail: "no answer yet: context deadline exceeded"},
					{Name: "fine", Status: "ok"},
				}
				if diff := cmp.Diff(want, report.Checks); diff != "" {
					t.Errorf("checks (-want +got):\n%s", diff)
				}
			})
		}
		probes.Wait()
		if took := time.Since(start); took >= time.Second { // the clock of the bubble: exact
			t.Errorf("answered after %s, a probe waits 1s", took)
		}
		if got := runs.Load(); got != 1 {
			t.Errorf("the check ran %d times", got)
		}
		close(release)
		synctest.Wait()
		if report := health.Ready(t.Context()); report.Status != "ok" {
			t.Errorf("status %s after the check came back", report.Status)
		}
	})
}

func TestCheckGetsADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		health := telemetry.NewHealth()
		health.Check("slow", func(ctx context.Context) error { <-ctx.Done(); return errors.New("gave up itself") })
		if got := health.Ready(t.Context()).Checks[0].Detail; got != "gave up itself" {
			t.Errorf("detail %q", got)
		}
	})
}

func TestProbesAreReadOnly(t *testing.T) {
	answer := httptest.NewRecorder()
	telemetry.NewHealth().Readyz().ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/readyz", nil))
	if answer.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST = %d", answer.Code)
	}
}
