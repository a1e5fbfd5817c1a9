package broker

import (
	"container/list"
	"context"
	"errors"
	"sort"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// maxCachedBatches bounds the batches of a [BatchCache], however small.
	maxCachedBatches = 4096
	// recordOverhead is about what a record takes beside its key, value and headers.
	recordOverhead = 256
)

// BatchCache keeps batches that were read one record at a time, those used last: the
// batch of one record is also that of its neighbours. It is safe for concurrent use;
// no lock is held while Kafka is asked.
type BatchCache struct {
	read     func(ctx context.Context, topic string, partition int32, offset int64) (Slice, error)
	maxBytes int
	life     time.Duration

	mu    sync.Mutex
	parts map[place][]*list.Element // by first offset; none overlap
	order *list.List                // of *keptBatch, the one used last in front
	bytes int
}

type place struct {
	topic     string
	partition int32
}

// keptBatch is a batch in memory: the committed records of [first, next).
type keptBatch struct {
	place
	first, next int64
	records     []*kgo.Record
	bytes       int
	until       time.Time
}

// NewBatchCache returns a cache over the reader for at most maxBytes of unpacked
// records. A batch is kept for that long at most: so long a record that Kafka has
// deleted since may still be found.
func NewBatchCache(r *PointReader, maxBytes int, life time.Duration) *BatchCache {
	return &BatchCache{read: r.ReadBatch, maxBytes: maxBytes, life: life, parts: map[place][]*list.Element{}, order: list.New()}
}

// Cached returns the record at an offset if its batch is in memory; nil is one that
// is not there: a marker, or a record that was never committed.
func (c *BatchCache) Cached(topic string, partition int32, offset int64) (r *kgo.Record, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := place{topic, partition}
	i := c.behind(at, offset) - 1
	if i < 0 {
		return nil, false
	}
	e := c.parts[at][i]
	b := kept(e)
	switch {
	case b.next <= offset:
		return nil, false
	case !time.Now().Before(b.until):
		c.remove(e)
		return nil, false
	}
	c.order.MoveToFront(e)
	return b.record(offset), true
}

// Record returns the record at an offset, from memory or from Kafka; nil is one that
// is not there: deleted, above the end, a marker, or never committed. It blocks for
// as long as [PointReader.Read].
func (c *BatchCache) Record(ctx context.Context, topic string, partition int32, offset int64) (*kgo.Record, error) {
	if r, found := c.Cached(topic, partition, offset); found {
		return r, nil
	}
	s, err := c.read(ctx, topic, partition, offset)
	if errors.Is(err, kerr.OffsetOutOfRange) {
		return nil, nil //nolint:nilnil // no record is an answer
	}
	if err != nil {
		return nil, err
	}
	b := newKept(place{topic, partition}, offset, s)
	b.until = time.Now().Add(c.life)
	c.keep(b)
	return b.record(offset), nil
}

// newKept takes up what was read for an offset: from its first record on, or from
// the offset itself if that comes first, but nothing below the log's start.
func newKept(at place, offset int64, s Slice) *keptBatch {
	b := &keptBatch{place: at, first: offset, next: max(s.Next, offset), bytes: recordOverhead}
	for _, r := range s.Records {
		if r.Offset < s.LogStart {
			continue
		}
		b.first = min(b.first, r.Offset)
		b.records = append(b.records, r)
		b.bytes += recordOverhead + len(r.Key) + len(r.Value)
		for _, h := range r.Headers {
			b.bytes += recordOverhead/4 + len(h.Key) + len(h.Value)
		}
	}
	return b
}

func (b *keptBatch) record(offset int64) *kgo.Record {
	i := sort.Search(len(b.records), func(i int) bool { return b.records[i].Offset >= offset })
	if i == len(b.records) || b.records[i].Offset != offset {
		return nil
	}
	return b.records[i]
}

// keep takes the place of what it overlaps, and of what was not used for longest. A
// batch above half of the bound is not kept, nor is one without an end.
func (c *BatchCache) keep(b *keptBatch) {
	if b.bytes > c.maxBytes/2 || b.next == b.first {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := c.behind(b.place, b.next-1) - 1; i >= 0; i-- {
		e := c.parts[b.place][i]
		if kept(e).next <= b.first {
			break
		}
		c.remove(e)
	}
	for c.order.Len() > 0 && (c.bytes+b.bytes > c.maxBytes || c.order.Len() >= maxCachedBatches) {
		c.remove(c.order.Back())
	}
	i := c.behind(b.place, b.first)
	list := c.parts[b.place]
	list = append(list, nil)
	copy(list[i+1:], list[i:])
	list[i] = c.order.PushFront(b)
	c.parts[b.place] = list
	c.bytes += b.bytes
}

// behind returns the index of the first batch that begins above an offset.
func (c *BatchCache) behind(at place, offset int64) int {
	list := c.parts[at]
	return sort.Search(len(list), func(i int) bool { return kept(list[i]).first > offset })
}

func (c *BatchCache) remove(e *list.Element) {
	b := kept(e)
	i := c.behind(b.place, b.first) - 1
	list := c.parts[b.place]
	copy(list[i:], list[i+1:])
	list[len(list)-1] = nil
	if c.parts[b.place] = list[:len(list)-1]; len(list) == 1 {
		delete(c.parts, b.place)
	}
	c.order.Remove(e)
	c.bytes -= b.bytes
}

func kept(e *list.Element) *keptBatch { return e.Value.(*keptBatch) }
