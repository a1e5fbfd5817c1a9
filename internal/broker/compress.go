package broker

import (
	"bytes"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// maxRatio is how many times smaller than its records a batch of ours may be. A
// reader bounds what it fetches in compressed bytes: a megabyte of zeros is some
// 250 bytes with zstd, so a fetch of 8 MiB could unpack to tens of gigabytes.
const maxRatio = 20

// boundedCompressor compresses with zstd, and with snappy, which never packs more
// than some 21 to 1, what zstd would make smaller than that.
type boundedCompressor struct{ zstd, snappy kgo.Compressor }

func newBoundedCompressor() (kgo.Compressor, error) {
	zstd, err := kgo.DefaultCompressor(kgo.ZstdCompression())
	if err != nil {
		return nil, fmt.Errorf("make a compressor: %w", err)
	}
	snappy, err := kgo.DefaultCompressor(kgo.SnappyCompression())
	if err != nil {
		return nil, fmt.Errorf("make a compressor: %w", err)
	}
	return boundedCompressor{zstd, snappy}, nil
}

// Compress implements the client's interface.
func (c boundedCompressor) Compress(dst *bytes.Buffer, src []byte, flags ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	out, codec := c.zstd.Compress(dst, src, flags...)
	if codec == kgo.CodecError || len(src) <= maxRatio*len(out) {
		return out, codec
	}
	dst.Reset()
	return c.snappy.Compress(dst, src, flags...)
}
