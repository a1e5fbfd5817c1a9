package broker

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A read unpacks about as much as was asked for, however well it is packed, and
// goes on where it stopped.
func TestPointReaderUnpacksLittle(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		ensured(t, c)
		topic, big := c.Topics().Deliveries, strings.Repeat("x", 100_000)
		cl := client(t, c, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.WithCompressor(nil))
		for _, first := range []string{"0", "1", "2", "3", "4"} {
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(first + big)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		r := pointReader(t, c)
		var runs []int
		for next := int64(0); next < 5; {
			s, err := r.Read(t.Context(), topic, 0, next, 150_000)
			if err != nil {
				t.Fatal(err)
			}
			for i, rec := range s.Records {
				if want := next + int64(i); rec.Offset != want || rec.Value[0] != byte('0'+want) {
					t.Fatalf("record %d at %d has offset %d and begins with %q", i, next, rec.Offset, rec.Value[:1])
				}
			}
			if s.Next != next+int64(len(s.Records)) || s.Next == next {
				t.Fatalf("read at %d: %d records, goes on at %d", next, len(s.Records), s.Next)
			}
			runs, next = append(runs, len(s.Records)), s.Next
		}
		if len(runs) != 3 || runs[0] != 2 {
			t.Errorf("reads brought %v records, want two at a time", runs)
		}
	})
}

// Batches that end before the offset don't count, nor does what is no whole batch
// of format 2.
func TestCutBatches(t *testing.T) {
	t.Parallel()
	batch := func(first int64) []byte { // of 10 offsets and 1,000 bytes that are not packed
		return append(header(first, 9, batchHeader-batchPrefix+1000, 2), make([]byte, 1000)...)
	}
	three := append(append(batch(0), batch(10)...), batch(20)...)
	one := len(batch(0))
	for _, tt := range []struct {
		name   string
		raw    []byte
		offset int64
		limit  int
		want   int
	}{
		{"first", three, 0, 1, one},
		{"two", three, 0, 1001, 2 * one},
		{"inside the second", three, 15, 1, 2 * one},
		{"all", three, 0, 1 << 20, 3 * one},
		{"cut short", three[:one+100], 0, 1 << 20, one + 100},
		{"cut short, enough before", three[:one+100], 0, 1, one},
		{"old format", header(0, 0, 100, 1), 0, 1, batchHeader},
		{"negative length", header(0, 0, -5, 2), 0, 1, batchHeader},
		{"empty", nil, 0, 1, 0},
	} {
		if got := len(cutBatches(tt.raw, tt.offset, tt.limit)); got != tt.want {
			t.Errorf("%s: %d bytes, want %d", tt.name, got, tt.want)
		}
	}
}

func FuzzCutBatches(f *testing.F) {
	f.Add(header(10, 4, batchHeader-batchPrefix, 2), int64(10), 1)
	f.Add(header(-1, -5, -1, 2), int64(0), 100)
	f.Fuzz(func(t *testing.T, raw []byte, offset int64, limit int) {
		if got := cutBatches(raw, offset, limit); len(got) > len(raw) || len(raw) > 0 && len(got) == 0 {
			t.Errorf("%d bytes of %d", len(got), len(raw))
		}
	})
}
