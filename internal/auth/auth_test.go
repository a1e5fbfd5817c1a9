package auth

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeView is a view that a test can take away.
type fakeView struct {
	mu       sync.Mutex
	err      error
	marker   registry.Marker
	entities map[registry.Ref]string
	asked    int
	block    chan struct{}
}

func newFakeView() *fakeView {
	return &fakeView{
		marker:   registry.Marker{Generation: 1, Next: 100, Complete: true},
		entities: make(map[registry.Ref]string),
	}
}

func (v *fakeView) Entities(ctx context.Context, refs []registry.Ref) ([]registry.Found, error) {
	v.mu.Lock()
	v.asked++
	block := v.block
	v.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return nil, v.err
	}
	out := make([]registry.Found, len(refs))
	for i, ref := range refs {
		value, ok := v.entities[ref]
		out[i] = registry.Found{Marker: v.marker, OK: ok, Entry: registry.Entry{Value: []byte(value)}}
	}
	return out, nil
}

func (v *fakeView) change(f func(v *fakeView)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f(v)
}

func (v *fakeView) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.asked
}

// addKey stores a key and returns its token.
func (v *fakeView) addKey(t *testing.T, tenant string, role registry.Role) (id, token string) {
	t.Helper()
	id, token, hash := NewToken()
	value, err := json.Marshal(registry.Key{ID: id, Tenant: tenant, Role: role, Hash: hash})
	if err != nil {
		t.Fatal(err)
	}
	v.change(func(v *fakeView) { v.entities[registry.Ref{Tenant: id, Entity: id}] = string(value) })
	return id, token
}

type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func setup() (*fakeView, *fakeClock, *Keys) {
	v, c := newFakeView(), &fakeClock{now: time.Unix(1_700_000_000, 0)}
	return v, c, New(Config{View: v, AdminKey: "the-admin-key", Clock: c.Now, Timeout: 5 * time.Second})
}

func TestLookup(t *testing.T) {
	v, _, k := setup()
	id, token := v.addKey(t, "acme", registry.RoleProducer)
	platformID, platform := v.addKey(t, registry.Platform, registry.RoleAdmin)
	other, _, _ := NewToken()
	tests := []struct {
		name, token string
		want        Identity
		err         error
	}{
		{"tenant key", token, Identity{Tenant: "acme", Role: registry.RoleProducer, KeyID: id}, nil},
		{"platform key", platform, Identity{Tenant: "_", Role: registry.RoleAdmin, KeyID: platformID}, nil},
		{"admin key", "the-admin-key", Identity{Tenant: "_", Role: registry.RoleAdmin, Admin: true}, nil},
		{"almost the admin key", "the-admin-kez", Identity{}, ErrUnknown},
		{"empty", "", Identity{}, ErrUnknown},
		{"id alone", id, Identity{}, ErrUnknown},
		{"wrong secret", id + ".wrong", Identity{}, ErrUnknown},
		{"no such key", other + ".secret", Identity{}, ErrUnknown},
		{"too long", id + "." + strings.Repeat("x", maxToken), Identity{}, ErrUnknown},
		{"other prefix", "ep" + token[3:], Identity{}, ErrUnknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := k.Lookup(t.Context(), tt.token)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("identity (-want +got):\n%s", diff)
			}
			if err != nil && tt.token != "" && strings.Contains(err.Error(), tt.token) {
				t.Errorf("the error has the token in it: %v", err)
			}
		})
	}
}

func TestNoAdminKey(t *testing.T) {
	k := New(Config{View: newFakeView()})
	if _, err := k.Lookup(t.Context(), ""); !errors.Is(err, ErrUnknown) {
		t.Errorf("an empty token without an admin key: %v, want ErrUnknown", err)
	}
}

