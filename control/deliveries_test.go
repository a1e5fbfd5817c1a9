package control

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/testkit"
	"github.com/postrider/postrider/schemas"
)

func TestTestEvent(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	id, path := r.endpoint(at)
	version := r.must(200, http.MethodGet, path, nil).text("etag")
	first := r.must(http.StatusAccepted, http.MethodPost, path+"/test", nil)
	key := with("Idempotency-Key", "k")
	second := r.must(http.StatusAccepted, http.MethodPost, path+"/test", nil, key)
	again := r.must(http.StatusAccepted, http.MethodPost, path+"/test", nil, key)
	if first.text("event_id") == second.text("event_id") || second.text("event_id") != again.text("event_id") {
		t.Errorf("event ids %s, %s, %s", first.text("event_id"), second.text("event_id"), again.text("event_id"))
	}
	records := r.log(r.kafka.Topics().Deliveries, r.layout.Partition(id))
	if len(records) != 3 {
		t.Fatalf("%d records in the endpoint's partition", len(records))
	}
	d, err := schemas.DecodeDelivery(records[0].Key, records[0].Value, records[0].Headers)
	if err != nil {
		t.Fatal(err)
	}
	if d.Registry < 0 || etag(d.Registry) != version {
		t.Errorf("matched at %d, the endpoint's version is %s", d.Registry, version)
	}
	want := schemas.Delivery{
		Event:   schemas.Event{Source: testSource, Type: testType, Tenant: "acme", DataContentType: "application/json"},
		EventID: first.text("event_id"), ID: first.text("delivery_id"),
		Endpoint: id, Registry: d.Registry, Attempt: 1,
	}
	opts := cmp.Options{
		cmpopts.IgnoreFields(schemas.Event{}, "ID", "Time", "Data"), cmpopts.IgnoreFields(schemas.Delivery{}, "MadeAt"), cmpopts.EquateEmpty(),
	}
	if diff := cmp.Diff(want, d, opts); diff != "" {
		t.Errorf("delivery (-want +got):\n%s", diff)
	}
	if d.ID != schemas.DeliveryID(d.EventID, id, "") || d.EventID != d.Event.EventID() || d.Event.Validate() != nil || !json.Valid(d.Event.Data) {
		t.Errorf("ids or event do not fit: %+v", d)
	}
}

func TestCancel(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	id, _ := r.endpoint(at)
	delivery := schemas.DeliveryID("evt", id, "")
	r.must(http.StatusAccepted, http.MethodPost, at+"/deliveries/"+delivery+"/cancel", map[string]any{"endpoint_id": id})
	records := r.log(r.kafka.Topics().Lanes, r.layout.Partition(id))
	if len(records) != 1 || string(records[0].Key) != string(schemas.CancelKey(id, delivery)) || len(records[0].Value) == 0 {
		t.Errorf("records %v", records)
	}
}

