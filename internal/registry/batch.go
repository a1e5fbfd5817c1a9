package registry

// batch is the part of a chunk of the log that concerns one bucket.
type batch struct {
	names   []string       // of hashes, each once
	index   map[string]int // name → 1-based place in names
	records []Record
	hash    []int // per record: its place in names
	judged  []bool
}

// batches sorts records into the buckets of their hashes. Records below the
// position of a bucket are left out; of those from judgeFrom on, prev is judged
// once, where control is the only one to write the entity.
func batches(records []Record, positions *[Buckets]position, judgeFrom int64) *[Buckets]batch {
	var out [Buckets]batch
	for _, r := range records {
		judged := r.Offset >= judgeFrom && r.Prev != PrevUnknown && !isHealth(r.Entity) && !isReport(r.Entity)
		for i, name := range hashesOf(r.Tenant, r.Entity) {
			if bucket := bucketOf(name); r.Offset >= positions[bucket].next {
				out[bucket].add(name, r, judged && i == 0)
			}
		}
	}
	return &out
}

func (b *batch) add(name string, r Record, judged bool) {
	place, ok := b.index[name]
	if !ok {
		if b.index == nil {
			b.index = map[string]int{}
		}
		b.names = append(b.names, name)
		place = len(b.names)
		b.index[name] = place
	}
	b.records = append(b.records, r)
	b.hash = append(b.hash, place)
	b.judged = append(b.judged, judged)
}

// span is what an apply moves a marker over, and when.
type span struct {
	from, to int64
	seen     int64 // ms; to was the log's end then, or 0
	now      int64 // ms
	limit    int64 // ms; the age at which a position is too old
}

// call returns the call of apply.lua for a bucket.
func (b *batch) call(bucket int, topic, generation string, s span) call {
	c := call{keys: []string{markerKey(bucket), tenantsKey(bucket, generation)}}
	c.args = append(c.args, topic, generation, s.from, s.to, s.seen, s.now, s.limit)
	for _, name := range b.names {
		c.keys = append(c.keys, hashKey(bucket, generation, name))
		c.args = append(c.args, name)
	}
	for i, r := range b.records {
		state, prev := "", ""
		if r.Value != nil {
			state = formatInt(r.Offset) + " " + string(r.Value)
		}
		if b.judged[i] {
			prev = formatInt(r.Prev)
		}
		c.args = append(c.args, b.hash[i], r.Entity, r.Offset, state, prev)
	}
	return c
}
