package deliver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// chunkSize is how many offsets one chunk holds at most.
const chunkSize = 4096

// Names of the records in the topic lanes. A chunk stands under
// "<endpoint>/<epoch>/<n>", an endpoint's state under "<endpoint>/state", a
// cancel under "<endpoint>/cancel/<delivery>" (written by control). The owner's
// record stands under "owner", that its epoch counts under "ready/<epoch>".
const (
	ownerKey    = "owner"
	readyPrefix = "ready/"
	stateSuffix = "/state"
	cancelInfix = "/cancel/"
)

// formatChunk is the first byte of a chunk: the version of its form.
const formatChunk = 1

var errChunk = errors.New("malformed chunk")

// chunk is a run of parked offsets of one endpoint, as it stands in the topic
// lanes, with what was finished of it since.
type chunk struct {
	number  int64
	firstAt int64  // append time of the first record, Unix milliseconds
	body    []byte // encoded offsets, as in Kafka
	count   int    // offsets in body
	first   int64
	last    int64

	// What follows is set while the chunk is drained.
	offsets  []int64  // decoded body
	finished []uint64 // bitmap over offsets
	taken    []uint64 // bitmap of the offsets that were read and not dropped
	done     int      // finished offsets, also the sequence of completions
	safe     int      // completions that the chunk's record in Kafka reflects
	writing  bool     // a rewrite or tombstone is on its way
	gone     bool     // the tombstone is acknowledged
}

// parked is what a chunk's record says: the offsets of some parked records of
// one endpoint, whose tenant that is, and when the first record was appended.
type parked struct {
	tenant  string
	firstAt int64 // Unix milliseconds
	offsets []int64
}

// encodeChunk returns the value of a chunk: version, length of the tenant's id
// and the id, count, append time of the first record, first offset, then the
// distance of each offset from the one before; all numbers as unsigned varints.
// Offsets must rise.
func encodeChunk(tenant string, offsets []int64, firstAt int64) []byte {
	out := make([]byte, 0, 16+len(tenant)+2*len(offsets))
	out = append(out, formatChunk)
	out = binary.AppendUvarint(out, uint64(len(tenant)))
	out = append(out, tenant...)
	out = binary.AppendUvarint(out, uint64(len(offsets)))
	out = binary.AppendUvarint(out, uint64(max(firstAt, 0)))
	last := int64(0)
	for _, o := range offsets {
		out = binary.AppendUvarint(out, uint64(o-last)) //nolint:gosec // offsets rise
		last = o
	}
	return out
}

// decodeChunk reads what encodeChunk wrote. A later version may add bytes
// behind the offsets.
func decodeChunk(value []byte) (parked, error) {
	if len(value) == 0 || value[0] < formatChunk {
		return parked{}, fmt.Errorf("%w: no version", errChunk)
	}
	in := &varints{rest: value[1:]}
	var p parked
	p.tenant = string(in.bytes(in.next()))
	count := in.next()
	p.firstAt = int64(in.next()) //nolint:gosec // at most 1<<62
	if in.err == nil && (count > chunkSize || count > uint64(len(in.rest))) {
		in.err = fmt.Errorf("%w: %d offsets in %d bytes", errChunk, count, len(in.rest))
	}
	if in.err != nil {
		return parked{}, in.err
	}
	p.offsets = make([]int64, 0, count)
	last := int64(0)
	for i := range count {
		delta := in.next()
		if last += int64(delta); in.err == nil && (last < 0 || i > 0 && delta == 0) { //nolint:gosec // at most 1<<62
			in.err = fmt.Errorf("%w: offsets do not rise", errChunk)
		}
		if in.err != nil {
			return parked{}, in.err
		}
		p.offsets = append(p.offsets, last)
	}
	return p, nil
}

// varints reads unsigned varints and bytes until the first fault.
type varints struct {
	rest []byte
	err  error
}

