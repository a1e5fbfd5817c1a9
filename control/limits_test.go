package control

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/testkit"
	"github.com/postrider/postrider/schemas"
)

// TestBadLimits has one row for each way in which limits can be wrong, new and
// patched.
func TestBadLimits(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	_, path := r.endpoint(at)
	for _, tt := range []struct{ member, pointers string }{
		{`"rate_limit":{"per_second":0}`, "/rate_limit/per_second"},
		{`"rate_limit":{"per_second":-1}`, "/rate_limit/per_second"},
		{`"rate_limit":{"per_second":100001}`, "/rate_limit/per_second"},
		{`"rate_limit":{"per_second":"5"}`, "/rate_limit/per_second"},
		{`"rate_limit":{"per_second":5,"burst":0}`, "/rate_limit/burst"},
		{`"rate_limit":{"per_second":5,"per_minute":1}`, "/rate_limit/per_minute"},
		{`"breaker":{"failures":0}`, "/breaker/failures"},
		{`"breaker":{"failure_percent":101}`, "/breaker/failure_percent"},
		{`"breaker":{"min_attempts":0}`, "/breaker/min_attempts"},
		{`"breaker":{"window":"1ms"}`, "/breaker/window"},
		{`"breaker":{"probe_after":"soon"}`, "/breaker/probe_after"},
		{`"breaker":{"max_probe_after":"2h"}`, "/breaker/max_probe_after"},
		{`"breaker":{"probe_after":"1m","max_probe_after":"30s"}`, "/breaker/max_probe_after"},
		{`"breaker":{"max_probe_after":"4s"}`, "/breaker/max_probe_after"}, // probe_after is 5s
		{`"breaker":{"on":true}`, "/breaker/on"},
		{`"ordered":"yes"`, "/ordered"},
		{`"on_exhausted":"block"`, "/on_exhausted"},
		{`"ordered":true,"on_exhausted":"retry"`, "/on_exhausted"},
		{`"ordered":true,"shards":2`, "/shards"},
		{`"shards":0`, "/shards"},
		{`"shards":17`, "/shards"},
		{`"max_in_flight":33`, "/max_in_flight"},
		{`"shards":2,"max_in_flight":65`, "/max_in_flight"},
		{`"shards":16,"max_in_flight":3`, "/max_in_flight"},
		{`"shards":4,"rate_limit":{"per_second":5,"burst":3}`, "/rate_limit/burst"},
	} {
		if got := r.call(http.MethodPost, at+"/endpoints", `{"url":"https://example.com/",`+tt.member+`}`); got.status != 422 || pointers(got) != tt.pointers {
			t.Errorf("new, %s: %d %s, want 422 at %s", tt.member, got.status, got.raw, tt.pointers)
		}
		if got := r.call(http.MethodPatch, path, `{`+tt.member+`}`); got.status != 422 || pointers(got) != tt.pointers {
			t.Errorf("patch, %s: %d %s, want 422 at %s", tt.member, got.status, got.raw, tt.pointers)
		}
	}
	r.must(http.StatusOK, http.MethodPatch, path, map[string]any{"rate_limit": map[string]any{"burst": 3, "per_second": 2}})
	if got := r.call(http.MethodPatch, path, `{"rate_limit":{"per_second":null}}`); got.status != 422 || pointers(got) != "/rate_limit/per_second" {
		t.Errorf("a burst without a rate: %d %s", got.status, got.raw)
	}
}

// TestOrderedQuota: one ordered endpoint more than allowed is refused, new and
// patched.
func TestOrderedQuota(t *testing.T) {
	st := &registry.TenantState{Endpoints: map[string]*registry.Endpoint{}}
	for range registry.MaxOrdered {
		id := schemas.NewID(schemas.PrefixEndpoint)
		st.Endpoints[id] = &registry.Endpoint{ID: id, Ordered: true}
	}
	next := &registry.Endpoint{ID: "ep_next", Ordered: true}
	if withinOrdered(st, next) == nil {
		t.Error("one more is allowed")
	}
	for id := range st.Endpoints {
		next.ID = id // it is one of them already
		break
	}
	if err := withinOrdered(st, next); err != nil {
		t.Errorf("a patch of an ordered endpoint: %v", err)
	}
	if err := withinOrdered(st, &registry.Endpoint{ID: "ep_other"}); err != nil {
		t.Errorf("an endpoint without order: %v", err)
	}
}

// TestCancelReachesEveryShard: which shard has a delivery is not known, nor how
// many there were when it was made.
func TestCancelReachesEveryShard(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	made := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", map[string]any{"url": "https://example.com/", "shards": 4})
	id := made.text("id")
	r.must(http.StatusOK, http.MethodPatch, at+"/endpoints/"+id, map[string]any{"shards": 2})
	r.must(http.StatusAccepted, http.MethodPost, at+"/deliveries/"+schemas.DeliveryID("evt", id, "")+"/cancel", map[string]any{"endpoint_id": id})
	for shard := range 4 {
		if n := len(r.log(r.kafka.Topics().Lanes, r.layout.Partition(schemas.LaneName(id, shard)))); n == 0 {
			t.Errorf("no cancel in the partition of shard %d", shard)
		}
	}
}

