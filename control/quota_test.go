package control

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/testkit"
)

// grown is a registry writer that shows each update a tenant with so many bytes that
// a little more is allowed, or that much is above the quota.
type grown struct {
	registryWriter
	above int
}

func (w grown) Update(ctx context.Context, tenant string, fn func(*registry.TenantState) ([]registry.Change, error)) (registry.Written, error) {
	return w.registryWriter.Update(ctx, tenant, func(st *registry.TenantState) ([]registry.Change, error) {
		st.Bytes = registry.MaxBytes + w.above
		return fn(st)
	})
}

// TestSizeQuota: at its quota of bytes, and above it, a tenant can't grow; it can
// shrink, and be stopped and deleted.
func TestSizeQuota(t *testing.T) {
	r := newBackend(t)
	stop := r.start()
	at := r.tenant("acme")
	made := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", map[string]any{"url": "https://example.com/", "description": strings.Repeat("d", 800)})
	one := at + "/endpoints/" + made.text("id")
	sub := r.must(http.StatusOK, http.MethodGet, at+"/subscriptions", nil).body["data"].([]any)[0].(map[string]any)["id"].(string)
	stop()
	writer := r.deps.Writer
	for _, above := range []int{-100, 100_000} {
		r.deps.Writer = grown{writer, above}
		stop := r.start()
		for _, tt := range []struct {
			name, method, path, body string
			status                   int
		}{
			{"new endpoint", "POST", at + "/endpoints", `{"url":"https://example.com/"}`, 422},
			{"new subscription", "POST", at + "/subscriptions", `{"endpoint_id":"` + made.text("id") + `"}`, 422},
			{"new key", "POST", at + "/keys", `{"role":"admin"}`, 422},
			{"larger tenant", "PUT", at, `{"metadata":{"a":"` + strings.Repeat("m", 200) + `"}}`, 422},
			{"larger endpoint", "PATCH", one, `{"description":"` + strings.Repeat("d", 1000) + `"}`, 422},
			{"larger subscription", "PATCH", at + "/subscriptions/" + sub, `{"types":["` + strings.Repeat("t", 200) + `"]}`, 422},
			{"smaller endpoint", "PATCH", one, `{"description":"` + strings.Repeat("d", 700) + `"}`, 200},
			{"pause", "POST", one + "/pause", "", 200},
			{"resume", "POST", one + "/resume", "", 200},
			{"disable", "POST", one + "/disable", "", 200},
			{"enable", "POST", one + "/enable", "", 200},
			{"restore", "PATCH", one, `{"description":null}`, 200},
		} {
			got := r.call(tt.method, tt.path, tt.body)
			if got.status != tt.status {
				t.Errorf("%s, %d above: %d, want %d: %s", tt.name, above, got.status, tt.status, got.raw)
			}
			if want := fmt.Sprintf("the tenant has %d bytes", registry.MaxBytes+above); got.status == 422 &&
				(got.text("code") != codeQuota || !strings.Contains(got.text("detail"), want) || !strings.Contains(got.text("detail"), "at most 16777216 are allowed")) {
				t.Errorf("%s: %s", tt.name, got.raw)
			}
		}
		stop()
		r.deps.Writer = writer
		stop = r.start()
		r.must(http.StatusOK, http.MethodPatch, one, map[string]any{"description": strings.Repeat("d", 800)})
		stop()
	}
	r.deps.Writer = grown{writer, 100_000}
	r.start()
	r.must(http.StatusNoContent, http.MethodDelete, at+"/subscriptions/"+sub, nil)
	r.must(http.StatusNoContent, http.MethodDelete, one, nil)
	r.must(http.StatusAccepted, http.MethodDelete, at, nil)
	r.gone("acme")
}

