package ingest

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/gofiber/fiber/v2"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/httpd"
	"github.com/postrider/postrider/schemas"
)

// errNoAnswer is an event of which Kafka had not said anything in time.
var errNoAnswer = errors.New("no acknowledgement in time")

// ack is what Kafka said about one record.
type ack struct {
	position schemas.Position
	err      error
}

// publication is the records of one request on their way to Kafka. What Kafka
// says after the request was answered is still counted here.
type publication struct {
	records []*kgo.Record
	done    chan struct{}
	release func()

	mu   sync.Mutex
	acks []ack
	left int
}

// newPublication takes the records of the given items; release is called when
// the client holds none of them any more.
func newPublication(items []item, sent []int, release func()) *publication {
	p := &publication{
		records: make([]*kgo.Record, len(sent)), acks: make([]ack, len(sent)),
		done: make(chan struct{}), left: len(sent), release: release,
	}
	for n, i := range sent {
		p.records[n] = items[i].record
		p.acks[n].err = errNoAnswer
	}
	return p
}

// send hands all records to the client, without waiting for acknowledgements.
func (p *publication) send(ctx context.Context, client producer) {
	for n, r := range p.records {
		client.Produce(ctx, r, func(r *kgo.Record, err error) { p.settle(n, r, err) })
	}
}

func (p *publication) settle(n int, r *kgo.Record, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acks[n] = ack{position: schemas.Position{Partition: r.Partition, Offset: r.Offset}, err: err}
	if p.left--; p.left == 0 {
		p.release()
		close(p.done)
	}
}

// wait returns what is known when all is, or when ctx ends.
func (p *publication) wait(ctx context.Context) []ack {
	select {
	case <-p.done:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]ack(nil), p.acks...)
}

// settle stores what became of an event.
func (s *Server) settle(ctx context.Context, it *item, a ack) {
	if a.err == nil {
		it.position = a.position
		return
	}
	it.problem = s.kafkaProblem(a.err)
	if it.problem.Code == CodeEventTooLarge {
		it.problem.Errors[0].Pointer = it.pointer
	}
	s.complain.Do(func() {
		s.deps.Logger.WarnContext(ctx, "event not acknowledged",
			slog.String("event_id", it.id), slog.String("code", it.problem.Code), slog.Any("error", a.err))
	})
}

// kafkaProblem words a failed produce. A record that was once in flight can't be
// taken back and may be written after all, so all but the errors by which a
// record is turned away leave the outcome open.
func (s *Server) kafkaProblem(err error) *httpd.Problem {
	switch {
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return at(fiber.StatusRequestEntityTooLarge, CodeEventTooLarge, "", "the event is larger than Kafka takes")
	case errors.Is(err, kgo.ErrMaxBuffered), errors.Is(err, kerr.NotEnoughReplicas),
		errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.TopicAuthorizationFailed):
		return s.unavailable(CodeKafkaUnavailable, "Kafka does not take the event now; send it again under this id")
	}
	return s.unavailable(CodeOutcomeUnknown,
		"Kafka did not acknowledge the event in time, it may have been accepted; send it again under this id")
}