func (v *varints) next() uint64 {
	n, size := binary.Uvarint(v.rest)
	if v.err == nil && (size <= 0 || n > 1<<62) {
		v.err = fmt.Errorf("%w: bad number %d bytes before the end", errChunk, len(v.rest))
	}
	if v.err != nil {
		return 0
	}
	v.rest = v.rest[size:]
	return n
}

func (v *varints) bytes(n uint64) []byte {
	if v.err == nil && n > uint64(len(v.rest)) {
		v.err = fmt.Errorf("%w: %d bytes announced, %d there", errChunk, n, len(v.rest))
	}
	if v.err != nil {
		return nil
	}
	out := v.rest[:n]
	v.rest = v.rest[n:]
	return out
}

// newChunk returns a chunk of rising offsets, at most chunkSize.
func newChunk(tenant string, number int64, offsets []int64, firstAt int64) *chunk {
	return &chunk{
		number: number, firstAt: firstAt, body: encodeChunk(tenant, offsets, firstAt),
		count: len(offsets), first: offsets[0], last: offsets[len(offsets)-1],
	}
}

// open decodes the chunk for draining.
func (c *chunk) open() {
	if c.offsets == nil {
		// The body is our own encoding, or was decoded once when it was loaded.
		p, _ := decodeChunk(c.body)
		c.offsets = p.offsets
		c.finished = make([]uint64, (len(c.offsets)+63)/64)
		c.taken = make([]uint64, (len(c.offsets)+63)/64)
	}
}

// take notes that the offset at index i was read, release that it was dropped
// unattempted and must be read again.
func (c *chunk) take(i int)    { c.taken[i>>6] |= 1 << uint(i&63) }
func (c *chunk) release(i int) { c.taken[i>>6] &^= 1 << uint(i&63) }

// spoken reports whether the offset at index i is finished or about to be.
func (c *chunk) spoken(i int) bool {
	return (c.finished[i>>6]|c.taken[i>>6])&(1<<uint(i&63)) != 0
}

// finish notes that the offset at index i is handled and returns the sequence
// number of that completion.
func (c *chunk) finish(i int) int {
	if c.finished[i>>6]&(1<<uint(i&63)) == 0 {
		c.finished[i>>6] |= 1 << uint(i&63)
		c.done++
	}
	return c.done
}

// finishAll notes that all offsets are handled.
func (c *chunk) finishAll() int {
	for i := range c.offsets {
		c.finish(i)
	}
	return c.done
}

// isFinished reports whether the offset at index i is handled.
func (c *chunk) isFinished(i int) bool { return c.finished[i>>6]&(1<<uint(i&63)) != 0 }

// left returns the offsets that are not finished.
func (c *chunk) left() []int64 {
	c.open()
	out := make([]int64, 0, len(c.offsets)-c.done)
	for i, o := range c.offsets {
		if !c.isFinished(i) {
			out = append(out, o)
		}
	}
	return out
}

// chunkKey returns the key of a chunk's record.
func chunkKey(endpoint string, epoch, number int64) []byte {
	return []byte(endpoint + "/" + strconv.FormatInt(epoch, 10) + "/" + strconv.FormatInt(number, 10))
}

// parseChunkKey reads what chunkKey wrote.
func parseChunkKey(key string) (endpoint string, epoch, number int64, ok bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 3 || parts[0] == "" {
		return "", 0, 0, false
	}
	epoch, err1 := strconv.ParseInt(parts[1], 10, 64)
	number, err2 := strconv.ParseInt(parts[2], 10, 64)
	return parts[0], epoch, number, err1 == nil && err2 == nil && epoch >= 0 && number >= 0
}

// pack turns rising offsets into as few chunks as possible; next gives each its
// number.
func pack(tenant string, offsets []int64, firstAt int64, next func() int64) []*chunk {
	var out []*chunk
	for part := range slices.Chunk(offsets, chunkSize) {
		out = append(out, newChunk(tenant, next(), part, firstAt))
	}
	return out
}
