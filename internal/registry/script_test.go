package registry

import (
	"fmt"
	"maps"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"
)

// scriptModel drives one bucket with the calls of several projectors, some with
// old knowledge, and knows what must come out.
type scriptModel struct {
	t      *rapid.T
	test   *testing.T
	rdb    *redis.Client
	log    []Record
	names  []string
	gen    int64
	next   int64
	target int64
	done   bool // complete
	none   bool // no marker
	at     int64
}

const (
	modelTopic  = "00112233445566778899aabbccddeeff"
	modelBucket = 3
	modelLimit  = int64(1000)
	modelNow    = int64(1_700_000_000_000)
)

func newScriptModel(t *rapid.T, test *testing.T, rdb *redis.Client) *scriptModel {
	if err := rdb.FlushDB(test.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	m := &scriptModel{t: t, test: test, rdb: rdb, names: []string{"a", "b", "c"}, none: true}
	for i := range rapid.IntRange(0, 40).Draw(t, "records") {
		r := Record{Offset: int64(i), Tenant: rapid.SampledFrom(m.names).Draw(t, "tenant"), Entity: rapid.SampledFrom([]string{"tenant", "ep_1", "ep_2"}).Draw(t, "entity"), Prev: PrevUnknown}
		if rapid.Bool().Draw(t, "value") {
			r.Value = fmt.Appendf(nil, `{"n":%d}`, i)
		}
		m.log = append(m.log, r)
	}
	return m
}

// begin starts a generation, with the right or a wrong idea of the one before.
func (m *scriptModel) begin(*rapid.T) {
	seen := storedMarker{topic: modelTopic, generation: formatInt(m.gen)}
	if m.none {
		seen = storedMarker{}
	}
	stale := rapid.Bool().Draw(m.t, "stale")
	if stale {
		seen = storedMarker{topic: modelTopic, generation: "77"}
	}
	fresh := freshMarker{bucket: modelBucket, topic: modelTopic, generation: m.gen + 100, target: int64(len(m.log)), at: modelNow}
	began, err := begin(m.test.Context(), m.rdb, redis.NewScript(beginSource), seen, fresh)
	if err != nil {
		m.t.Fatal(err)
	}
	if began == stale {
		m.t.Fatalf("begin: have %t under a stale=%t idea", began, stale)
	}
	if began {
		m.gen, m.next, m.target, m.none, m.at = fresh.generation, 0, fresh.target, false, modelNow
		m.done = m.target == 0
	}
}

// apply is one projector's call: any span, any generation, any clock.
func (m *scriptModel) apply(*rapid.T) {
	from := rapid.Int64Range(0, int64(len(m.log))).Draw(m.t, "from")
	to := rapid.Int64Range(from, int64(len(m.log))).Draw(m.t, "to")
	gen := m.gen
	if rapid.IntRange(0, 4).Draw(m.t, "zombie") == 0 {
		gen -= 100
	}
	late := rapid.SampledFrom([]int64{0, 0, 0, modelLimit + 1}).Draw(m.t, "late")
	var b batch
	for _, r := range m.log[from:to] {
		b.add(r.Tenant, r, false)
	}
	c := b.call(modelBucket, modelTopic, formatInt(gen), span{from: from, to: to, now: modelNow + late, limit: modelLimit})
	answers, err := runAll(m.test.Context(), m.rdb, redis.NewScript(applySource), []call{c})
	if err != nil {
		m.t.Fatal(err)
	}
	answer, err := answers[0].Slice()
	if err != nil {
		m.t.Fatal(err)
	}
	want := "ok"
	switch {
	case m.none:
		want = "missing"
	case gen != m.gen:
		want = "other"
	case m.next < from:
		want = "gap"
	case late > 0:
		want = "old"
	default:
		m.next = max(m.next, to)
		m.done = m.done || m.next >= m.target
	}
	if answer[0] != want {
		m.t.Fatalf("apply [%d,%d) of generation %d: have %v, want %s", from, to, gen, answer, want)
	}
}

// lose deletes a hash by hand: whoever comes across it ends the generation.
func (m *scriptModel) lose(*rapid.T) {
	if m.none {
		return
	}
	name := rapid.SampledFrom(m.names).Draw(m.t, "lost")
	key := hashKey(modelBucket, formatInt(m.gen), name)
	n, err := m.rdb.Del(m.test.Context(), key).Result()
	if err != nil {
		m.t.Fatal(err)
	}
	if n == 0 {
		return
	}
	b := batch{}
	b.add(name, Record{Tenant: name, Entity: "ep_1", Offset: m.next, Value: []byte("{}")}, false)
	c := b.call(modelBucket, modelTopic, formatInt(m.gen), span{from: m.next, to: m.next + 1, now: modelNow, limit: modelLimit})
	answers, err := runAll(m.test.Context(), m.rdb, redis.NewScript(applySource), []call{c})
	if err != nil {
		m.t.Fatal(err)
	}
	if have := answers[0].Val().([]any)[0]; have != "damaged" {
		m.t.Fatalf("write over a lost hash: have %v, want damaged", have)
	}
	if n := m.rdb.Exists(m.test.Context(), key).Val(); n != 0 {
		m.t.Fatal("a lost hash was written in part")
	}
	m.none = true
}

// check holds after every step: the marker is the model's, and the content is
// the fold of the log below it.
func (m *scriptModel) check(*rapid.T) {
	have := parseMarker(m.rdb.HMGet(m.test.Context(), markerKey(modelBucket), markerFields()...).Val())
	if m.none {
		if have.valid {
			m.t.Fatalf("a marker where none should be: %+v", have)
		}
		return
	}
	want := Marker{Generation: m.gen, Next: m.next, Complete: m.done}
	if diff := cmp.Diff(want, have.Marker); diff != "" {
		m.t.Fatalf("marker (-want +got):\n%s", diff)
	}
	state := map[string]map[string]string{}
	version := map[string]string{}
	for _, r := range m.log[:m.next] {
		before := maps.Clone(state[r.Tenant])
		foldInto(state, r.Tenant, r)
		if r.Value != nil || len(before) != len(state[r.Tenant]) {
			version[r.Tenant] = strconv.FormatInt(r.Offset, 10)
		}
	}
	for name, hash := range state {
		hash[versionField] = version[name]
	}
	got := map[string]map[string]string{}
	for _, name := range m.rdb.SMembers(m.test.Context(), tenantsKey(modelBucket, formatInt(m.gen))).Val() {
		got[name] = m.rdb.HGetAll(m.test.Context(), hashKey(modelBucket, formatInt(m.gen), name)).Val()
	}
	if diff := cmp.Diff(state, got); diff != "" {
		m.t.Fatalf("content at %d (-want +got):\n%s", m.next, diff)
	}
	if int(have.count) != len(state) {
		m.t.Fatalf("count %d, want %d", have.count, len(state))
	}
}

func TestScriptFollowsTheModel(t *testing.T) {
	rdb := embeddedRedis(t)
	rapid.Check(t, func(rt *rapid.T) {
		m := newScriptModel(rt, t, rdb)
		rt.Repeat(map[string]func(*rapid.T){
			"begin": m.begin, "apply": m.apply, "applyAgain": m.apply, "lose": m.lose, "": m.check,
		})
	})
}

func TestScriptJudgesPrev(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		ctx := t.Context()
		fresh := freshMarker{bucket: modelBucket, topic: modelTopic, generation: 5, at: modelNow}
		if _, err := begin(ctx, r.redis, redis.NewScript(beginSource), storedMarker{}, fresh); err != nil {
			t.Fatal(err)
		}
		var b batch
		prevs := []int64{PrevAbsent, 0, PrevAbsent, 1, 3, PrevAbsent}
		for i, prev := range prevs {
			rec := Record{Offset: int64(i), Tenant: "a", Entity: "ep_1", Value: []byte("{}"), Prev: prev}
			if i == 4 {
				rec.Value = nil // the next one creates it anew
			}
			b.add("a", rec, true)
		}
		c := b.call(modelBucket, modelTopic, "5", span{to: 6, now: modelNow, limit: modelLimit})
		answers, err := runAll(ctx, r.redis, redis.NewScript(applySource), []call{c})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]any{"ok", "1", int64(2), int64(3)}, answers[0].Val()); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
	})
}

