package fanout

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/schemas"
)

const (
	// batchOverhead is what a batch of one record takes beside the record, in
	// bytes, rounded up.
	batchOverhead = 1 << 10
	// recordOverhead is the same for a record beside keys, values and headers,
	// and headerOverhead for a header.
	recordOverhead = 64
	headerOverhead = 4
)

// outbox collects the records of one transaction and keeps count. It is reused.
type outbox struct {
	topics  broker.Topics
	layout  broker.Layout
	maxSize int
	now     time.Time
	turn    int32 // spreads what has no partition of its own

	records []*kgo.Record
	// origins holds the record that each of records came of, nil for a batch that
	// could not be read.
	origins    []*kgo.Record
	bytes      int
	deliveries int
	pages      int
	ordered    load           // what went beyond the aims because it has an order
	wanted     load           // what the batch asked for, pages included
	results    map[string]int // events by result
	withheld   withheld
}

// withheld counts what did not become a delivery although its type matched:
// endpoints that are disabled, and subscriptions whose filter said no or failed.
type withheld struct{ disabled, filtered, failed int }

func (o *outbox) reset(now time.Time) {
	clear(o.records)
	clear(o.origins)
	clear(o.results)
	o.records, o.origins, o.now = o.records[:0], o.origins[:0], now
	o.bytes, o.deliveries, o.pages, o.ordered, o.wanted, o.withheld = 0, 0, 0, load{}, load{}, withheld{}
	o.turn++
}

// add appends a record; its size is in bytes.
func (o *outbox) add(rec, origin *kgo.Record, size int) {
	o.records = append(o.records, rec)
	o.origins = append(o.origins, origin)
	o.bytes += size
}

// mark remembers how full the outbox is, for rollback.
type mark struct{ records, bytes, deliveries, pages int }

func (o *outbox) mark() mark { return mark{len(o.records), o.bytes, o.deliveries, o.pages} }

// rollback takes out what was appended since the mark.
func (o *outbox) rollback(m mark) {
	o.records, o.origins = o.records[:m.records], o.origins[:m.records]
	o.bytes, o.deliveries, o.pages = m.bytes, m.deliveries, m.pages
}

// fits reports whether n more deliveries of that size stay within the aims of one
// transaction.
func (o *outbox) fits(n, size int) bool {
	return o.deliveries+n <= aimDeliveries && o.bytes+n*size <= aimBytes
}

// admits reports whether n more deliveries that must not wait in a page are within
// bounds: beside the aims as much again, or the deliveries of one event.
func (o *outbox) admits(n, size int) bool {
	have := o.ordered
	return n == 0 || have.deliveries == 0 || have.deliveries+n <= aimDeliveries && have.bytes+n*size <= aimBytes
}

// placeholder stands for the delivery id in a template.
const placeholder = "dlv_?"

// template is what all deliveries of one event have in common. Their records
// share the value and all headers but one.
type template struct {
	origin   *kgo.Record
	delivery schemas.Delivery // without endpoint and id
	headers  []kgo.RecordHeader
	id       int // index of the header that holds the delivery id
	size     int // of one record with a usual endpoint id, in bytes
}

func newTemplate(origin *kgo.Record, d schemas.Delivery) template {
	d.ID, d.Attempt = placeholder, 1
	t := template{origin: origin, delivery: d, headers: schemas.AppendDeliveryHeaders[kgo.RecordHeader](make([]kgo.RecordHeader, 0, 20), &d)}
	for i := range t.headers {
		if string(t.headers[i].Value) == placeholder {
			t.id = i // the last one: attributes of the event come before
		}
	}
	const ids = 64 // delivery id and key
	t.size = recordSize(nil, d.Event.Data, t.headers) + ids
	return t
}

func recordSize(key, value []byte, headers []kgo.RecordHeader) int {
	n := recordOverhead + len(key) + len(value)
	for i := range headers {
		n += headerOverhead + len(headers[i].Key) + len(headers[i].Value)
	}
	return n
}

// deliver appends one delivery per endpoint, each for one of its lanes.
func (o *outbox) deliver(t *template, lanes []string) {
	records := make([]kgo.Record, len(lanes))
	headers := t.headers // a single delivery needs no others
	if len(lanes) > 1 {
		headers = make([]kgo.RecordHeader, len(lanes)*len(t.headers))
	}
	for i, lane := range lanes {
		ep, _ := schemas.SplitLane(lane)
		own := headers[:len(t.headers):len(t.headers)]
		headers = headers[len(t.headers):]
		copy(own, t.headers)
		own[t.id].Value = []byte(schemas.DeliveryID(t.delivery.EventID, ep, ""))
		rec := &records[i]
		*rec = kgo.Record{
			Topic:     o.topics.Deliveries,
			Partition: o.layout.Partition(lane),
			Key:       []byte(lane),
			Value:     t.delivery.Event.Data,
			Headers:   own,
		}
		o.add(rec, t.origin, t.size)
	}
	o.deliveries += len(lanes)
}

// reject appends the record to rejected, cut to fit.
func (o *outbox) reject(rec *kgo.Record, r *rejection) {
	out := &kgo.Record{Topic: o.topics.Rejected, Partition: o.turn, Key: rec.Key}
	var headers []kgo.RecordHeader
	if !r.bare {
		headers = keptHeaders(rec.Headers)
	}
	var tail []kgo.RecordHeader
	tail = schemas.AppendOrigin(tail, rec.Topic, rec.Partition, rec.Offset)
	room := o.maxSize - recordSize(nil, nil, tail) - rejectionRoom
	truncated := len(headers) < len(rec.Headers)
	if len(out.Key) > room/4 {
		out.Key, truncated = nil, true
	}
	if room -= len(out.Key); recordSize(nil, nil, headers) > room {
		headers, truncated = nil, true
	}
	room -= recordSize(nil, nil, headers)
	switch out.Value = rec.Value; {
	case r.bare:
		out.Value, truncated = nil, true
	case len(out.Value) > room:
		out.Value, truncated = out.Value[:room], true
	}
	headers = schemas.AppendRejection(headers, r.reason, r.detail, truncated)
	out.Headers = append(headers, tail...)
	o.add(out, rec, recordSize(out.Key, out.Value, out.Headers))
	o.results[resultRejected]++
}

// rejectionRoom is what schemas.AppendRejection takes at most, in bytes.
const rejectionRoom = 2 << 10

// keptHeaders leaves out the names that a rejection uses itself.
func keptHeaders(headers []kgo.RecordHeader) []kgo.RecordHeader {
	return slices.DeleteFunc(slices.Clone(headers), func(h kgo.RecordHeader) bool {
		switch h.Key {
		case "pr_v", "pr_reason", "pr_detail", "pr_truncated", "pr_origin_topic", "pr_origin_partition", "pr_origin_offset":
			return true
		}
		return false
	})
}

// partitioner obeys the partition that each record was given; what has no home of
// its own is spread by its turn.
func partitioner(deliveries string) kgo.Partitioner {
	return kgo.BasicConsistentPartitioner(func(topic string) func(*kgo.Record, int) int {
		if topic == deliveries {
			return func(r *kgo.Record, _ int) int { return int(r.Partition) }
		}
		return func(r *kgo.Record, n int) int { return int(uint32(r.Partition) % uint32(n)) } //nolint:gosec // wraps on purpose
	})
}
