package broker

import (
	"encoding/binary"

	"github.com/klauspost/compress/zstd"
)

const (
	batchAttributesAt = 21
	codecMask         = 7 // of the attributes
	codecZstd         = 4
	// guessedRatio stands for the ratio of a batch that does not say how large it
	// is when unpacked.
	guessedRatio = 8
)

// cutBatches returns the first of some raw batches: as many as unpack to about
// limit bytes from an offset on, and at least one of them. Records that are much
// alike are packed to a twentieth, so that an answer of 1 MiB may be 20 MiB.
//
// The rest is cut off before anything is unpacked, since a list of aborted
// transactions counts from the beginning of its answer.
func cutBatches(raw []byte, offset int64, limit int) []byte {
	size, rest := 0, raw
	for len(rest) >= batchHeader {
		end := int64(batchPrefix) + int64(int32(binary.BigEndian.Uint32(rest[batchLengthAt:]))) //nolint:gosec // signed on the wire
		if rest[batchMagicAt] != 2 || end < batchHeader || end > int64(len(rest)) {
			return raw // an older format, or incomplete: not judged here
		}
		b := rest[:end]
		rest = rest[end:]
		if _, last, err := batchAt(b, 0); err == nil && last < offset {
			continue
		}
		if size += unpackedSize(b); size >= limit {
			return raw[:len(raw)-len(rest)]
		}
	}
	return raw
}

// unpackedSize returns how large the records of a batch are, about.
func unpackedSize(batch []byte) int {
	records := batch[batchHeader:]
	switch binary.BigEndian.Uint16(batch[batchAttributesAt:]) & codecMask {
	case 0:
		return len(records)
	case codecZstd:
		var head zstd.Header
		if head.Decode(records) == nil && head.HasFCS {
			return int(min(head.FrameContentSize, MaxBatchBytes))
		}
	}
	return guessedRatio * len(records)
}
