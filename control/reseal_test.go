package control

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/testkit"
)

// keysets are those of a rotation: before it, during it, and after it.
func keysets(t *testing.T) (old, both, newest *registry.Sealer) {
	t.Helper()
	first, err := registry.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	second, err := registry.RotateKeyset(first)
	if err != nil {
		t.Fatal(err)
	}
	third, err := registry.RetireKeyset(second)
	if err != nil {
		t.Fatal(err)
	}
	var out []*registry.Sealer
	for _, keyset := range []string{first, second, third} {
		s, err := registry.NewSealer(keyset)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out[0], out[1], out[2]
}

// write puts an endpoint into the registry as it is.
func (r *rig) write(e *registry.Endpoint) {
	r.t.Helper()
	_, err := r.deps.Writer.Update(r.t.Context(), e.Tenant, func(*registry.TenantState) ([]registry.Change, error) {
		return []registry.Change{{Entity: e.ID, Value: e}}, nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestRetireSealKey: after a rotation each sealed field of each endpoint is sealed
// again, once, and then opens without the old key. What can't be opened is told, and
// holds nothing up.
func TestRetireSealKey(t *testing.T) {
	old, both, newest := keysets(t)
	r := newBackend(t)
	r.deps.Sealer = old
	stop := r.start()
	acme, other := r.tenant("acme"), r.tenant("other")
	cert, key := testkit.NewCA(t).Issue(t, "client")
	rows := secretRows(string(cert), string(key))
	ids := make([]string, len(rows))
	for i, row := range rows {
		body := object{"url": "https://example.com/"}
		maps.Copy(body, row.set)
		made := r.must(http.StatusCreated, http.MethodPost, acme+"/endpoints", body)
		ids[i] = made.text("id")
	}
	patched, path := r.endpoint(other)
	_, _ = r.endpoint(other)
	stranger, _, _ := keysets(t)
	sealed, err := stranger.Seal([]byte("x"), "other", "ep_0", registry.SecretField)
	if err != nil {
		t.Fatal(err)
	}
	r.write(&registry.Endpoint{ID: "ep_0", Tenant: "other", Secrets: []registry.Secret{{Sealed: sealed}}})
	if got := r.must(200, http.MethodGet, "/v1/seal-key", nil); got.body["keys"] != 1.0 || got.body["left"] != 0.0 {
		t.Errorf("before: %s", got.raw)
	}
	stop()

	r.deps.Sealer = both
	stop = r.start()
	keys := func(want float64) {
		t.Helper()
		if got := r.must(200, http.MethodGet, "/v1/seal-key", nil); got.body["keys"] != 2.0 || got.body["left"] != want {
			t.Errorf("%s, want %g left", got.raw, want)
		}
	}
	keys(float64(len(rows) + 3))
	r.must(200, http.MethodPatch, path, `{"description":"any change seals again"}`)
	keys(float64(len(rows) + 2))
	for _, want := range []float64{float64(len(rows) + 1), 0} {
		got := r.must(200, http.MethodPost, "/v1/seal-key/reseal", nil)
		unreadable := []any{map[string]any{"tenant": "other", "endpoint_id": "ep_0"}}
		delete(got.body, "$schema")
		if diff := cmp.Diff(map[string]any{"resealed": want, "left": 1.0, "unreadable": unreadable}, got.body); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	for i, row := range rows {
		e := r.stored(ids[i])
		text, field := row.find(e)
		for sealed, field := range map[string]string{text: field, e.Secrets[0].Sealed: registry.SecretField} {
			if _, err := newest.Open(sealed, "acme", e.ID, field); err != nil {
				t.Errorf("%s: the new key alone: %v", row.field, err)
			}
		}
	}
	if err := r.server.kafka.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	audited := 0
	for _, rec := range r.log(r.kafka.Topics().Audit, 0) {
		if contains(rec.Value, `"what":"endpoint.reseal"`) {
			audited++
		}
	}
	if audited != len(rows)+1 {
		t.Errorf("%d audit records of %d", audited, len(rows)+1)
	}
	r.must(204, http.MethodDelete, other+"/endpoints/ep_0", nil)
	keys(0)
	stop()

	r.deps.Sealer = newest
	r.start()
	for _, at := range []string{acme + "/endpoints/" + ids[0], other + "/endpoints/" + patched} {
		if got := r.call(http.MethodGet, at+"/secret", nil); got.status != 200 || got.text("secret") == "" {
			t.Errorf("with the old key retired: %d %s", got.status, got.raw)
		}
	}
}

// TestResealIsResumable: it goes on behind the cursor, whatever the size of a tenant,
// and is for the platform's administrators.
func TestResealIsResumable(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	for query, want := range map[string]int{"": 200, "?cursor=%25": 422, "?cursor=AAAA": 422} {
		if got := r.call(http.MethodPost, "/v1/seal-key/reseal"+query, nil); got.status != want {
			t.Errorf("%q: %d %s", query, got.status, got.raw)
		}
	}
	token := r.must(201, http.MethodPost, at+"/keys", `{"role":"admin"}`).text("token")
	for _, method := range []string{http.MethodGet + " /v1/seal-key", http.MethodPost + " /v1/seal-key/reseal"} {
		verb, path, _ := strings.Cut(method, " ")
		if got := r.call(verb, path, nil, as(token)); got.status != http.StatusForbidden {
			t.Errorf("%s of a tenant's admin: %d %s", method, got.status, got.raw)
		}
	}
	if got := r.call(http.MethodPost, "/v1/seal-key/reseal?"+url.Values{"cursor": {"eyJ0IjoiYWNtZSIsImUiOiJlcF8xIn0"}}.Encode(), nil); got.status != 200 {
		t.Errorf("a cursor: %d %s", got.status, got.raw)
	}
}

// All endpoints come, each once, those of one tenant at a time.
func TestNextOutdated(t *testing.T) {
	x := newTenantIndex()
	var want []endpointPlace
	for _, tenant := range []string{"a", "b", "c"} {
		for i := range 5 {
			at := endpointPlace{tenant, fmt.Sprintf("ep_%d", i)}
			x.outdated.add(at.Tenant, at.Endpoint)
			want = append(want, at)
		}
	}
	for _, limit := range []int{1, 2, 5, 100} {
		var got []endpointPlace
		var at endpointPlace
		for {
			next := x.nextOutdated(at, limit)
			if len(next) == 0 {
				break
			}
			if next[0].Tenant != next[len(next)-1].Tenant || len(next) > limit {
				t.Errorf("limit %d: %v", limit, next)
			}
			got = append(got, next...)
			at = next[len(next)-1]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("limit %d (-want +got):\n%s", limit, diff)
		}
	}
	for _, at := range slices.Clone(want) {
		x.outdated.remove(at.Tenant, at.Endpoint)
	}
	if x.outdated.remove("a", "ep_0"); len(x.outdated) != 0 || x.countOutdated() != 0 {
		t.Errorf("%v is left", x.outdated)
	}
}
