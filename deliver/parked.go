package deliver

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// The first byte of a chunk is the version of its form. formatKeyed is that of
// an ordered endpoint: behind the offsets stand keys and retries.
const (
	formatChunk = 1
	formatKeyed = 2
)

var errChunk = errors.New("malformed chunk")

// retry is what a failed record of an ordered endpoint waits for in its place.
type retry struct {
	attempt int   // the next attempt's number
	due     int64 // Unix milliseconds, not before
}

// parked is what a chunk's record says: the offsets of some parked records of
// one endpoint, whose tenant that is, when the first record was appended and the oldest
// delivery made; of an ordered endpoint also the hash of each record's key, and
// what failed.
type parked struct {
	tenant  string
	firstAt int64 // Unix milliseconds
	madeAt  int64 // Unix milliseconds, 0 if it is not known
	offsets []int64
	keys    []uint32
	retries map[int]retry
}

// encodeChunk returns the value of a chunk: version, length of the tenant's id
// and the id, count, append time of the first record, first offset, then the
// distance of each offset from the one before; all numbers as unsigned varints.
// Offsets must rise. With keys, their hashes follow with 4 bytes each (little
// endian), then the number of retries and for each index, attempt and due time.
// Keys that say nothing (all 0, nothing failed) are left out. At the end stands when
// the oldest delivery was made, if that is known; older readers pass over it.
func encodeChunk(p *parked) []byte {
	out := make([]byte, 0, 16+len(p.tenant)+2*len(p.offsets)+4*len(p.keys)+12*len(p.retries))
	format := p.format()
	out = append(out, format)
	out = binary.AppendUvarint(out, uint64(len(p.tenant)))
	out = append(out, p.tenant...)
	out = binary.AppendUvarint(out, uint64(len(p.offsets)))
	out = binary.AppendUvarint(out, uint64(max(p.firstAt, 0)))
	last := int64(0)
	for _, o := range p.offsets {
		out = binary.AppendUvarint(out, uint64(o-last)) //nolint:gosec // offsets rise
		last = o
	}
	if format == formatKeyed {
		out = p.appendKeys(out)
	}
	if p.madeAt > 0 {
		out = binary.AppendUvarint(out, uint64(p.madeAt))
	}
	return out
}

// appendKeys appends what stands behind the offsets of an ordered endpoint.
func (p *parked) appendKeys(out []byte) []byte {
	for _, k := range p.keys {
		out = binary.LittleEndian.AppendUint32(out, k)
	}
	out = binary.AppendUvarint(out, uint64(len(p.retries)))
	for _, i := range slices.Sorted(maps.Keys(p.retries)) {
		r := p.retries[i]
		out = binary.AppendUvarint(out, uint64(i))         //nolint:gosec // an index
		out = binary.AppendUvarint(out, uint64(r.attempt)) //nolint:gosec // counts from 1
		out = binary.AppendUvarint(out, uint64(max(r.due, 0)))
	}
	return out
}

func (p *parked) format() byte {
	keyed := slices.ContainsFunc(p.keys, func(key uint32) bool { return key != 0 })
	if keyed || len(p.retries) > 0 {
		return formatKeyed
	}
	return formatChunk
}

// oldest returns when the oldest delivery was made, as far as that is known.
func (p *parked) oldest() int64 {
	if p.madeAt > 0 {
		return p.madeAt
	}
	return p.firstAt
}

// unkey forgets the keys that were kept while it was not known whether the lane
// is ordered.
func (p *parked) unkey() { clear(p.keys) }

// part returns the records from index from up to to as a chunk's content.
func (p *parked) part(from, to int) *parked {
	out := &parked{tenant: p.tenant, firstAt: p.firstAt, madeAt: p.madeAt, offsets: p.offsets[from:to]}
	if p.keys == nil {
		return out
	}
	out.keys = p.keys[from:to]
	for i, r := range p.retries {
		if i >= from && i < to {
			out.retry(i-from, r)
		}
	}
	return out
}

// retry notes that a record failed and waits in its place. Only the form with keys
// has room for that.
func (p *parked) retry(i int, r retry) {
	if p.retries == nil {
		p.retries = map[int]retry{}
	}
	p.retries[i] = r
	if p.keys == nil {
		p.keys = make([]uint32, len(p.offsets), cap(p.offsets))
	}
}