func TestRights(t *testing.T) {
	tests := []struct {
		name                        string
		who                         Identity
		platform, send, own, others bool
	}{
		{"admin key", Identity{Tenant: "_", Role: registry.RoleAdmin, Admin: true}, true, true, true, true},
		{"platform admin", Identity{Tenant: "_", Role: registry.RoleAdmin}, true, true, true, true},
		{"platform producer", Identity{Tenant: "_", Role: registry.RoleProducer}, true, true, false, false},
		{"tenant admin", Identity{Tenant: "acme", Role: registry.RoleAdmin}, false, true, true, false},
		{"tenant producer", Identity{Tenant: "acme", Role: registry.RoleProducer}, false, true, false, false},
		{"no role", Identity{Tenant: "acme"}, false, false, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := []bool{tt.who.Platform(), tt.who.MaySend(), tt.who.MayManage("acme"), tt.who.MayManage("other")}
			if diff := cmp.Diff([]bool{tt.platform, tt.send, tt.own, tt.others}, got); diff != "" {
				t.Errorf("platform, send, manage own, manage other (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCacheAge(t *testing.T) {
	v, clock, k := setup()
	id, token := v.addKey(t, "acme", registry.RoleAdmin)
	ok := func(when string, asked int) {
		t.Helper()
		if _, err := k.Lookup(t.Context(), token); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if got := v.count(); got != asked {
			t.Fatalf("%s: the view was asked %d times, want %d", when, got, asked)
		}
	}
	ok("first", 1)
	clock.add(5 * time.Second)
	ok("5 s later", 1)
	clock.add(time.Millisecond)
	ok("after 5 s", 2)

	v.change(func(v *fakeView) { v.err = errors.New("redis is away") })
	clock.add(10 * time.Minute)
	ok("10 min without Redis", 3)
	clock.add(time.Millisecond)
	if _, err := k.Lookup(t.Context(), token); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("after 10 min without Redis: %v, want ErrUnavailable", err)
	}

	v.change(func(v *fakeView) { v.err = nil })
	ok("Redis is back", 5)
	v.change(func(v *fakeView) { delete(v.entities, registry.Ref{Tenant: id, Entity: id}) })
	clock.add(6 * time.Second)
	if _, err := k.Lookup(t.Context(), token); !errors.Is(err, ErrUnknown) {
		t.Fatalf("a deleted key: %v, want ErrUnknown", err)
	}
	v.change(func(v *fakeView) { v.err = errors.New("redis is away") })
	if _, err := k.Lookup(t.Context(), token); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("a deleted key, Redis away: %v, want ErrUnavailable: what was deleted must not be in the cache", err)
	}
}

func TestViewNotToBeBelieved(t *testing.T) {
	tests := []struct {
		name   string
		marker registry.Marker
	}{
		{"being rebuilt", registry.Marker{Generation: 2, Next: 200}},
		{"no marker", registry.Marker{}},
		{"older replica", registry.Marker{Generation: 1, Next: 99, Complete: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, clock, k := setup()
			id, token := v.addKey(t, "acme", registry.RoleAdmin)
			if _, err := k.Lookup(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			v.change(func(v *fakeView) {
				v.marker = tt.marker
				delete(v.entities, registry.Ref{Tenant: id, Entity: id})
			})
			clock.add(6 * time.Second)
			if _, err := k.Lookup(t.Context(), token); err != nil {
				t.Errorf("a key known before: %v, want it from the cache", err)
			}
		})
	}
	v, _, k := setup()
	_, token := v.addKey(t, "acme", registry.RoleAdmin)
	v.change(func(v *fakeView) { v.marker.Complete = false })
	if _, err := k.Lookup(t.Context(), token); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a key not known before, in an incomplete view: %v, want ErrUnavailable", err)
	}
	if _, err := k.Tenant(t.Context(), "acme"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a tenant absent from an incomplete view: %v, want ErrUnavailable", err)
	}
}

func TestUnknownIsNotCached(t *testing.T) {
	v, _, k := setup()
	if _, err := k.Tenant(t.Context(), "acme"); !errors.Is(err, ErrUnknownTenant) {
		t.Fatalf("error %v, want ErrUnknownTenant", err)
	}
	v.change(func(v *fakeView) {
		v.entities[registry.Ref{Tenant: "acme", Entity: registry.TenantEntity}] = `{"v":1,"id":"acme","deleting":true}`
	})
	got, err := k.Tenant(t.Context(), "acme")
	if err != nil || got.ID != "acme" || !got.Deleting {
		t.Errorf("right after it was created: %+v, %v", got, err)
	}
}

func TestDamagedEntity(t *testing.T) {
	v, _, k := setup()
	id, token, hash := NewToken()
	for name, value := range map[string]string{
		"not JSON":   "{",
		"short hash": `{"id":"` + id + `","tenant":"acme","role":"admin","hash":"` + hash[:10] + `"}`,
		"no tenant":  `{"id":"` + id + `","role":"admin","hash":"` + hash + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			v.change(func(v *fakeView) { v.entities[registry.Ref{Tenant: id, Entity: id}] = value })
			if _, err := k.Lookup(t.Context(), token); !errors.Is(err, ErrUnavailable) {
				t.Errorf("error %v, want ErrUnavailable", err)
			}
		})
	}
}

