package control

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/postrider/postrider/internal/registry"
)

func TestIdempotency(t *testing.T) {
	r := newRig(t)
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r.now.Store(&begin)
	at := r.tenant("acme")
	id, _ := r.endpoint(at)
	tests := []struct {
		path, body, other string
	}{
		{at + "/endpoints", `{"url":"https://example.com/a"}`, `{"url":"https://example.com/b"}`},
		{at + "/subscriptions", `{"endpoint_id":"` + id + `"}`, `{"endpoint_id":"` + id + `","types":["a"]}`},
		{at + "/keys", `{"role":"producer"}`, `{"role":"admin"}`},
	}
	for _, tt := range tests {
		now := begin
		r.now.Store(&now)
		key := with("Idempotency-Key", "abc")
		first := r.must(http.StatusCreated, http.MethodPost, tt.path, tt.body, key)
		again := r.must(http.StatusCreated, http.MethodPost, tt.path, tt.body, key)
		if again.text("token") != "" {
			t.Errorf("%s: the repeat shows a token", tt.path)
		}
		delete(first.body, "token")
		if diff := cmp.Diff(first.body, again.body); diff != "" {
			t.Errorf("%s: repeat (-first +again):\n%s", tt.path, diff)
		}
		if first.header.Get("Location") != again.header.Get("Location") || first.header.Get("ETag") != again.header.Get("ETag") {
			t.Errorf("%s: headers of the repeat differ", tt.path)
		}
		if got := r.call(http.MethodPost, tt.path, tt.other, key); got.status != 422 || got.text("code") != "idempotency_conflict" {
			t.Errorf("%s: another request under the same key: %d %s", tt.path, got.status, got.raw)
		}
		if other := r.must(http.StatusCreated, http.MethodPost, tt.path, tt.body, with("Idempotency-Key", "other")); other.text("id") == first.text("id") {
			t.Errorf("%s: another key, the same entity", tt.path)
		}
		now = begin.Add(idempotencyWindow)
		if later := r.must(http.StatusCreated, http.MethodPost, tt.path, tt.body, key); later.text("id") == first.text("id") {
			t.Errorf("%s: the key was remembered after 24 h", tt.path)
		}
	}
}

func TestPaging(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	var all []string
	for range 7 {
		id, _ := r.endpoint(at)
		all = append(all, id)
	}
	if got := ids(r.must(200, http.MethodGet, at+"/endpoints", nil)); !slices.Equal(got, all) {
		t.Errorf("one page: %v, want %v", got, all)
	}
	var got []string
	cursor := ""
	for pages := 1; ; pages++ {
		page := r.must(200, http.MethodGet, at+"/endpoints?limit=3&cursor="+cursor, nil)
		got = append(got, ids(page)...)
		if pages == 1 { // what is deleted and made meanwhile moves nothing
			r.must(http.StatusNoContent, http.MethodDelete, at+"/endpoints/"+all[2], nil)
			id, _ := r.endpoint(at)
			all = append(all, id)
		}
		if cursor = page.text("next_cursor"); cursor == "" {
			if pages != 3 {
				t.Errorf("%d pages", pages)
			}
			break
		}
	}
	if !slices.Equal(got, all) {
		t.Errorf("pages: %v, want %v", got, all)
	}
}

// TestPagedLaw: whatever the ids and the limit, the pages together are the list.
func TestPagedLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entities := rapid.MapOf(rapid.StringMatching(`[a-z]{1,4}`), rapid.Int()).Draw(t, "entities")
		q := PageQuery{Limit: rapid.IntRange(1, 5).Draw(t, "limit")}
		var got []int
		for {
			a, err := paged(q, entities, nil, func(n int) int { return n })
			if err != nil {
				t.Fatal(err)
			}
			if len(a.Body.Data) > q.Limit {
				t.Fatalf("%d on a page of %d", len(a.Body.Data), q.Limit)
			}
			got = append(got, a.Body.Data...)
			if q.Cursor = a.Body.NextCursor; q.Cursor == "" {
				break
			}
		}
		if len(got) != len(entities) {
			t.Fatalf("%d of %d", len(got), len(entities))
		}
	})
}

