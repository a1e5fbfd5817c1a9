package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/testkit"
)

func TestDecodeRecord(t *testing.T) {
	at := time.Unix(1, 0)
	prev := func(v string) []kgo.RecordHeader { return []kgo.RecordHeader{{Key: HeaderPrev, Value: []byte(v)}} }
	tests := []struct {
		name string
		in   kgo.Record
		want *Record // nil: malformed
	}{
		{"entity", kgo.Record{Key: []byte("acme/ep_1"), Value: []byte("{}"), Offset: 7, Timestamp: at, Headers: prev("3")}, &Record{7, "acme", "ep_1", []byte("{}"), 3, at}},
		{"first", kgo.Record{Key: []byte("acme/ep_1"), Value: []byte("{}"), Headers: prev("-1")}, &Record{0, "acme", "ep_1", []byte("{}"), PrevAbsent, time.Time{}}},
		{"tombstone", kgo.Record{Key: []byte("_/layout")}, &Record{0, "_", "layout", nil, PrevUnknown, time.Time{}}},
		{"two words", kgo.Record{Key: []byte("acme/ep_1/health"), Value: []byte("{}")}, &Record{0, "acme", "ep_1/health", []byte("{}"), PrevUnknown, time.Time{}}},
		{"kind of a later version", kgo.Record{Key: []byte("acme/type_order-paid"), Value: []byte("{}")}, &Record{0, "acme", "type_order-paid", []byte("{}"), PrevUnknown, time.Time{}}},
		{"no key", kgo.Record{Value: []byte("{}")}, nil},
		{"no entity", kgo.Record{Key: []byte("acme"), Value: []byte("{}")}, nil},
		{"empty entity", kgo.Record{Key: []byte("acme/"), Value: []byte("{}")}, nil},
		{"no tenant", kgo.Record{Key: []byte("/ep_1"), Value: []byte("{}")}, nil},
		{"tenant with a brace", kgo.Record{Key: []byte("{v01}/ep_1"), Value: []byte("{}")}, nil},
		{"reserved entity", kgo.Record{Key: []byte("acme/@v"), Value: []byte("{}")}, nil},
		{"three words", kgo.Record{Key: []byte("acme/a/b/c"), Value: []byte("{}")}, nil},
		{"long entity", kgo.Record{Key: []byte("acme/" + strings.Repeat("a", 129)), Value: []byte("{}")}, nil},
		{"empty value", kgo.Record{Key: []byte("acme/ep_1"), Value: []byte{}}, nil},
		{"prev is no number", kgo.Record{Key: []byte("acme/ep_1"), Value: []byte("{}"), Headers: prev("x")}, nil},
		{"prev below none", kgo.Record{Key: []byte("acme/ep_1"), Value: []byte("{}"), Headers: prev("-2")}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			have, err := DecodeRecord(&tt.in)
			if tt.want == nil {
				if !errors.Is(err, ErrMalformed) {
					t.Errorf("have %+v, %v; want %v", have, err, ErrMalformed)
				}
				return
			}
			if diff := cmp.Diff(*tt.want, have); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte("acme/ep_1"), []byte("{}"), []byte("3"))
	f.Add([]byte("_/layout"), []byte(nil), []byte("-1"))
	f.Add([]byte("acme/ep_1/health"), []byte("x"), []byte(""))
	f.Fuzz(func(t *testing.T, key, value, prev []byte) {
		in := &kgo.Record{Key: key, Value: value, Headers: []kgo.RecordHeader{{Key: HeaderPrev, Value: prev}}}
		r, err := DecodeRecord(in)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		if string(EncodeKey(r.Tenant, r.Entity)) != string(key) {
			t.Fatalf("key %q became %q", key, EncodeKey(r.Tenant, r.Entity))
		}
		if strings.ContainsAny(r.Tenant+r.Entity, "{}@: ") || r.Prev < PrevAbsent || r.Value != nil && len(r.Value) == 0 {
			t.Fatalf("accepted %+v", r)
		}
		again, err := DecodeRecord(newRecord("t", r))
		if diff := cmp.Diff(r, again, cmpopts.IgnoreFields(Record{}, "Offset", "Time")); err != nil || diff != "" {
			t.Fatalf("round trip: %v (-want +got):\n%s", err, diff)
		}
	})
}

func TestDecodeSnapshot(t *testing.T) {
	entry := func(offset int64, value string) Entry { return Entry{offset, []byte(value)} }
	s := Snapshot{
		Tenant:  "acme",
		Version: Version{Marker{5, 50, true}, 14},
		Entries: map[string]Entry{
			"tenant":      entry(10, `{"id":"acme"}`),
			"ep_1":        entry(11, `{"id":"ep_1","timeout":"3s"}`),
			"ep_1/health": entry(12, `{"judged":11}`),
			"sub_1":       entry(13, `{"types":["*"]}`),
			"key_1":       entry(14, `{"role":"admin"}`),
			"ep_2":        entry(9, `{"timeout":"soon"}`),
			"type_new":    entry(8, `[]`),
		},
	}
	want := &TenantState{
		Tenant: &Tenant{ID: "acme"}, TenantOffset: 10,
		Endpoints:     map[string]*Endpoint{"ep_1": {ID: "ep_1", Timeout: Duration(3 * time.Second)}},
		Health:        map[string]*Health{"ep_1": {Judged: 11}},
		Subscriptions: map[string]*Subscription{"sub_1": {Types: []string{"*"}}},
		Keys:          map[string]*Key{"key_1": {Role: RoleAdmin}},
		Offsets:       map[string]int64{"tenant": 10, "ep_1": 11, "ep_1/health": 12, "sub_1": 13, "key_1": 14, "ep_2": 9, "type_new": 8},
		Sizes:         map[string]int{"tenant": 19, "ep_1": 32, "ep_1/health": 24, "sub_1": 20, "key_1": 21, "ep_2": 22, "type_new": 10},
		Bytes:         148,
		Marker:        Marker{5, 50, true},
	}
	have, err := s.Decode()
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	if err == nil || !strings.Contains(err.Error(), "acme/ep_2 at offset 9") {
		t.Errorf("error %v does not name the entity", err)
	}
}

func TestMarkerReached(t *testing.T) {
	for m, want := range map[Marker]bool{
		{1, 10, true}: true, {1, 11, true}: true, {1, 9, true}: false, {1, 10, false}: false, {}: false,
	} {
		if m.Reached(10) != want {
			t.Errorf("%+v reached 10: %t", m, !want)
		}
	}
}

// The function is fixed for ever: keys in Redis depend on it.
func TestBucketOfIsFixed(t *testing.T) {
	have := map[string]int{}
	for _, name := range []string{"_", "acme", "tenant-7", "key_01h455vb4pex5vsknk084sn02q"} {
		have[name] = bucketOf(name)
	}
	want := map[string]int{"_": 2, "acme": 18, "tenant-7": 15, "key_01h455vb4pex5vsknk084sn02q": 14}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("buckets (-want +got):\n%s", diff)
	}
	counts := make([]int, Buckets)
	for i := range 32_000 {
		counts[bucketOf(fmt.Sprintf("tenant-%d", i))]++
	}
	for b, n := range counts {
		if n < 800 || n > 1200 {
			t.Errorf("bucket %d has %d of 32000 names", b, n)
		}
	}
}

