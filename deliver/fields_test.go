package deliver

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// fieldRow shows the effect of one field of an endpoint: what an attempt sees is
// default before and want after the change.
type fieldRow struct {
	change  func(*registry.Endpoint)
	sees    func(*target) any
	without any
	with    any
}

// fieldRows has a row for each field that decides about attempts.
func fieldRows() map[string]fieldRow {
	breaker := func(change func(*registry.Breaker)) func(*registry.Endpoint) {
		return func(e *registry.Endpoint) { change(&e.Breaker) }
	}
	second := registry.Duration(time.Second)
	d := &schemas.Delivery{ID: "dlv_1", EventID: "evt_1", Attempt: 1}
	trace := func(t *target) any { return headerOf(newRequest(t, d, "00-1-2-01", time.Now())).Get("Traceparent") }
	return map[string]fieldRow{
		"url": {func(e *registry.Endpoint) { e.URL = "https://b.example/" }, func(t *target) any { return t.url.Host }, "a.example", "b.example"},
		"state": {
			func(e *registry.Endpoint) { e.State = registry.StatePaused },
			func(t *target) any { return conditionOf(t, nil) }, conditionActive, conditionPaused,
		},
		"enabled_after": {
			func(e *registry.Endpoint) { e.EnabledAfter = 50 },
			func(t *target) any { return conditionOf(t, &registry.Health{Disabled: true, Judged: 20}) }, conditionDisabled, conditionActive,
		},
		"timeout":       {func(e *registry.Endpoint) { e.Timeout = 3 * second }, func(t *target) any { return t.timeout }, defaultTimeout, 3 * time.Second},
		"max_in_flight": {func(e *registry.Endpoint) { e.MaxInFlight = 3 }, func(t *target) any { return t.maxInFlight }, MaxInFlight, 3},
		"retry.schedule": {
			func(e *registry.Endpoint) { e.Retry.Schedule = []registry.Duration{second} }, func(t *target) any { return len(t.schedule) }, 9, 1,
		},
		"retry.max_age": {
			func(e *registry.Endpoint) { e.Retry.MaxAge = 60 * second }, func(t *target) any { return t.maxAge }, DefaultMaxAge, time.Minute,
		},
		"trace_context":         {func(e *registry.Endpoint) { e.TraceContext = true }, trace, "", "00-1-2-01"},
		"rate_limit.per_second": {func(e *registry.Endpoint) { e.RateLimit.PerSecond = 7.5 }, func(t *target) any { return []any{t.rate, t.burst} }, []any{0.0, 0}, []any{7.5, 8}},
		"rate_limit.burst": {
			func(e *registry.Endpoint) { e.RateLimit = registry.RateLimit{PerSecond: 5, Burst: 90} }, func(t *target) any { return t.burst }, 0, 90,
		},
		"breaker.off":      {breaker(func(b *registry.Breaker) { b.Off = true }), func(t *target) any { return t.breaker.off }, false, true},
		"breaker.failures": {breaker(func(b *registry.Breaker) { b.Failures = 3 }), func(t *target) any { return t.breaker.failures }, DefaultBreakerFailures, 3},
		"breaker.failure_percent": {
			breaker(func(b *registry.Breaker) { b.FailurePercent = 20 }), func(t *target) any { return t.breaker.percent }, DefaultBreakerFailurePercent, 20,
		},
		"breaker.min_attempts": {
			breaker(func(b *registry.Breaker) { b.MinAttempts = 5 }), func(t *target) any { return t.breaker.minAttempts }, DefaultBreakerMinAttempts, 5,
		},
		"breaker.window": {breaker(func(b *registry.Breaker) { b.Window = second }), func(t *target) any { return t.breaker.window }, DefaultBreakerWindow, time.Second},
		"breaker.probe_after": {
			breaker(func(b *registry.Breaker) { b.ProbeAfter = second }), func(t *target) any { return t.breaker.probe }, DefaultProbeAfter, time.Second,
		},
		"breaker.max_probe_after": {
			breaker(func(b *registry.Breaker) { b.MaxProbeAfter = 300 * second }), func(t *target) any { return t.breaker.maxProbe }, DefaultMaxProbeAfter, 5 * time.Minute,
		},
		"ordered": {func(e *registry.Endpoint) { e.Ordered = true }, func(t *target) any { return t.ordered }, false, true},
		"on_exhausted": {
			func(e *registry.Endpoint) { e.Ordered, e.OnExhausted = true, registry.BlockExhausted },
			func(t *target) any { return t.blocks }, false, true,
		},
		"shards": {
			func(e *registry.Endpoint) { e.Shards, e.MaxInFlight = 4, 40 }, func(t *target) any { return t.maxInFlight }, MaxInFlight, 10,
		},
	}
}

