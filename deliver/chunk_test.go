package deliver

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func risingOffsets(t *rapid.T, most int) []int64 {
	offsets := make([]int64, rapid.IntRange(1, most).Draw(t, "count"))
	at := rapid.Int64Range(0, 1<<50).Draw(t, "first")
	for i := range offsets {
		offsets[i] = at
		at += rapid.Int64Range(1, 1<<20).Draw(t, "gap")
	}
	return offsets
}

// What is parked is read back as it was, in chunks of a bounded size.
func TestChunkRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		offsets := risingOffsets(t, 2*chunkSize+10)
		var number int64
		var got []int64
		for _, c := range pack(&parked{tenant: "acme", firstAt: 1234, offsets: offsets}, func() int64 { number++; return number }) {
			p, err := decodeChunk(c.body)
			if err != nil {
				t.Fatal(err)
			}
			if p.tenant != "acme" || p.firstAt != 1234 || len(p.offsets) > chunkSize || c.first != p.offsets[0] || c.number != number && c.last > offsets[len(offsets)-1] {
				t.Fatalf("chunk %+v", p)
			}
			got = append(got, p.offsets...)
		}
		if !slices.Equal(got, offsets) {
			t.Fatalf("%d offsets came back of %d", len(got), len(offsets))
		}
	})
}

// Keys are written only in the chunks whose records have any.
func TestPackKeys(t *testing.T) {
	plain := &parked{tenant: "acme"}
	for offset := range int64(2 * chunkSize) {
		plain.offsets = append(plain.offsets, offset)
	}
	keyed := &parked{tenant: "acme", offsets: []int64{2 * chunkSize}, keys: []uint32{7}}
	var formats []byte
	for _, c := range pack(gather([]*parked{plain, keyed}), func() int64 { return 1 }) {
		formats = append(formats, c.body[0])
	}
	if want := []byte{formatChunk, formatChunk, formatKeyed}; !bytes.Equal(formats, want) {
		t.Errorf("formats %v, want %v", formats, want)
	}
}

// The bytes of a chunk are a contract with the versions before.
func TestChunkGolden(t *testing.T) {
	got := encodeChunk(&parked{tenant: "acme", firstAt: 1700000000000, offsets: []int64{300, 301, 1000}})
	want := []byte{1, 4, 'a', 'c', 'm', 'e', 3, 0x80, 0xd0, 0x95, 0xff, 0xbc, 0x31, 0xac, 0x02, 1, 0xbb, 0x05}
	if !bytes.Equal(got, want) {
		t.Errorf("chunk % x, want % x", got, want)
	}
	keys := []string{
		string(chunkKey("ep_1", 5, 7)), string(readyRecordKey(5)), ownerKey, "ep_1" + stateSuffix, "ep_1" + cancelInfix + "dlv_1",
		string(ownerValue("w1")),
	}
	if diff := cmp.Diff([]string{"ep_1/5/7", "ready/5", "owner", "ep_1/state", "ep_1/cancel/dlv_1", `{"v":1,"instance":"w1"}`}, keys); diff != "" {
		t.Errorf("records of lanes (-want +got):\n%s", diff)
	}
}

// No bytes make the decoder panic, take much memory, or yield offsets that don't
// rise; what it accepts is read the same after it is written again.
func FuzzDecodeChunk(f *testing.F) {
	f.Add(encodeChunk(&parked{tenant: "acme", firstAt: 77, offsets: []int64{1, 2, 9}}))
	f.Add([]byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0})
	f.Add([]byte{1, 0xff})
	f.Fuzz(func(t *testing.T, value []byte) {
		p, err := decodeChunk(value)
		if err != nil {
			return
		}
		if len(p.offsets) > chunkSize || !slices.IsSorted(p.offsets) {
			t.Fatalf("offsets %v", p.offsets)
		}
		again, err := decodeChunk(encodeChunk(&p))
		if err != nil || !slices.Equal(again.offsets, p.offsets) || again.tenant != p.tenant || again.firstAt != p.firstAt {
			t.Fatalf("%+v became %+v, %v", p, again, err)
		}
	})
}

// A chunk knows what is left of it.
func TestChunkLeft(t *testing.T) {
	c := newChunk(1, &parked{tenant: "acme", offsets: []int64{3, 5, 9, 11}})
	c.open()
	if c.finish(1) != 1 || c.finish(3) != 2 || c.finish(3) != 2 {
		t.Error("completions are not counted once")
	}
	if diff := cmp.Diff([]int64{3, 9}, c.left("acme").offsets); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if c.take(0); !c.spoken(0) || !c.spoken(1) || c.spoken(2) {
		t.Error("spoken is not finished or taken")
	}
	if c.finishAll() != 4 || len(c.left("acme").offsets) != 0 {
		t.Error("not all finished")
	}
}

// The number of a commit is never above a completion that a restart would make
// again: above the watermark, or in a chunk whose record does not know it.
func TestCompletionLogLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var log completionLog
		var all []completion
		c := newChunk(1, &parked{tenant: "acme", offsets: []int64{1, 2, 3, 4, 5, 6, 7, 8}})
		c.open()
		next := int64(0)
		watermark := int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				item := completion{attempts: next, offset: rapid.Int64Range(0, 50).Draw(t, "offset")}
				if rapid.Bool().Draw(t, "parked") {
					item.chunk, item.sequence = c, c.finish(rapid.IntRange(0, 7).Draw(t, "index"))
				}
				log.push(item)
				all = append(all, item)
				next += rapid.Int64Range(1, 3).Draw(t, "foreign")
			case 1:
				c.safe = c.done
			case 2:
				watermark += rapid.Int64Range(0, 10).Draw(t, "moved")
			case 3:
				c.gone = c.done == 8
			}
			number := log.settle(watermark, next)
			for _, item := range all {
				open := item.offset >= watermark || item.chunk != nil && !item.chunk.gone && item.sequence > item.chunk.safe
				if open && number > item.attempts {
					t.Fatalf("number %d is above the open completion %+v", number, item)
				}
			}
		}
		if c.gone = true; log.settle(1<<40, next) != next {
			t.Fatal("nothing is open, but the number is not the next offset")
		}
	})
}