func TestGenerationsNeverRepeat(t *testing.T) {
	var g generations
	now := time.UnixMilli(1_800_000_000_000)
	g.see(now.Add(time.Hour).UnixMilli() << 10) // a clock that went back
	seen := g.highest
	for range 3 {
		n := g.next(now)
		if n <= seen || n >= 1<<53 {
			t.Errorf("generation %d after %d", n, seen)
		}
		seen = n
	}
}

func TestSealer(t *testing.T) {
	first, err := NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	rotated, err := RotateKeyset(first)
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	seal, err := NewSealer(first)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := seal.Seal([]byte("whsec_x"), "acme", "ep_1", SecretField)
	if err != nil || strings.Contains(sealed, "whsec") {
		t.Fatal(sealed, err)
	}
	tests := []struct {
		name, keyset, sealed, tenant, entity, field string
		ok                                          bool
	}{
		{"same", first, sealed, "acme", "ep_1", SecretField, true},
		{"rotated", rotated, sealed, "acme", "ep_1", SecretField, true},
		{"other keyset", other, sealed, "acme", "ep_1", SecretField, false},
		{"other tenant", first, sealed, "acm", "eep_1", SecretField, false},
		{"other entity", first, sealed, "acme", "ep_2", SecretField, false},
		{"other field", first, sealed, "acme", "ep_1", "password", false},
		{"not base64", first, "?", "acme", "ep_1", SecretField, false},
		{"cut", first, sealed[:8], "acme", "ep_1", SecretField, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := NewSealer(tt.keyset)
			if err != nil {
				t.Fatal(err)
			}
			plain, err := s.Open(tt.sealed, tt.tenant, tt.entity, tt.field)
			if (err == nil) != tt.ok || tt.ok && string(plain) != "whsec_x" {
				t.Errorf("have %q, %v", plain, err)
			}
		})
	}
	newer, err := NewSealer(rotated)
	if err != nil {
		t.Fatal(err)
	}
	if sealed, err = newer.Seal([]byte("x"), "acme", "ep_1", SecretField); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Open(sealed, "acme", "ep_1", SecretField); err == nil {
		t.Error("a rotated keyset still seals with the old key")
	}
	for _, bad := range []string{"", "?", "AAAA"} {
		if _, err := NewSealer(bad); err == nil {
			t.Errorf("keyset %q was taken", bad)
		}
	}
}