// conditionOf is the condition of a lane with that knowledge.
func conditionOf(t *target, h *registry.Health) condition {
	l := newLane(nil, "ep_1", "acme")
	l.know = knowledge{target: t, health: h, readAt: 1}
	return l.condition(time.Now(), 1)
}

// fieldsElsewhere names, for the other fields, the test that shows what they do. Those
// of signing, of a receiver and of the API's settings fail where a field below them has
// no row.
func fieldsElsewhere() map[string]string {
	const receiver, crud = "deliver/auth_test.go:TestReceiverFields", "control/crud_test.go:TestEndpointFields"
	return map[string]string{
		"signing": "deliver/sign_test.go:TestSigningFields", "secrets": "deliver/sign_test.go:TestKindsOfSecrets",
		"method": receiver, "format": receiver, "compression": receiver, "auth": receiver, "headers": receiver, "tls": receiver,
		"most_shards": "control/limits_test.go:TestCancelReachesEveryShard",
		"id":          crud, "tenant": crud, "description": crud, "metadata": crud,
		"v": crud, "created_at": crud, "updated_at": crud, "idempotency": crud,
	}
}

// TestEveryEndpointField demands a row for each field of an endpoint, and holds it
// to its effect.
func TestEveryEndpointField(t *testing.T) {
	rows, elsewhere := fieldRows(), fieldsElsewhere()
	for _, name := range leaves(reflect.TypeFor[registry.Endpoint](), "", elsewhere) {
		row, ok := rows[name]
		if !ok {
			t.Errorf("%s: no row shows its effect", name)
			continue
		}
		delete(rows, name)
		base := func() *registry.Endpoint {
			return &registry.Endpoint{ID: "ep_1", Tenant: "acme", URL: "https://a.example/", State: registry.StateEnabled, EnabledAfter: -1}
		}
		changed := base()
		row.change(changed)
		for _, is := range []struct {
			e    *registry.Endpoint
			want any
		}{{base(), row.without}, {changed, row.with}} {
			x, err := newTarget(is.e, 7, 0, openSealer{}, DefaultMaxAge)
			if err != nil {
				t.Fatal(err)
			}
			if got := row.sees(x); !reflect.DeepEqual(got, is.want) {
				t.Errorf("%s: an attempt sees %v, want %v", name, got, is.want)
			}
		}
	}
	for name := range rows {
		t.Errorf("%s is no field of an endpoint", name)
	}
	for name, at := range elsewhere {
		file, test, _ := strings.Cut(at, ":")
		text, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(file)))
		if err != nil || !regexp.MustCompile(`(?m)^func `+test+`\(`).Match(text) {
			t.Errorf("%s: there is no test %s", name, at)
		}
	}
}

// leaves returns the JSON names of the fields of a struct, those of structs inside
// it after a dot, but for those that are shown elsewhere.
func leaves(of reflect.Type, prefix string, elsewhere map[string]string) (names []string) {
	for f := range of.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if _, ok := elsewhere[name]; ok && prefix == "" {
			continue
		}
		switch {
		case f.Anonymous:
			names = append(names, leaves(f.Type, prefix, elsewhere)...)
		case f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[time.Time]():
			names = append(names, leaves(f.Type, prefix+name+".", elsewhere)...)
		case name == "":
			names = append(names, fmt.Sprint("no JSON name: ", f.Name))
		default:
			names = append(names, prefix+name)
		}
	}
	return names
}
