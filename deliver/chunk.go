package deliver

import (
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

// chunk is a run of parked offsets of one endpoint, as it stands in the topic
// lanes, with what was finished of it since.
type chunk struct {
	number  int64
	firstAt int64  // append time of the first record, Unix milliseconds
	madeAt  int64  // no delivery of what waits in it was made before, Unix milliseconds
	body    []byte // encoded offsets, as in Kafka
	count   int    // offsets in body
	first   int64
	last    int64

	// What follows is set while the chunk is drained.
	offsets  []int64       // decoded body
	keys     []uint32      // nil where the endpoint was not ordered
	retries  map[int]retry // by index: failed, waits in its place
	finished []uint64      // bitmap over offsets
	taken    []uint64      // bitmap of the offsets that were read and not dropped
	made     []uint32      // when each delivery was made, where a visit found that out; Unix seconds
	cursor   int           // how many of them an ordered lane has looked at
	done     int           // finished offsets
	changes  int           // completions, and failures that left their record in its place
	safe     int           // changes that the chunk's record in Kafka reflects
	writing  bool          // a rewrite or tombstone is on its way
	gone     bool          // the tombstone is acknowledged
}

// newChunk returns a chunk of rising offsets, at most chunkSize.
func newChunk(number int64, p *parked) *chunk {
	return &chunk{
		number: number, firstAt: p.firstAt, madeAt: p.oldest(), body: encodeChunk(p),
		count: len(p.offsets), first: p.offsets[0], last: p.offsets[len(p.offsets)-1],
	}
}

// open decodes the chunk for draining.
func (c *chunk) open() {
	if c.offsets == nil {
		// The body is our own encoding, or was decoded once when it was loaded.
		p, _ := decodeChunk(c.body)
		c.offsets, c.keys, c.retries = p.offsets, p.keys, p.retries
		c.finished = make([]uint64, (len(c.offsets)+63)/64)
		c.taken = make([]uint64, (len(c.offsets)+63)/64)
	}
}

// close forgets what open has decoded. Nothing may have been taken out.
func (c *chunk) close() { c.offsets, c.keys, c.retries, c.finished, c.taken = nil, nil, nil, nil, nil }

// next returns the lowest offset that an ordered lane has not looked at; there
// must be one.
func (c *chunk) next() int64 {
	if c.offsets == nil {
		return c.first
	}
	return c.offsets[c.cursor]
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
		c.changes++
	}
	return c.changes
}

// finishAll notes that all offsets are handled.
func (c *chunk) finishAll() int {
	for i := range c.offsets {
		c.finish(i)
	}
	return c.changes
}

// fail notes that the record at index i failed and waits in its place, and
// returns the sequence number of that change.
func (c *chunk) fail(i int, r retry) int {
	if c.retries == nil {
		c.retries = map[int]retry{}
	}
	c.retries[i] = r
	c.changes++
	return c.changes
}

// key returns the key hash of the record at index i.
func (c *chunk) key(i int) uint32 {
	if c.keys == nil {
		return 0
	}
	return c.keys[i]
}

// isFinished reports whether the offset at index i is handled.
func (c *chunk) isFinished(i int) bool { return c.finished[i>>6]&(1<<uint(i&63)) != 0 }

// left returns what is not finished.
func (c *chunk) left(tenant string) *parked {
	c.open()
	out := &parked{tenant: tenant, firstAt: c.firstAt, madeAt: c.madeAt, offsets: make([]int64, 0, len(c.offsets)-c.done)}
	for i, o := range c.offsets {
		if !c.isFinished(i) {
			out.add(&parkedRecord{offset: o, key: c.key(i), keyed: c.keys != nil, retry: c.retries[i]})
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
func pack(p *parked, next func() int64) []*chunk {
	var out []*chunk
	for from := 0; from < len(p.offsets); from += chunkSize {
		out = append(out, newChunk(next(), p.part(from, min(from+chunkSize, len(p.offsets)))))
	}
	return out
}
