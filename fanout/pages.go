package fanout

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

// pageBytes is how much one page may expand to in one transaction.
const pageBytes = 8 << 20

// page appends the deliveries of the endpoints as pages: parts that later
// transactions expand. It returns a rejection, and appends nothing, if not even a
// page of one endpoint would fit a record.
func (o *outbox) page(origin *kgo.Record, p schemas.Page, endpoints []string) *rejection {
	p.Endpoints = nil
	head := recordSize([]byte(p.EventID), p.Event.Data, schemas.AppendPageHeaders[kgo.RecordHeader](nil, &p))
	for _, ep := range endpoints {
		if head+len(ep)+1 > o.maxSize {
			return &rejection{reason: schemas.RejectOversized, detail: "the event does not fit a page"}
		}
	}
	for len(endpoints) > 0 {
		n, size := 0, head
		for n < min(len(endpoints), schemas.MaxPageEndpoints) && size+len(endpoints[n])+1 <= o.maxSize {
			size += len(endpoints[n]) + 1
			n++
		}
		p.Endpoints = endpoints[:n]
		o.turn++
		o.add(&kgo.Record{
			Topic:     o.topics.Pages,
			Partition: o.turn,
			Key:       []byte(p.EventID),
			Value:     p.Event.Data,
			Headers:   schemas.AppendPageHeaders[kgo.RecordHeader](nil, &p),
		}, origin, size)
		o.pages++
		endpoints = endpoints[n:]
	}
	return nil
}

// expand appends the deliveries of a page, as many as the transaction has room
// for, at least one if it has none yet; the rest goes on as one further page.
func (o *outbox) expand(item *pageItem) {
	if item.reject == nil {
		before := o.mark()
		guard(&item.reject, func() { item.reject = o.tryExpand(item) })
		if item.reject != nil {
			o.rollback(before)
		}
	}
	if item.reject != nil {
		o.reject(item.rec, item.reject)
	}
}

func (o *outbox) tryExpand(item *pageItem) *rejection {
	p := item.page
	t := newTemplate(item.rec, schemas.Delivery{
		Event: p.Event, EventID: p.EventID, Position: p.Position, Registry: p.Registry, MadeAt: p.MadeAt,
	})
	if t.size > o.maxSize {
		return &rejection{reason: schemas.RejectOversized, detail: "the event does not fit a delivery"}
	}
	o.wanted.deliveries += len(p.Endpoints)
	o.wanted.bytes += min(len(p.Endpoints)*t.size, pageBytes)
	n := min(len(p.Endpoints), pageBytes/t.size, aimDeliveries-o.deliveries, (aimBytes-o.bytes)/t.size)
	if o.deliveries == 0 {
		n = max(n, 1)
	}
	n = max(n, 0)
	if n < len(p.Endpoints) {
		if r := o.page(item.rec, p, p.Endpoints[n:]); r != nil {
			return r
		}
	}
	o.deliver(&t, p.Endpoints[:n])
	return nil
}
