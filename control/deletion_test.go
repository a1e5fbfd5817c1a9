package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/testkit"
)

// log reads all records of a topic's partition so far.
func (r *rig) log(topic string, partition int32) (records []*kgo.Record) {
	r.t.Helper()
	end, err := broker.LastStableOffset(r.t.Context(), r.client, topic, partition)
	if err != nil {
		r.t.Fatal(err)
	}
	reader, err := r.kafka.NewReader(map[string]map[int32]int64{topic: {partition: 0}})
	if err != nil {
		r.t.Fatal(err)
	}
	defer reader.Close()
	for next := int64(0); next < end; {
		fetches := reader.PollFetches(r.t.Context())
		if err := fetches.Err(); err != nil {
			r.t.Fatal(err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			records = append(records, rec)
			next = rec.Offset + 1
		})
	}
	return records
}

// gone waits until the tenant does not exist, and checks that nothing of it is left.
func (r *rig) gone(tenant string) {
	r.t.Helper()
	testkit.Eventually(r.t, "the tenant is deleted", func() bool {
		return r.call(http.MethodGet, "/v1/tenants/"+tenant, nil).status == http.StatusNotFound
	})
	snapshots, err := r.view.Load(r.t.Context(), []string{tenant})
	if err != nil {
		r.t.Fatal(err)
	}
	if n := len(snapshots[0].Entries); n != 0 {
		r.t.Errorf("%d entities left of %s", n, tenant)
	}
}

func TestDeleteTenant(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	_, path := r.endpoint(at)
	token := r.must(http.StatusCreated, http.MethodPost, at+"/keys", `{"role":"admin"}`).text("token")
	r.must(http.StatusPreconditionFailed, http.MethodDelete, at, nil, with("If-Match", `"999"`))
	deleted := r.must(http.StatusAccepted, http.MethodDelete, at, nil)
	if deleted.body["deleting"] != true {
		t.Errorf("answer %s", deleted.raw)
	}
	r.gone("acme")
	r.must(http.StatusNotFound, http.MethodGet, path, nil)
	r.must(http.StatusNotFound, http.MethodDelete, at, nil)
	if list := r.must(http.StatusOK, http.MethodGet, "/v1/tenants", nil); len(ids(list)) != 0 {
		t.Errorf("tenants %s", list.raw)
	}
	if got := r.call(http.MethodGet, "/v1/tenants/acme", nil, as(token)); got.status != http.StatusUnauthorized {
		t.Errorf("the deleted tenant's key: %d", got.status)
	}
	// Parts before the tenant: a crash between two records leaves the tenant, and
	// with it the work to do.
	records := r.log(r.kafka.Topics().Registry, 0)
	last := records[len(records)-1]
	if string(last.Key) != "acme/tenant" || last.Value != nil {
		t.Errorf("the last record is %s", last.Key)
	}
	r.tenant("acme") // the name is free again
}

