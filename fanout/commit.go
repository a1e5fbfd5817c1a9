package fanout

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// commit writes the outbox and the batch's offsets in one transaction. A batch
// that was aborted is polled again. An error means that the session is broken;
// nothing of the batch counts then, or everything: the next session begins at what
// Kafka says is committed.
func (s *session) commit(ctx context.Context) error {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	if err := s.txn.Begin(); err != nil {
		s.batch.endSpans(false)
		return fmt.Errorf("begin transaction: %w", err)
	}
	if err := s.produce(end); err != nil {
		s.batch.endSpans(false)
		if end.Err() != nil {
			return err // what is on its way can't be called back: only a new session can
		}
		s.suspect.aborted(s.batch.all(), err)
		s.metrics.aborts.Add(ctx, 1)
		s.status.note(err)
		s.cfg.Logger.WarnContext(ctx, "transaction aborted", "error", err, "records", s.batch.records)
		err = s.drop(ctx)
		s.pause.Wait(ctx)
		return err
	}
	try := end
	if s.batch.skips() {
		try = kgo.PreTxnCommitFnContext(end, commitPast(&s.batch))
	}
	committed, err := s.txn.End(try, kgo.TryCommit)
	s.batch.endSpans(committed)
	if err != nil {
		return fmt.Errorf("end transaction: %w", err)
	}
	if !committed {
		s.metrics.aborts.Add(ctx, 1)
		return s.skipAgain()
	}
	s.finish(ctx)
	if s.batch.skips() {
		return errSkipped
	}
	return nil
}

// produce writes the outbox and waits for Kafka. The first refusal is returned.
func (s *session) produce(ctx context.Context) error {
	var mu sync.Mutex
	var failed error
	promise := func(r *kgo.Record, err error) {
		if err == nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if failed == nil {
			failed = fmt.Errorf("produce to %s/%d: %w", r.Topic, r.Partition, err)
		}
	}
	count, bytes := 0, 0
	for _, r := range s.out.records {
		size := recordSize(r.Key, r.Value, r.Headers)
		if count+1 > flushCount || bytes+size > flushBytes {
			if err := s.txn.Client().Flush(ctx); err != nil {
				return fmt.Errorf("flush: %w", err)
			}
			count, bytes = 0, 0
		}
		count++
		bytes += size
		s.txn.Produce(ctx, r, promise)
	}
	if err := s.txn.Client().Flush(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	mu.Lock()
	defer mu.Unlock()
	return failed
}

// finish does what follows a commit.
func (s *session) finish(ctx context.Context) {
	s.healthy()
	s.pause.Reset()
	s.suspect.committed(s.batch.all())
	s.sizer.observe(s.out.wanted)
	s.metrics.committed(ctx, s.batch.records, &s.out)
	if claims := s.batch.rejectedClaims(); len(claims) > 0 {
		short, cancel := context.WithTimeout(ctx, releaseWait)
		defer cancel()
		if err := s.claimer.release(short, claims); err != nil {
			s.cfg.Logger.WarnContext(ctx, "claims of rejected events stay", "error", err, "count", len(claims))
		}
	}
}

// drop gives the batch up, before or in its transaction: the client goes back to
// what is committed.
func (s *session) drop(ctx context.Context) error {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	s.status.going()
	if _, err := s.txn.End(end, kgo.TryAbort); err != nil {
		return fmt.Errorf("abort transaction: %w", err)
	}
	return s.skipAgain()
}

// errSkipped ends a session after a bomb or a gap was committed past. The client could be
// set past it, too, but that throws away what it has buffered, and with it its one
// word about a bomb in another partition, which then stands still for ever.
var errSkipped = errors.New("a batch was skipped")

// skipAgain gives the session up if the dropped batch held a bomb: the client
// tells of it once only, and a new one is told again.
func (s *session) skipAgain() error {
	if len(s.batch.bombs) > 0 {
		return fmt.Errorf("a batch to be skipped was aborted: %w", s.batch.bombs[0])
	}
	return nil
}

// all returns the batch's records.
func (b *batch) all() []*kgo.Record {
	records := make([]*kgo.Record, 0, b.records)
	for i := range b.pages {
		records = append(records, b.pages[i].rec)
	}
	for i := range b.events {
		records = append(records, b.events[i].rec)
	}
	return records
}
