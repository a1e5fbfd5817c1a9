package ingest

import (
	"context"

	"github.com/gofiber/fiber/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

// envelope is what a record may take in its batch beyond its key, value and
// headers, with room to spare, in bytes.
const envelope = 1 << 10

// headerCost is what a header may take beside its key and value: two varints.
const headerCost = 6

// usualHeaders is how many headers an event has without rare attributes.
const usualHeaders = 10

// records makes the records of what was admitted. It returns their indices in
// in.items, and the bytes that they hold besides the body.
func (s *Server) records(ctx context.Context, in *intake) (sent []int, headers int) {
	sent = make([]int, 0, len(in.items))
	records := make([]kgo.Record, len(in.items))
	all := make([]kgo.RecordHeader, 0, len(in.items)*usualHeaders)
	for i := range in.items {
		it := &in.items[i]
		if it.problem != nil {
			continue
		}
		s.setTrace(ctx, in, it)
		first := len(all)
		all = schemas.AppendEventHeaders(all, &it.event)
		it.record = &records[i]
		*it.record = kgo.Record{
			Topic: s.cfg.Topic, Key: it.key(), Value: it.event.Data, Headers: all[first:len(all):len(all)],
		}
		size := len(it.record.Key)
		for _, h := range it.record.Headers {
			size += len(h.Key) + len(h.Value) + headerCost
		}
		if most := s.cfg.MaxRecordBytes - envelope; size+len(it.record.Value) > most {
			it.problem = at(fiber.StatusRequestEntityTooLarge, CodeEventTooLarge, it.pointer, "")
			it.problem.Detail = "the event takes " + itoa(size+len(it.record.Value)) + " bytes, at most " + itoa(most) + " are allowed"
			it.problem.Errors[0].Detail = it.problem.Detail
			continue
		}
		headers += size
		sent = append(sent, i)
	}
	return sent, headers
}

// key is Event.RecordKey without hashing the id again.
func (it *item) key() []byte {
	if it.event.PartitionKey != "" {
		return it.event.RecordKey()
	}
	return []byte(it.id)
}