// add appends a record. Keys are kept if any record has one.
func (p *parked) add(r *parkedRecord) {
	p.offsets = append(p.offsets, r.offset)
	if r.keyed && p.keys == nil {
		p.keys = make([]uint32, len(p.offsets)-1, cap(p.offsets))
	}
	if p.keys != nil {
		p.keys = append(p.keys, r.key)
	}
	if r.retry != (retry{}) {
		p.retry(len(p.offsets)-1, r.retry)
	}
}

// records returns the content record by record.
func (p *parked) records() []parkedRecord {
	out := make([]parkedRecord, len(p.offsets))
	for i, o := range p.offsets {
		out[i] = parkedRecord{offset: o, retry: p.retries[i], keyed: p.keys != nil}
		if p.keys != nil {
			out[i].key = p.keys[i]
		}
	}
	return out
}

// parkedRecord is one parked record.
type parkedRecord struct {
	offset int64
	key    uint32
	keyed  bool
	retry  retry
	made   int64 // when the delivery was made, Unix milliseconds; 0 if that is not at hand
}

// gather joins the contents of chunks of one lane into one, by offset and each
// offset once. Of two that stand twice the one that failed more often is right.
func gather(parts []*parked) *parked {
	out := &parked{tenant: parts[0].tenant, firstAt: parts[0].firstAt, madeAt: parts[0].oldest()}
	ordered := false
	for _, p := range parts {
		out.firstAt, out.madeAt = min(out.firstAt, p.firstAt), min(out.madeAt, p.oldest())
		ordered = ordered || p.keys != nil
	}
	if ordered {
		var records []parkedRecord
		for _, p := range parts {
			records = append(records, p.records()...)
		}
		joined := inOrder(out.tenant, out.firstAt, records)
		joined.madeAt = out.madeAt
		return joined
	}
	for _, p := range parts {
		out.offsets = append(out.offsets, p.offsets...)
	}
	slices.Sort(out.offsets)
	out.offsets = slices.Compact(out.offsets)
	return out
}

// inOrder returns records as the content of chunks, by offset and each once.
func inOrder(tenant string, firstAt int64, records []parkedRecord) *parked {
	slices.SortFunc(records, func(a, b parkedRecord) int {
		return cmp.Or(cmp.Compare(a.offset, b.offset), cmp.Compare(b.retry.attempt, a.retry.attempt))
	})
	p := &parked{tenant: tenant, firstAt: firstAt, offsets: make([]int64, 0, len(records))}
	for i := range records {
		if made := records[i].made; made > 0 && (p.madeAt == 0 || made < p.madeAt) {
			p.madeAt = made
		}
		if n := len(p.offsets); n == 0 || records[i].offset != p.offsets[n-1] {
			p.add(&records[i])
		}
	}
	return p
}

// keep drops all records that fn does not want.
func (p *parked) keep(fn func(offset int64) bool) {
	n := 0
	var retries map[int]retry
	for i, o := range p.offsets {
		if !fn(o) {
			continue
		}
		p.offsets[n] = o
		if p.keys != nil {
			p.keys[n] = p.keys[i]
		}
		if r, ok := p.retries[i]; ok {
			if retries == nil {
				retries = map[int]retry{}
			}
			retries[n] = r
		}
		n++
	}
	p.offsets, p.retries = p.offsets[:n], retries
	if p.keys != nil {
		p.keys = p.keys[:n]
	}
}

// decodeChunk reads what encodeChunk wrote. A later version may add bytes
// behind what is known here.
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
	if value[0] >= formatKeyed {
		p.readKeys(in)
	}
	if in.err == nil && len(in.rest) > 0 {
		p.madeAt = int64(in.next()) //nolint:gosec // at most 1<<62
	}
	return p, in.err
}

// readKeys reads what stands behind the offsets of an ordered endpoint.
func (p *parked) readKeys(in *varints) {
	raw := in.bytes(4 * uint64(len(p.offsets)))
	p.keys = make([]uint32, 0, len(p.offsets))
	for ; len(raw) > 0; raw = raw[4:] {
		p.keys = append(p.keys, binary.LittleEndian.Uint32(raw))
	}
	for n := in.next(); n > 0 && in.err == nil; n-- {
		i, attempt, due := in.next(), in.next(), in.next()
		switch {
		case in.err != nil:
		case i >= uint64(len(p.offsets)) || attempt < 1 || attempt > 1<<30:
			in.err = fmt.Errorf("%w: retry %d of record %d", errChunk, attempt, i)
		default:
			p.retry(int(i), retry{int(attempt), int64(due)}) //nolint:gosec // within bounds
		}
	}
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