// TestSubscriptionQuotas: type patterns and distinct filters of all subscriptions
// together are bounded; what is above from before can be made less.
func TestSubscriptionQuotas(t *testing.T) {
	filter := func(n, size int) string { return fmt.Sprintf("%0*d", size, n) }
	sub := func(types int, filter string) *registry.Subscription {
		return &registry.Subscription{Types: make([]string, types), Filter: filter}
	}
	full := func(types, filters int) *registry.TenantState {
		st := &registry.TenantState{Subscriptions: map[string]*registry.Subscription{"sub_a": sub(100, filter(0, 1024)), "sub_b": sub(types-100, filter(0, 1024))}}
		for n := 1; n < filters/1024; n++ {
			st.Subscriptions[fmt.Sprintf("sub_%d", n)] = sub(0, filter(n, 1024))
		}
		return st
	}
	for _, tt := range []struct {
		name    string
		have    *registry.TenantState
		entity  string
		next    any
		refused string
	}{
		{"last pattern", full(registry.MaxTypes-1, 0), "sub_new", sub(1, ""), ""},
		{"one pattern more", full(registry.MaxTypes-1, 0), "sub_new", sub(2, ""), "type patterns"},
		{"patterns in the place of others", full(registry.MaxTypes, 0), "sub_a", sub(100, filter(0, 1024)), ""},
		{"more patterns in the place of others", full(registry.MaxTypes, 0), "sub_a", sub(101, filter(0, 1024)), "type patterns"},
		{"fewer patterns, still too many", full(registry.MaxTypes+50, 0), "sub_a", sub(99, filter(0, 1024)), ""},
		{"last filter", full(200, registry.MaxFilterBytes-1024), "sub_new", sub(1, filter(-1, 1024)), ""},
		{"one byte of filters more", full(200, registry.MaxFilterBytes-1024), "sub_new", sub(1, filter(-1, 1025)), "distinct filters"},
		{"a filter that is there already", full(200, registry.MaxFilterBytes), "sub_new", sub(1, filter(0, 1024)), ""},
		{"a filter less", full(200, registry.MaxFilterBytes+4096), "sub_1", sub(1, ""), ""},
		{"a removal", full(registry.MaxTypes+50, registry.MaxFilterBytes+4096), "sub_1", nil, ""},
		{"another entity", full(registry.MaxTypes+50, registry.MaxFilterBytes+4096), "ep_a", &registry.Endpoint{}, ""},
	} {
		err := withinSize(tt.have, []registry.Change{{Entity: tt.entity, Value: tt.next}})
		switch {
		case err == nil && tt.refused == "":
		case err == nil || tt.refused == "" || failureOf(err).code != codeQuota || !strings.Contains(err.Error(), tt.refused):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.refused)
		}
	}
}

// TestTenantAboveTheQuotaIsDeleted: what is stored above the quota, from before there
// was one, is shown, and goes with its tenant.
func TestTenantAboveTheQuotaIsDeleted(t *testing.T) {
	r := newRig(t)
	at := r.tenant("large")
	id, _ := r.endpoint(at)
	const size = 100_000
	pad := fmt.Sprintf(`{"v":1,"pad":"%s"}`, strings.Repeat("p", size))
	var records []*kgo.Record
	for n := range registry.MaxBytes/size + 10 {
		records = append(records, &kgo.Record{Topic: r.kafka.Topics().Registry, Key: registry.EncodeKey("large", fmt.Sprintf("type_%d", n)), Value: []byte(pad)})
	}
	if err := r.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the view has it", func() bool {
		return r.call(http.MethodPost, at+"/keys", `{"role":"admin"}`).text("code") == codeQuota
	})
	r.must(http.StatusOK, http.MethodGet, at+"/endpoints/"+id, nil)
	r.must(http.StatusAccepted, http.MethodDelete, at, nil)
	r.gone("large")
}

// TestViewsAreWeighed: a decoded tenant weighs at least what it takes as stored.
func TestViewsAreWeighed(t *testing.T) {
	small, large := &registry.TenantState{}, &registry.TenantState{Bytes: registry.MaxBytes, Offsets: map[string]int64{"tenant": 1}}
	if w := (&tenantView{state: small}).weight(); w == 0 {
		t.Error("a tenant without anything weighs nothing")
	}
	if w := (&tenantView{state: large}).weight(); w < registry.MaxBytes || w > cachedBytes {
		t.Errorf("a tenant at its quota weighs %d", w)
	}
	large.Bytes = 1 << 40
	if w := (&tenantView{state: large}).weight(); w < cachedBytes {
		t.Errorf("a huge tenant weighs %d", w)
	}
}
