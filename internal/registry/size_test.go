package registry

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/postrider/postrider/internal/testkit"
	"github.com/postrider/postrider/schemas"
)

// BytesAfter foretells what Bytes is once the changes are made.
func TestBytesAfter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := map[string]Entry{}
		snap := Snapshot{Tenant: "acme", Entries: entries}
		for offset := range rapid.IntRange(1, 8).Draw(t, "updates") {
			state, err := snap.Decode()
			if err != nil {
				t.Fatal(err)
			}
			var changes []Change
			for _, n := range rapid.SliceOfNDistinct(rapid.IntRange(0, 5), 1, 4, rapid.ID).Draw(t, "entities") {
				id := fmt.Sprintf("ep_%d", n)
				c := Change{Entity: id}
				if rapid.Bool().Draw(t, "kept") {
					c.Value = endpoint("acme", id, "https://example.com/"+rapid.StringN(0, 20, -1).Draw(t, "url"))
				}
				changes = append(changes, c, Change{Entity: ReportRef(id).Entity}) // a report does not count
			}
			want, err := state.BytesAfter(changes)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range changes {
				value, err := c.encode()
				if err != nil {
					t.Fatal(err)
				}
				if delete(entries, c.Entity); value != nil {
					entries[c.Entity] = Entry{Offset: int64(offset), Value: value}
				}
			}
			got := 0
			for entity, e := range entries {
				got += len(entity) + len(e.Value)
			}
			if got != want {
				t.Errorf("%d bytes, foretold %d", got, want)
			}
		}
	})
}

func TestBytesAfterCantBeEncoded(t *testing.T) {
	for _, value := range []any{(*Endpoint)(nil), make(chan int)} {
		if _, err := new(TenantState).BytesAfter([]Change{{Entity: "ep_1", Value: value}}); err == nil {
			t.Errorf("%T: no error", value)
		}
	}
}

// fillUp gives a tenant endpoints of all in all MaxBytes, or a little less, and
// returns how many entities it has then.
func (r *rig) fillUp(tenant string, size int) int {
	r.t.Helper()
	used := 0
	var records []*kgo.Record
	write := func(entity, value string) {
		used += storedSize(entity, []byte(value))
		records = append(records, newRecord(r.topic, Record{Tenant: tenant, Entity: entity, Value: []byte(value), Prev: PrevUnknown}))
	}
	write(TenantEntity, `{"v":1,"id":"`+tenant+`"}`)
	for used+size < MaxBytes {
		id := fmt.Sprintf("%s_%026d", schemas.PrefixEndpoint, len(records))
		write(id, fmt.Sprintf(`{"v":1,"id":"%s","tenant":"%s","description":"%s"}`, id, tenant, strings.Repeat("d", size-120)))
	}
	if err := r.client.ProduceSync(r.t.Context(), records...).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
	return len(records)
}

// A tenant at its quota is read without a time-out.
func TestTenantAtTheQuotaLoads(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.project()
		want := r.fillUp("acme", 100_000)
		r.caughtUp()
		opts := *r.redis.Options()
		opts.MaxRetries = -1
		once := redis.NewClient(&opts)
		defer func() { _ = once.Close() }()
		snapshots, err := NewView(once, r.topicID()).Load(t.Context(), []string{"acme"})
		if err != nil {
			t.Fatal(err)
		}
		s := snapshots[0]
		if !s.Reached(r.end()) || len(s.Entries) != want {
			t.Errorf("%d entities under %+v, want %d", len(s.Entries), s.Marker, want)
		}
		if state, err := s.Decode(); err != nil || state.Bytes > MaxBytes || state.Bytes < MaxBytes-200_000 {
			t.Errorf("%d bytes, want about %d; %v", state.Bytes, MaxBytes, err)
		}
	})
}

// BenchmarkLoad reads a tenant at its quota: few large entities, or many small ones.
func BenchmarkLoad(b *testing.B) {
	for _, size := range []int{100_000, 800} {
		b.Run(fmt.Sprintf("entities of %d bytes", size), func(b *testing.B) {
			rdb, ok := testkit.RealRedis(b, testDB)
			if !ok {
				b.Skip("not run: REDIS_URL is not set")
			}
			r := newRigOn(b, testkit.EmbeddedKafka(b), rdb)
			r.project()
			r.fillUp("acme", size)
			r.caughtUp()
			for b.Loop() {
				if _, err := r.view.Load(b.Context(), []string{"acme"}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// wholeTenants is a hook that notes how many tenants each transaction reads as a
// whole.
type wholeTenants struct {
	mu     sync.Mutex
	counts []int
}

func (*wholeTenants) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*wholeTenants) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (w *wholeTenants) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		count := 0
		for _, cmd := range cmds {
			if cmd.Name() == "hgetall" {
				count++
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.counts = append(w.counts, count)
		return next(ctx, cmds)
	}
}

// The timeout of Redis holds for a whole transaction: what is in it must not grow with
// the number of tenants.
func TestLoadReadsOneTenantPerTransaction(t *testing.T) {
	r := newRig(t)
	r.project()
	names := make([]string, 40)
	for n := range names {
		names[n] = fmt.Sprintf("t%d", n)
		r.write(names[n], TenantEntity, `{"v":1}`, PrevAbsent)
	}
	r.caughtUp()
	hook := &wholeTenants{}
	r.redis.AddHook(hook)
	snapshots, err := r.view.Load(t.Context(), names)
	if err != nil {
		t.Fatal(err)
	}
	for n, s := range snapshots {
		if s.Tenant != names[n] || len(s.Entries) != 1 {
			t.Errorf("%d: %d entities of %s, want 1 of %s", n, len(s.Entries), s.Tenant, names[n])
		}
	}
	for _, count := range hook.counts {
		if count > 1 {
			t.Fatalf("a transaction reads %d tenants", count)
		}
	}
}

func TestLoadNamesTheTenant(t *testing.T) {
	r := newRig(t)
	if err := r.redis.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.view.Load(t.Context(), []string{"acme"}); err == nil || !strings.Contains(err.Error(), "load tenant acme: ") {
		t.Errorf("error %v does not name the tenant", err)
	}
}
