package deliver

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Of all that stands in lanes only the chunks of the highest ready epoch count,
// in whatever order zombies and compaction leave the records.
func TestLedger(t *testing.T) {
	now := time.UnixMilli(1700000000000).UTC()
	chunk := func(key string, offsets ...int64) *kgo.Record {
		return &kgo.Record{Key: []byte(key), Value: encodeChunk(&parked{tenant: "acme", firstAt: 50, offsets: offsets})}
	}
	gone := func(key string) *kgo.Record { return &kgo.Record{Key: []byte(key)} }
	ready := func(epoch int64) *kgo.Record {
		return &kgo.Record{Key: readyRecordKey(epoch), Value: ownerValue("w")}
	}
	for _, test := range []struct {
		name    string
		records []*kgo.Record
		want    map[string][]int64
		garbage []string
	}{
		{"nothing", nil, map[string][]int64{}, nil},
		{"never ready", []*kgo.Record{chunk("ep_a/1/1", 4)}, map[string][]int64{}, []string{"ep_a/1/1"}},
		{
			"two chunks, one offset in both",
			[]*kgo.Record{ready(1), chunk("ep_a/1/2", 9, 12), chunk("ep_a/1/1", 4, 9)},
			map[string][]int64{"ep_a": {4, 9, 12}},
			[]string{"ep_a/1/1", "ep_a/1/2", "ready/1"},
		},
		{
			"newer epoch not ready",
			[]*kgo.Record{ready(1), chunk("ep_a/1/1", 4), chunk("ep_a/9/1", 4, 5)},
			map[string][]int64{"ep_a": {4}},
			[]string{"ep_a/1/1", "ep_a/9/1", "ready/1"},
		},
		{
			"late ready of an older epoch",
			[]*kgo.Record{ready(9), chunk("ep_a/9/1", 4), ready(1), chunk("ep_a/1/1", 7)},
			map[string][]int64{"ep_a": {4}},
			[]string{"ep_a/1/1", "ep_a/9/1", "ready/1", "ready/9"},
		},
		{"tombstones", []*kgo.Record{ready(1), chunk("ep_a/1/1", 4), gone("ep_a/1/1")}, map[string][]int64{}, []string{"ready/1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLedger()
			for i, r := range test.records {
				r.Offset, r.Timestamp = int64(i), now
				l.apply(r)
			}
			s, err := l.estate(20, -1)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string][]int64{}
			for name, p := range s.chunks {
				got[name] = p.offsets
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("chunks (-want +got):\n%s", diff)
			}
			slices.Sort(s.garbage)
			if diff := cmp.Diff(test.garbage, s.garbage); diff != "" {
				t.Errorf("garbage (-want +got):\n%s", diff)
			}
		})
	}
}

// The chunks of the epoch that committed count, whatever is ready since.
func TestLedgerCommittedEpoch(t *testing.T) {
	l := newLedger()
	for i, key := range []string{"ready/1", "ep_a/1/1", "ready/9", "ep_a/9/1"} {
		l.apply(&kgo.Record{Key: []byte(key), Value: encodeChunk(&parked{tenant: "acme", offsets: []int64{int64(i)}})})
	}
	for epoch, want := range map[int64]int64{1: 1, 9: 3, -1: 3} {
		s, err := l.estate(20, epoch)
		if err != nil {
			t.Fatal(err)
		}
		if p := s.chunks["ep_a"]; p == nil || !slices.Equal(p.offsets, []int64{want}) || len(s.garbage) != 4 {
			t.Errorf("epoch %d: chunks %+v, want offset %d; garbage %v", epoch, p, want, s.garbage)
		}
	}
}

// What a commit says beside its offset, in this version's form and those before.
func TestCommitMetadata(t *testing.T) {
	at := func(number, epoch int64) committed { return committed{offset: 7, attempts: number, epoch: epoch} }
	for text, want := range map[string]committed{
		"12 34": at(12, 34), "0 0": at(0, 0), "12": at(12, -1), "": at(-1, -1), "a b": at(-1, -1), "a 3": at(-1, -1), "-1 -1": at(-1, -1), "5 x": at(5, -1),
	} {
		if got := newCommitted(7, text); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
	c := at(12, 34)
	if got := newCommitted(7, c.metadata()); got != c {
		t.Errorf("%q is read back as %+v", c.metadata(), got)
	}
	if got := newCommitted(-1, ""); got.offset != 0 {
		t.Errorf("no commit: %+v", got)
	}
}

// States and cancels are the newest of their key, until a tombstone. A chunk that
// can't be read stops the take-over: what it holds must not be forgotten.
func TestLedgerStates(t *testing.T) {
	l := newLedger()
	at := time.UnixMilli(1700000000000).UTC()
	put := func(key, value string) {
		r := &kgo.Record{Key: []byte(key), Timestamp: at}
		if value != "" {
			r.Value = []byte(value)
		}
		l.apply(r)
	}
	put("ep_a/state", `{"v":1,"hold_until":"2026-11-22T10:00:00Z"}`)
	put("ep_b/state", `{"v":1,"failing_since":"2026-11-20T10:00:00Z"}`)
	put("ep_b/state", "")
	put("ep_a/cancel/dlv_1", `{"v":1}`)
	put("ep_a/cancel/dlv_2", `{"v":1}`)
	put("ep_a/cancel/dlv_1", "")
	put("ep_b/cancel/dlv_3", `{"v":1}`)
	put("ep_a/cancel/dlv_3", "") // of another endpoint
	put("owner", `{"v":1}`)
	want := map[string]laneState{"ep_a": {Version: 1, Hold: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)}}
	if diff := cmp.Diff(want, l.states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	cancels := map[string]map[string]time.Time{"ep_a": {"dlv_2": at}, "ep_b": {"dlv_3": at}}
	if diff := cmp.Diff(cancels, l.cancels.of); diff != "" || l.cancels.open != 2 {
		t.Errorf("%d open cancels (-want +got):\n%s", l.cancels.open, diff)
	}
	put("ready/3", `{"v":1}`)
	put("ep_a/3/1", "\x01\xff")
	if _, err := l.estate(9, -1); err == nil {
		t.Error("an unreadable chunk was passed over")
	}
}