// TestDeletionResumed: control died after the first records of a deletion; the
// next one finishes it. The parts are more than one chunk.
func TestDeletionResumed(t *testing.T) {
	r := newBackend(t)
	stop := r.start()
	at := r.tenant("acme")
	id, _ := r.endpoint(at)
	r.tenant("beta")
	stop()
	_, err := r.deps.Writer.Update(t.Context(), "acme", func(st *registry.TenantState) ([]registry.Change, error) {
		var changes []registry.Change
		for i := range deletionChunk + 10 {
			sub := fmt.Sprintf("sub_%026d", i)
			changes = append(changes, registry.Change{Entity: sub, Value: &registry.Subscription{ID: sub, Tenant: "acme", Endpoint: id, Types: []string{"*"}}})
		}
		next := *st.Tenant
		next.Deleting = true
		return append(changes, registry.Change{Entity: registry.TenantEntity, Value: &next}), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.deps.Writer.Update(t.Context(), "acme", func(*registry.TenantState) ([]registry.Change, error) {
		return []registry.Change{{Entity: fmt.Sprintf("sub_%026d", 0)}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.start()
	r.gone("acme")
	r.must(http.StatusOK, http.MethodGet, "/v1/tenants/beta", nil)
}

// failingWriter fails a number of updates before it lets them through.
type failingWriter struct {
	registryWriter
	failures chan error
}

func (w failingWriter) Update(ctx context.Context, tenant string, fn func(*registry.TenantState) ([]registry.Change, error)) (registry.Written, error) {
	select {
	case err := <-w.failures:
		return registry.Written{Offset: -1}, err
	default:
		return w.registryWriter.Update(ctx, tenant, fn)
	}
}

// TestDeletionRetried: the registry fails in the middle of a deletion.
func TestDeletionRetried(t *testing.T) {
	r := newBackend(t)
	failures := make(chan error, 2)
	r.deps.Writer = failingWriter{r.deps.Writer, failures}
	r.start()
	at := r.tenant("acme")
	r.endpoint(at)
	_, err := r.deps.Writer.Update(t.Context(), "acme", func(st *registry.TenantState) ([]registry.Change, error) {
		failures <- registry.ErrUnavailable
		failures <- registry.ErrOutcomeUnknown
		next := *st.Tenant
		next.Deleting = true
		return []registry.Change{{Entity: registry.TenantEntity, Value: &next}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.gone("acme")
	if len(failures) != 0 {
		t.Error("the failures were not met")
	}
}

// TestDeletingTenant: what belongs to a tenant that is being deleted can be read
// but not written.
func TestDeletingTenant(t *testing.T) {
	r := newBackend(t)
	stop := r.start()
	at := r.tenant("acme")
	id, path := r.endpoint(at)
	stop()
	deleting := func(st *registry.TenantState) ([]registry.Change, error) {
		next := *st.Tenant
		next.Deleting = true
		return []registry.Change{{Entity: registry.TenantEntity, Value: &next}}, nil
	}
	if _, err := r.deps.Writer.Update(t.Context(), "acme", deleting); err != nil {
		t.Fatal(err)
	}
	// A control whose deletions get nowhere.
	r.deps.Writer = heldWriter{r.deps.Writer}
	r.start()
	for _, tt := range []struct{ method, path, body string }{
		{"PUT", at, `{"name":"new"}`},
		{"POST", at + "/endpoints", `{"url":"https://example.com/"}`},
		{"PATCH", path, `{"description":"new"}`},
		{"DELETE", path, ""},
		{"POST", path + "/pause", ""},
		{"POST", path + "/test", ""},
		{"POST", at + "/subscriptions", `{"endpoint_id":"` + id + `"}`},
		{"POST", at + "/keys", `{"role":"admin"}`},
	} {
		var body any
		if tt.body != "" {
			body = tt.body
		}
		if got := r.call(tt.method, tt.path, body); got.status != 409 || got.text("code") != "tenant_deleting" {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, got.status, got.raw)
		}
	}
	if got := r.must(200, http.MethodGet, at, nil); got.body["deleting"] != true {
		t.Errorf("tenant %s", got.raw)
	}
	if got := r.must(202, http.MethodDelete, at, nil); got.body["deleting"] != true {
		t.Errorf("deleted again: %s", got.raw)
	}
}

// heldWriter fails every update that would write.
type heldWriter struct{ registryWriter }

var errHeld = errors.New("held")

func (w heldWriter) Update(ctx context.Context, tenant string, fn func(*registry.TenantState) ([]registry.Change, error)) (registry.Written, error) {
	return w.registryWriter.Update(ctx, tenant, func(st *registry.TenantState) ([]registry.Change, error) {
		changes, err := fn(st)
		if err == nil && len(changes) > 0 {
			err = errHeld
		}
		return nil, err
	})
}

// TestTombstones: parts in their order, in chunks, the tenant last and alone at
// the end of the last one.
func TestTombstones(t *testing.T) {
	st := &registry.TenantState{Tenant: &registry.Tenant{ID: "acme"}, Offsets: map[string]int64{
		"tenant": 1, "ep_a": 2, "ep_a/health": 3, "sub_a": 4, "key_a": 5, "src_a": 6,
	}}
	var got [][]string
	for {
		changes, last := tombstones(st, 2)
		var chunk []string
		for _, c := range changes {
			chunk = append(chunk, c.Entity)
			delete(st.Offsets, c.Entity)
		}
		got = append(got, chunk)
		if last {
			break
		}
	}
	want := [][]string{{"key_a", "sub_a"}, {"ep_a/health", "ep_a"}, {"src_a", "tenant"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