func TestOneQuestionAtATime(t *testing.T) {
	v, _, k := setup()
	_, token := v.addKey(t, "acme", registry.RoleAdmin)
	v.change(func(v *fakeView) { v.block = make(chan struct{}) })

	// The one who asks first goes away; the others must not suffer from it.
	gone, leave := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := k.Lookup(gone, token)
		first <- err
	}()
	waitFor(t, func() bool { return v.count() == 1 })
	leave()
	if err := <-first; !errors.Is(err, ErrUnavailable) {
		t.Errorf("the one who went away: %v", err)
	}
	errs := make(chan error, 20)
	for range cap(errs) {
		go func() {
			_, err := k.Lookup(t.Context(), token)
			errs <- err
		}()
	}
	close(v.block)
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := v.count(); n > 2 { // a late one may find the first question answered
		t.Errorf("the view was asked %d times", n)
	}
}

func TestTimeout(t *testing.T) {
	v := newFakeView()
	v.block = make(chan struct{})
	k := New(Config{View: v, Timeout: time.Millisecond})
	if _, err := k.Tenant(t.Context(), "acme"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a view that hangs: %v, want ErrUnavailable", err)
	}
}

func TestBounded(t *testing.T) {
	v := newFakeView()
	k := New(Config{View: v, Entries: 10, Fresh: time.Hour})
	for i := range 1000 {
		id := "t" + strings.Repeat("x", i%50) + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
		v.change(func(v *fakeView) {
			v.entities[registry.Ref{Tenant: id, Entity: registry.TenantEntity}] = `{"id":"` + id + `"}`
		})
		if _, err := k.Tenant(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	k.tenants.known.CleanUp()
	if n := k.tenants.known.EstimatedSize(); n > 10 {
		t.Errorf("%d tenants are cached, want at most 10", n)
	}
}

func TestBearer(t *testing.T) {
	tests := []struct {
		header, want string
		ok           bool
	}{
		{"Bearer abc", "abc", true},
		{"bearer  abc ", "abc", true},
		{"", "", false},
		{"Bearer", "", false},
		{"Bearer ", "", false},
		{"Basic abc", "", false},
		{"abc", "", false},
	}
	for _, tt := range tests {
		if got, ok := Bearer(tt.header); got != tt.want || ok != tt.ok {
			t.Errorf("Bearer(%q) = %q, %t, want %q, %t", tt.header, got, ok, tt.want, tt.ok)
		}
	}
}

func TestNewToken(t *testing.T) {
	id, token, hash := NewToken()
	if err := schemas.CheckID(schemas.PrefixKey, id); err != nil {
		t.Error(err)
	}
	if got, ok := keyID(token); !ok || got != id {
		t.Errorf("keyID(token) = %q, %t, want %q", got, ok, id)
	}
	if hash != Hash(token) || len(hash) != 64 {
		t.Errorf("hash %q, want %q", hash, Hash(token))
	}
	if _, again, _ := NewToken(); again == token {
		t.Error("two tokens are equal")
	}
}

func FuzzLookup(f *testing.F) {
	f.Add("key_01h455vb4pex5vsknk084sn02q.secret")
	f.Add(".")
	k := New(Config{View: newFakeView(), AdminKey: "the-admin-key"})
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := k.Lookup(t.Context(), token); err == nil && token != "the-admin-key" {
			t.Errorf("token %q was let in", token)
		}
	})
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	v := newFakeView()
	id, token, hash := NewToken()
	v.entities[registry.Ref{Tenant: id, Entity: id}] = `{"id":"` + id + `","tenant":"acme","role":"producer","hash":"` + hash + `"}`
	k := New(Config{View: v, Fresh: time.Hour})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Lookup(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}