// TestTwoWriters: of many changes to one version, one is made.
func TestTwoWriters(t *testing.T) {
	r := newRig(t)
	at := r.tenant("acme")
	_, path := r.endpoint(at)
	version := r.must(200, http.MethodGet, path, nil).text("etag")
	const writers = 8
	var wg sync.WaitGroup
	answers := make([]reply, writers)
	for i := range writers {
		wg.Go(func() {
			answers[i] = r.call(http.MethodPatch, path, map[string]any{"description": strconv.Itoa(i)}, with("If-Match", version))
		})
	}
	wg.Wait()
	made := map[int]int{}
	var won reply
	for _, a := range answers {
		made[a.status]++
		if a.status == 200 {
			won = a
		}
	}
	if diff := cmp.Diff(map[int]int{200: 1, 412: writers - 1}, made); diff != "" {
		t.Fatalf("statuses (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(won.body, r.must(200, http.MethodGet, path, nil).body); diff != "" {
		t.Errorf("the endpoint (-winner +read):\n%s", diff)
	}
}

// crowded is a registry writer that shows each update a tenant with so many keys and
// subscriptions that there is room for no key and two subscriptions.
type crowded struct{ registryWriter }

func (w crowded) Update(ctx context.Context, tenant string, fn func(*registry.TenantState) ([]registry.Change, error)) (registry.Written, error) {
	return w.registryWriter.Update(ctx, tenant, func(st *registry.TenantState) ([]registry.Change, error) {
		for i := range registry.MaxKeys {
			st.Keys[fmt.Sprintf("key_%026d", i)] = &registry.Key{Tenant: tenant}
		}
		for i := range registry.MaxSubscriptions - 2 {
			st.Subscriptions[fmt.Sprintf("sub_%026d", i)] = &registry.Subscription{Tenant: tenant}
		}
		return fn(st)
	})
}

func TestQuota(t *testing.T) {
	for _, tt := range []struct {
		have, more int
		refused    bool
	}{{9_999, 1, false}, {10_000, 1, true}, {9_990, 10, false}, {9_990, 11, true}} {
		err := withinQuota("subscriptions", tt.have, tt.more, registry.MaxSubscriptions)
		if (err != nil) != tt.refused || err != nil && failureOf(err).code != codeQuota {
			t.Errorf("%d and %d more: %v", tt.have, tt.more, err)
		}
	}
	r := newBackend(t)
	r.deps.Writer = crowded{r.deps.Writer}
	r.start()
	at := r.tenant("acme")
	id, _ := r.endpoint(at)
	for _, tt := range []struct {
		path, body string
		status     int
	}{
		{at + "/keys", `{"role":"admin"}`, 422},
		{at + "/endpoints", `{"url":"https://example.com/","subscriptions":[{},{}]}`, 422},
		{at + "/subscriptions", `{"endpoint_id":"` + id + `"}`, 201},
		{at + "/subscriptions", `{"endpoint_id":"` + id + `"}`, 422},
		{at + "/endpoints", `{"url":"https://example.com/"}`, 422},
		{at + "/endpoints", `{"url":"https://example.com/","subscriptions":[]}`, 201},
	} {
		got := r.call(http.MethodPost, tt.path, tt.body)
		if got.status != tt.status || got.status == 422 && got.text("code") != "quota_exceeded" {
			t.Errorf("POST %s %s: status %d, want %d: %s", tt.path, tt.body, got.status, tt.status, got.raw)
		}
	}
}

// TestPointers: a location of huma leads to the member that it means, also where
// names have dots and brackets.
func TestPointers(t *testing.T) {
	body := []byte(`{"a":{"b.c":[1,{"d[0]":2}],"b":{"c":3}},"x/y":4}`)
	for location, want := range map[string]string{
		"":                  "",
		".a":                "/a",
		".a.b.c[1]":         "/a/b.c/1",
		".a.b.c[1].d[0]":    "/a/b.c/1/d[0]",
		".a.b":              "/a/b",
		".x/y":              "/x~1y",
		".nothing.there[3]": "/nothing/there/3",
	} {
		got, ok := follow(newLocator(body).body, location)
		if !ok {
			got = plainPointer(location)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", location, got, want)
		}
	}
}

func FuzzPointer(f *testing.F) {
	f.Add([]byte(`{"a":[{"b.c":1}]}`), ".a[0].b.c")
	f.Add([]byte(`[`), "[[")
	f.Fuzz(func(t *testing.T, body []byte, location string) {
		if len(location) > 1<<10 {
			t.Skip()
		}
		pointer, ok := follow(newLocator(body).body, location)
		if ok && pointer != "" && !strings.HasPrefix(pointer, "/") {
			t.Errorf("%q", pointer)
		}
	})
}