func TestJudgeRedis(t *testing.T) {
	tests := []struct {
		name, info   string
		unsafe, fail bool
	}{
		{"safe", "# Server\r\nredis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\n", false, false},
		{"volatile", "redis_version:8.2.1\r\nmaxmemory_policy:volatile-ttl\r\n", false, false},
		{"evicts all", "redis_version:7.2.0\r\nmaxmemory_policy:allkeys-lru\r\n", true, false},
		{"says nothing", "redis_version:7.2.0\r\n", true, false},
		{"old", "redis_version:6.2.14\r\nmaxmemory_policy:noeviction\r\n", false, true},
		{"no version", "maxmemory_policy:noeviction\r\n", false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			unsafe, err := judgeRedis(tt.info)
			if (unsafe != "") != tt.unsafe || (err != nil) != tt.fail {
				t.Errorf("have %q, %v", unsafe, err)
			}
		})
	}
}

func TestCheckRedis(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		info, err := r.redis.Info(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(info, "redis_version") { // the embedded one is not to be checked
			if _, err := CheckRedis(t.Context(), r.redis, true); err == nil {
				t.Error("a redis without a version passed")
			}
			return
		}
		before := r.redis.ConfigGet(t.Context(), "maxmemory-policy").Val()["maxmemory-policy"]
		defer r.redis.ConfigSet(context.WithoutCancel(t.Context()), "maxmemory-policy", before)
		if err := r.redis.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := CheckRedis(t.Context(), r.redis, false); !errors.Is(err, ErrUnsafeRedis) {
			t.Errorf("have %v, want %v", err, ErrUnsafeRedis)
		}
		if warnings, err := CheckRedis(t.Context(), r.redis, true); err != nil || len(warnings) != 1 {
			t.Errorf("have %v, %v; want one warning", warnings, err)
		}
		if err := r.redis.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err(); err != nil {
			t.Fatal(err)
		}
		if warnings, err := CheckRedis(t.Context(), r.redis, false); err != nil || len(warnings) != 0 {
			t.Errorf("have %v, %v; want nothing", warnings, err)
		}
	})
}

func TestEnsureLayout(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		want := broker.Layout{Deliveries: 8, ScheduleShards: 1, Version: 1}
		r.write("acme", "tenant", "{}", PrevAbsent)
		for range 2 {
			if err := EnsureLayout(ctx, r.kafka, want); err != nil {
				t.Fatal(err)
			}
			if end := r.end(); end != 2 {
				t.Errorf("%d records, want the layout once", end)
			}
		}
		cl, err := r.kafka.NewClient()
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		log, err := newLogReader(cl, r.kafka.Topics().Registry, 1).fetch(ctx, time.Second)
		if err != nil || len(log.records) != 1 {
			t.Fatalf("%d records, %v", len(log.records), err)
		}
		if rec, err := DecodeRecord(log.records[0]); err != nil || rec.Entity != LayoutEntity || rec.Prev != PrevUnknown {
			t.Errorf("%+v, %v: a twin of it would be told as a lost update", rec, err)
		}
		for _, other := range []broker.Layout{{Deliveries: 9, ScheduleShards: 1, Version: 1}, {Deliveries: 8, ScheduleShards: 2, Version: 1}} {
			err := EnsureLayout(ctx, r.kafka, other)
			if !errors.Is(err, ErrLayoutMismatch) || !strings.Contains(err.Error(), fmt.Sprintf("%d partitions and %d schedule", other.Deliveries, other.ScheduleShards)) {
				t.Errorf("have %v, want %v that names both", err, ErrLayoutMismatch)
			}
		}
		if err := EnsureLayout(ctx, r.kafka, broker.Layout{}); !errors.Is(err, broker.ErrLayout) {
			t.Errorf("no layout: %v", err)
		}
	})
}

func TestEmbeddedExpiresKeys(t *testing.T) {
	rdb := embeddedRedis(t)
	ctx := t.Context()
	if err := rdb.Set(ctx, "k", "v", 50*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the key expires", func() bool {
		err := rdb.Get(ctx, "k").Err()
		if err != nil && !errors.Is(err, redis.Nil) {
			t.Fatal(err)
		}
		return err != nil
	})
}