// A Redis that was restarted knows no scripts.
func TestScriptsAreLoadedOnDemand(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		l := newLease(r.redis, "x", leaseTTL)
		for range 2 {
			if err := r.redis.ScriptFlush(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			if got, err := l.acquire(t.Context()); !got || err != nil {
				t.Fatal(got, err)
			}
			if ours, err := l.renew(t.Context()); !ours || err != nil {
				t.Fatal(ours, err)
			}
			l.release(t.Context())
		}
	})
}

// Without records the script still sees that names are lost, and notes when the
// position was the log's end.
func TestScriptWithoutRecords(t *testing.T) {
	rdb := embeddedRedis(t)
	ctx := t.Context()
	apply := func(b batch, s span) string {
		t.Helper()
		s.limit = modelLimit
		answers, err := runAll(ctx, rdb, redis.NewScript(applySource), []call{b.call(modelBucket, modelTopic, "5", s)})
		if err != nil {
			t.Fatal(err)
		}
		status, _ := answers[0].Val().([]any)[0].(string)
		return status
	}
	at := func() int64 {
		return parseMarker(rdb.HMGet(ctx, markerKey(modelBucket), markerFields()...).Val()).at
	}
	fresh := freshMarker{bucket: modelBucket, topic: modelTopic, generation: 5, at: modelNow}
	if _, err := begin(ctx, rdb, redis.NewScript(beginSource), storedMarker{}, fresh); err != nil {
		t.Fatal(err)
	}
	var b batch
	b.add("a", Record{Tenant: "a", Entity: "tenant", Value: []byte("{}")}, false)
	if status := apply(b, span{to: 1, now: modelNow}); status != "ok" || at() != modelNow {
		t.Errorf("not at the end: %s, position of %d", status, at())
	}
	seen := modelNow + modelLimit/2
	if status := apply(batch{}, span{from: 1, to: 1, now: seen, seen: seen}); status != "ok" || at() != seen {
		t.Errorf("at the end: %s, position of %d, want %d", status, at(), seen)
	}
	if status := apply(batch{}, span{from: 1, to: 1, now: seen, seen: modelNow}); status != "ok" || at() != seen {
		t.Errorf("an older look: %s, position of %d, want %d", status, at(), seen)
	}
	if err := rdb.Del(ctx, tenantsKey(modelBucket, "5")).Err(); err != nil {
		t.Fatal(err)
	}
	if status := apply(batch{}, span{from: 1, to: 1, now: seen}); status != "damaged" {
		t.Errorf("names lost: %s, want damaged", status)
	}
	if status := apply(batch{}, span{from: 1, to: 1, now: seen}); status != "missing" {
		t.Errorf("after the damage: %s, want missing", status)
	}
}