// TestEnableAfterHealth: an endpoint that deliver disabled is shown so, is enabled
// by the verb, and a health record that judged the version before stays void.
func TestEnableAfterHealth(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	id, path := r.endpoint(at)
	judged := func() int64 {
		st, err := r.server.state(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		return st.Offsets[id]
	}
	offset := judged()
	publish := func() {
		t.Helper()
		h := registry.Health{Endpoint: id, Tenant: "acme", Judged: offset, Disabled: true, Reason: "gone", Since: time.Unix(1, 0)}
		if err := registry.PublishHealth(t.Context(), r.client, r.kafka.Topics().Registry, h); err != nil {
			t.Fatal(err)
		}
	}
	publish()
	testkit.Eventually(t, "the endpoint is shown as disabled", func() bool {
		return r.must(200, http.MethodGet, path, nil).text("effective_state") == "disabled"
	})
	read := r.must(200, http.MethodGet, path, nil)
	want := map[string]any{"disabled": true, "reason": "gone", "since": "1970-01-01T00:00:01Z"}
	got, _ := read.body["health"].(map[string]any)
	if since, err := time.Parse(time.RFC3339, got["since"].(string)); err == nil {
		got["since"] = since.UTC().Format(time.RFC3339)
	}
	if diff := cmp.Diff(want, got); diff != "" || read.text("state") != "enabled" {
		t.Errorf("state %s, health (-want +got):\n%s", read.text("state"), diff)
	}
	r.must(http.StatusConflict, http.MethodPost, path+"/pause", nil)
	r.must(http.StatusConflict, http.MethodPost, path+"/resume", nil)
	r.must(http.StatusOK, http.MethodPatch, path, map[string]any{"description": "a patch enables nothing"})
	if now := r.must(200, http.MethodGet, path, nil); now.text("effective_state") != "disabled" {
		t.Errorf("after a patch: %s", now.raw)
	}
	offset = judged()
	enabled := r.must(http.StatusOK, http.MethodPost, path+"/enable", nil)
	if enabled.text("effective_state") != "enabled" || enabled.body["health"] != nil {
		t.Errorf("enabled, without the health that no longer counts: %s", enabled.raw)
	}
	publish() // late: it judged the version before
	r.must(http.StatusOK, http.MethodPatch, path, map[string]any{"description": "later"})
	if now := r.must(200, http.MethodGet, path, nil); now.text("effective_state") != "enabled" || now.body["health"] != nil {
		t.Errorf("a late health record counts: %s", now.raw)
	}
	r.must(http.StatusNoContent, http.MethodDelete, path, nil)
	if found, err := r.view.Entities(t.Context(), []registry.Ref{{Tenant: "acme", Entity: id + registry.HealthSuffix}}); err != nil || found[0].OK {
		t.Errorf("health of the deleted endpoint is left: %v", err)
	}
}

func TestAudit(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	made := r.must(http.StatusCreated, http.MethodPost, at+"/endpoints", map[string]any{"url": "https://example.com/?token=hush", "subscriptions": []any{}}, with("Idempotency-Key", "hush"))
	path := at + "/endpoints/" + made.text("id")
	token := r.must(http.StatusCreated, http.MethodPost, at+"/keys", `{"role":"admin"}`)
	secret := r.must(http.StatusOK, http.MethodPost, path+"/rotate-secret", nil, as(token.text("token")))
	deleted := r.must(http.StatusNoContent, http.MethodDelete, path, nil)
	r.server.LostUpdate(registry.Record{Tenant: "acme", Entity: made.text("id"), Offset: 7})
	if err := r.server.kafka.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	type entry struct {
		Who, What, Entity string
		Old, New          bool
	}
	var got []entry
	for _, rec := range r.log(r.kafka.Topics().Audit, 0) {
		for _, hidden := range []string{"hush", token.text("token"), secret.text("secret")} {
			if strings.Contains(string(rec.Value), hidden) {
				t.Errorf("%q shows in %s", hidden, rec.Value)
			}
		}
		var a schemas.Audit
		if err := json.Unmarshal(rec.Value, &a); err != nil {
			t.Fatal(err)
		}
		if a.Tenant != "acme" || a.At.IsZero() || a.What != "lost_update" && a.RequestID == "" || string(rec.Key) != "acme/"+a.Entity {
			t.Errorf("incomplete: %s %s", rec.Key, rec.Value)
		}
		if a.What == "endpoint.delete" && a.RequestID != deleted.header.Get("Postrider-Request-Id") {
			t.Errorf("request id %s of %s", a.RequestID, deleted.header.Get("Postrider-Request-Id"))
		}
		got = append(got, entry{a.Who, a.What, a.Entity, string(a.Old) != "null", string(a.New) != "null"})
	}
	ep := made.text("id")
	want := []entry{
		{"admin", "tenant.put", "tenant", false, true},
		{"admin", "endpoint.create", ep, false, true},
		{"admin", "key.create", token.text("id"), false, true},
		{token.text("id"), "endpoint.rotate_secret", ep, true, true},
		{"admin", "endpoint.delete", ep, true, false},
		{"projector", "lost_update", ep, false, false},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
}