// TestReportsAreShown: what the owners of an endpoint's lanes told is in its
// health, of several shards the worst; it makes no new version of the tenant, and
// goes with the endpoint.
func TestReportsAreShown(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	id := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", map[string]any{"url": "https://example.com/", "shards": 3}).text("id")
	path := at + "/endpoints/" + id
	before, err := r.view.Versions(t.Context(), []string{"acme"})
	if err != nil {
		t.Fatal(err)
	}
	open, until := time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC), r.server.now().Add(time.Hour).Truncate(time.Second)
	for shard, rep := range map[int]registry.Report{
		0: {HoldSince: open, HoldUntil: r.server.now().Add(-time.Second), HoldReason: "unavailable"}, // is over
		1: {OpenSince: open.Add(time.Hour), OpenReason: "failure_share", HoldSince: open, HoldUntil: until, HoldReason: "too_many_requests"},
		2: {OpenSince: open, OpenReason: "consecutive_failures", FailingSince: open, DisableAt: open.Add(120 * time.Hour), Warning: 70},
	} {
		rep.Endpoint, rep.Tenant, rep.Shard = id, "acme", shard
		rep.Version = schemas.Version
		r.publish("acme", registry.ReportRef(schemas.LaneName(id, shard)).Entity, rep)
	}
	want := map[string]any{
		"disabled": false, "failing_since": "2026-11-01T10:00:00Z", "disable_at": "2026-11-06T10:00:00Z", "warning_percent": 70.0,
		"breaker": map[string]any{"state": "open", "since": "2026-11-01T10:00:00Z", "reason": "consecutive_failures", "shards": 2.0},
		"hold":    map[string]any{"since": "2026-11-01T10:00:00Z", "until": until.Format(time.RFC3339), "reason": "too_many_requests", "shards": 1.0},
	}
	var got any
	testkit.Eventually(t, "both reports are shown", func() bool {
		got = r.must(200, http.MethodGet, path, nil).body["health"]
		return cmp.Diff(any(want), got) == ""
	})
	list := r.must(200, http.MethodGet, at+"/endpoints", nil)
	if diff := cmp.Diff(any(want), list.body["data"].([]any)[0].(map[string]any)["health"]); diff != "" {
		t.Errorf("health in the list (-want +got):\n%s", diff)
	}
	after, err := r.view.Versions(t.Context(), []string{"acme"})
	if err != nil || after[0].At != before[0].At {
		t.Errorf("reports changed the tenant's version from %d to %d, %v", before[0].At, after[0].At, err)
	}
	for what, changed := range map[string]reply{
		"a patch": r.must(200, http.MethodPatch, path, `{"description":"a"}`), "a verb": r.must(200, http.MethodPost, path+"/pause", nil),
	} {
		if diff := cmp.Diff(any(want), changed.body["health"]); diff != "" {
			t.Errorf("health in the answer to %s (-want +got):\n%s", what, diff)
		}
	}
	// What is left for former shards waits on.
	fewer := r.must(200, http.MethodPatch, path, `{"shards":1}`)
	if diff := cmp.Diff(any(want), fewer.body["health"]); diff != "" {
		t.Errorf("health with fewer shards (-want +got):\n%s", diff)
	}
	if again := r.must(200, http.MethodPost, path+"/resume", nil); again.text("state") != "enabled" {
		t.Errorf("resumed: %s", again.raw)
	}
	etag := r.must(200, http.MethodGet, path, nil).text("etag")
	st, err := r.server.state(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	enabled := r.must(200, http.MethodPost, path+"/enable", nil)
	if now, err := r.server.state(t.Context(), "acme"); err != nil || enabled.text("etag") == etag || now.Endpoints[id].EnabledAfter != st.Offsets[id] {
		t.Errorf("enabled while its breaker is open, it does not begin anew: %s, %v", enabled.raw, err)
	}
	r.must(http.StatusNoContent, http.MethodDelete, path, nil)
	found, err := r.view.Entities(t.Context(), []registry.Ref{registry.ReportRef(schemas.LaneName(id, 2))})
	if err != nil || found[0].OK {
		t.Errorf("the report of a deleted endpoint is left: %v", err)
	}
}

// An enabled endpoint that is held is enabled anew; one whose hold is over is not.
func TestEnableLiftsAHold(t *testing.T) {
	r := newRig(t)
	id, path := r.endpoint(r.tenant("acme"))
	tell := func(until time.Time, shown bool) {
		t.Helper()
		rep := registry.Report{Endpoint: id, Tenant: "acme", HoldSince: r.server.now().Add(-time.Hour), HoldUntil: until, HoldReason: "unavailable"}
		rep.Version = schemas.Version
		r.publish("acme", registry.ReportRef(id).Entity, rep)
		testkit.Eventually(t, "it is shown", func() bool {
			return (r.must(200, http.MethodGet, path, nil).body["health"] != nil) == shown
		})
	}
	enabledAfter := func() int64 {
		t.Helper()
		r.must(200, http.MethodPost, path+"/enable", nil)
		st, err := r.server.state(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		return st.Endpoints[id].EnabledAfter
	}
	before := enabledAfter()
	tell(r.server.now().Add(time.Hour), true)
	anew := enabledAfter()
	tell(r.server.now().Add(-time.Second), false)
	if last := enabledAfter(); anew <= before || last != anew {
		t.Errorf("enabled after %d, after %d while held, after %d when that was over", before, anew, last)
	}
}

// publish writes a record of the registry as deliver does.
func (r *rig) publish(tenant, entity string, value any) {
	r.t.Helper()
	rec := &kgo.Record{Topic: r.kafka.Topics().Registry, Key: registry.EncodeKey(tenant, entity), Value: jsonOf(r.t, value)}
	if err := r.client.ProduceSync(r.t.Context(), rec).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

func jsonOf(t *testing.T, value any) []byte {
	t.Helper()
	doc, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}
