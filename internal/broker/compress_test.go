package broker

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Whatever is written is read back, and unpacks to at most 22 times its size.
func TestCompressionIsBounded(t *testing.T) {
	c, err := newBoundedCompressor()
	if err != nil {
		t.Fatal(err)
	}
	unpack := kgo.DefaultDecompressor()
	noise := make([]byte, 1<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	for name, test := range map[string]struct {
		src  []byte
		want kgo.CompressionCodecType
	}{
		"a megabyte of zeros":    {make([]byte, 1<<20), kgo.CodecSnappy},
		"one text over and over": {[]byte(strings.Repeat(`{"type":"order.paid","data":{"total":120}}`, 20_000)), kgo.CodecSnappy},
		"events":                 {events(random, 2000), kgo.CodecZstd},
		"noise":                  {noise, kgo.CodecZstd},
		"little":                 {[]byte("x"), kgo.CodecZstd},
	} {
		t.Run(name, func(t *testing.T) {
			var dst bytes.Buffer
			out, codec := c.Compress(&dst, test.src)
			if codec != test.want || len(test.src) > 22*len(out) {
				t.Errorf("%d bytes became %d with codec %d, want codec %d", len(test.src), len(out), codec, test.want)
			}
			if back, err := unpack.Decompress(out, codec); err != nil || !bytes.Equal(back, test.src) {
				t.Errorf("%d bytes came back of %d: %v", len(back), len(test.src), err)
			}
		})
	}
}

// events returns events that differ as real ones do.
func events(random *rand.Rand, n int) []byte {
	var out bytes.Buffer
	for range n {
		out.WriteString(`{"id":"` + hex(random, 32) + `","type":"order.paid","data":{"total":` + hex(random, 3) + `,"customer":"` + hex(random, 12) + `"}}`)
	}
	return out.Bytes()
}

func hex(random *rand.Rand, n int) string {
	out := make([]byte, n)
	for i := range out {
		out[i] = "0123456789abcdef"[random.IntN(16)]
	}
	return string(out)
}
