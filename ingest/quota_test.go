package ingest

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postrider/postrider/internal/registry"
)

// testClock is a clock that a test moves.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *testClock { return &testClock{now: time.Unix(1_700_000_000, 0)} }

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestQuotas(t *testing.T) {
	line := "{\"type\":\"a\"}\n"
	five := line + line + line + line + line
	tests := []struct {
		name       string
		cfg        Config
		quota      registry.Quota
		body       string
		allowed    int
		retryAfter string
	}{
		{"default, events", Config{EventsPerSecond: 2}, registry.Quota{}, line, 2, "1"},
		{"default, bytes", Config{BytesPerSecond: 20}, registry.Quota{}, line, 2, "1"},
		{"the tenant's, events", Config{EventsPerSecond: 1000}, registry.Quota{EventsPerSecond: 3}, line, 3, "1"},
		{"the tenant's, bytes", Config{BytesPerSecond: 1e6}, registry.Quota{BytesPerSecond: 10}, line, 1, "1"},
		{"a batch overdraws and is paid for", Config{EventsPerSecond: 1}, registry.Quota{}, five, 1, "4"},
		{"less than one a second", Config{EventsPerSecond: 0.1}, registry.Quota{}, line, 1, "1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			clock := newClock()
			tt.cfg.Clock = clock.Now
			g := start(t, tt.cfg, Deps{})
			g.view.putTenant(t, registry.Tenant{ID: "acme", Quota: tt.quota})
			lines := headers{"Content-Type", "application/x-ndjson"}
			for i := range tt.allowed {
				if got := g.post(t, tt.body, lines); got.status != 202 {
					t.Fatalf("request %d: status %d: %s", i, got.status, got.raw)
				}
			}
			got := g.post(t, tt.body, lines)
			if got.status != 429 || got.Code != CodeQuota || got.header.Get("Retry-After") != tt.retryAfter {
				t.Fatalf("status %d, Retry-After %q, want %q: %s", got.status, got.header.Get("Retry-After"), tt.retryAfter, got.raw)
			}
			if got.Results[0].CloudEventsID == "" {
				t.Error("the event that is to be repeated has no id")
			}
			other := `{"type":"a","tenant":"other"}`
			if got := g.post(t, other, append(lines, "Authorization", "Bearer "+adminKey)); got.status != 202 {
				t.Errorf("another tenant: status %d: %s", got.status, got.raw)
			}
			clock.add(11 * time.Second)
			if got := g.post(t, tt.body, lines); got.status != 202 {
				t.Errorf("later: status %d: %s", got.status, got.raw)
			}
		})
	}
}

func TestQuotaOfSeveralTenants(t *testing.T) {
	clock := newClock()
	g := start(t, Config{Clock: clock.Now}, Deps{})
	g.view.putTenant(t, registry.Tenant{ID: "acme", Quota: registry.Quota{EventsPerSecond: 1}})
	body := `{"type":"a","tenant":"acme"}` + "\n" + `{"type":"a","tenant":"other"}`
	h := headers{"Content-Type", "application/x-ndjson", "Authorization", "Bearer " + adminKey}
	if got := g.post(t, body, h); got.status != 202 {
		t.Fatalf("status %d: %s", got.status, got.raw)
	}
	checkResults(t, g.post(t, body, h), []string{"429 quota_exceeded", "202"})
}

// What a tenant key sends is paid for, also if it is wrong.
func TestQuotaForWrongEvents(t *testing.T) {
	g := start(t, Config{EventsPerSecond: 2, Clock: newClock().Now}, Deps{})
	for range 2 {
		if got := g.postJSON(t, `{"type":""}`); got.status != 422 {
			t.Fatalf("status %d: %s", got.status, got.raw)
		}
	}
	if got := g.postJSON(t, `{"type":"a"}`); got.status != 429 {
		t.Errorf("status %d: %s", got.status, got.raw)
	}
}

func TestQuotasAreBounded(t *testing.T) {
	q := newQuotas(Config{EventsPerSecond: 1, QuotaTenants: 10})
	for i := range 1000 {
		q.take(&registry.Tenant{ID: strconv.Itoa(i)}, 1, 1, time.Unix(1, 0))
	}
	q.known.CleanUp()
	if n := q.known.EstimatedSize(); n > 10 {
		t.Errorf("%d tenants are remembered, want at most 10", n)
	}
}

// Over any time, a tenant gets in no more than its rate, its burst and one
// request; and who waits as long as it is told is let in.
func TestQuotaLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(0.5, 1000).Draw(t, "rate")
		q := newQuotas(Config{EventsPerSecond: rate, QuotaTenants: 10})
		tenant := &registry.Tenant{ID: "a"}
		begin := time.Unix(1_700_000_000, 0)
		now := begin
		total, largest := 0, 0
		for range rapid.IntRange(1, 60).Draw(t, "requests") {
			now = now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond)
			n := rapid.IntRange(1, 100).Draw(t, "events")
			wait := q.take(tenant, n, 0, now)
			if wait > 0 {
				now = now.Add(wait + time.Millisecond)
				if again := q.take(tenant, n, 0, now); again > 0 {
					t.Fatalf("told to wait %s, then again %s", wait, again)
				}
			}
			total, largest = total+n, max(largest, n)
		}
		if most := now.Sub(begin).Seconds()*rate + max(rate, 1) + float64(largest); float64(total) > most+1e-6 {
			t.Fatalf("%d events let in, at most %.1f are right", total, most)
		}
	})
}
