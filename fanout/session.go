package fanout

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/backoff"
	"github.com/postrider/postrider/internal/broker"
)

// Bounds of a session.
const (
	txnTimeout  = 10 * time.Second // an open transaction hides what others commit behind it
	endTimeout  = 20 * time.Second // writing and ending one; then the session is given up
	openTimeout = 30 * time.Second
	idlePoll    = time.Second // the beat of an idle loop
	gatherFrom  = 100         // records of a first poll after which more are waited for
	gatherWait  = 10 * time.Millisecond
	maxBuffered = 20_000 // records in the client
	flushCount  = 10_000 // written at once, in records and in bytes
	flushBytes  = 24 << 20
	releaseWait = 2 * time.Second
)

// errRevoked is the cause of a batch's end when a partition was taken from us.
var errRevoked = errors.New("partitions were revoked")

// session is one life of the Kafka client. After an error it is thrown away.
type session struct {
	*Fanout
	txn     *kgo.GroupTransactSession
	topicID [16]byte // of events
	barrier barrier
	claimer claimer
	matcher *matcher
	batch   batch
	out     outbox
	pause   *backoff.Backoff // after a refused transaction
	healthy func()           // called after a commit
	bombs   bombWatch
	barred  barred
	// revoke ends the batch that is being prepared.
	revoke atomic.Pointer[context.CancelCauseFunc]
}

// leaveGroup gives up the membership, which is static, so that others take over
// at once and not after the session has timed out.
func (f *Fanout) leaveGroup(ctx context.Context) {
	cl, err := f.cfg.Broker.NewClient(f.cfg.Options...)
	if err == nil {
		defer cl.Close()
		err = broker.LeaveGroup(ctx, cl, f.cfg.Broker, Group, f.cfg.Instance)
	}
	if err != nil {
		f.cfg.Logger.WarnContext(ctx, "leave the group", "error", err)
	}
}

// runSession opens a session and works in it until ctx ends or the session breaks.
func (f *Fanout) runSession(ctx context.Context, healthy func()) error {
	s := &session{
		Fanout:  f,
		claimer: claimer{f.cfg.Redis, f.cfg.Window},
		matcher: newMatcher(f.cfg.Tracer, f.cfg.FilterBudget),
		out:     outbox{topics: f.topics, layout: f.cfg.Layout, maxSize: f.maxSize, results: map[string]int{}},
		pause:   &backoff.Backoff{First: 10 * time.Millisecond, Limit: time.Second},
		healthy: healthy,
	}
	s.bombs.log = f.cfg.Logger
	s.barrier = barrier{view: f.cfg.View, cache: f.tenants, end: s.registryEnd, waiting: s.wait, beat: s.cfg.Beat}
	if err := s.open(ctx); err != nil {
		return err
	}
	defer s.txn.Close()
	for ctx.Err() == nil {
		s.cfg.Beat()
		if err := s.turn(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) open(ctx context.Context) error {
	opts, err := s.cfg.Broker.GroupOptions(Group, s.cfg.Instance, Topics(s.topics)...)
	if err != nil {
		return fmt.Errorf("kafka options: %w", err)
	}
	revoked := func(context.Context, *kgo.Client, map[string][]int32) {
		if cancel := s.revoke.Load(); cancel != nil {
			(*cancel)(errRevoked)
		}
	}
	opts = append(
		opts,
		kgo.WithLogger(&s.bombs),
		kgo.TransactionalID(s.cfg.Broker.Group(Group)+"."+s.cfg.Instance),
		kgo.TransactionTimeout(txnTimeout),
		// A batch is dropped at once on revoke, so a member that is silent this long
		// in a rebalance is dead. (The default of 60 s stops the group as long.)
		kgo.RebalanceTimeout(broker.SessionTimeout),
		kgo.RecordPartitioner(partitioner(s.topics.Deliveries)),
		kgo.ManualFlushing(),
		kgo.KeepControlRecords(), // or commits stay below markers, and below the start of a log that was emptied
		kgo.MaxBufferedRecords(maxBuffered),
		kgo.OnPartitionsRevoked(revoked),
		kgo.OnPartitionsLost(revoked),
	)
	if s.txn, err = kgo.NewGroupTransactSession(append(opts, s.cfg.Options...)...); err != nil {
		return fmt.Errorf("open kafka session: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if s.topicID, err = broker.TopicID(ctx, s.txn.Client(), s.topics.Events); err != nil {
		s.txn.Close()
		return err
	}
	return nil
}

// turn is one round of the loop: poll, prepare, commit.
func (s *session) turn(ctx context.Context) error {
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.revoke.Store(&cancel)
	if err := s.bombs.untold(); err != nil {
		return err
	}
	size, err := s.poll(ctx)
	if err != nil || ctx.Err() != nil {
		return err
	}
	if !s.batch.empty() {
		s.status.unread(s.batch.oldest)
		defer s.status.unread(time.Time{})
		err = s.prepare(work)
		if err == nil {
			return s.commit(ctx)
		}
		s.batch.endSpans(false)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errTooCostly) {
			s.sizer.shrink(min(size, s.batch.records))
		}
		s.metrics.drops.Add(ctx, 1)
	}
	if s.batch.empty() && work.Err() == nil {
		return nil
	}
	return s.drop(ctx)
}

// poll fills the batch and returns the size that was asked for.
func (s *session) poll(ctx context.Context) (int, error) {
	s.batch.reset()
	s.admit()
	size := s.suspect.poll(s.sizer.next())
	idle, cancel := context.WithTimeout(ctx, idlePoll)
	defer cancel()
	fetches := s.txn.PollRecords(idle, size)
	if err := s.takeErrors(ctx, fetches); err != nil {
		return size, err
	}
	s.takeRecords(fetches)
	if err := s.gather(ctx, size); err != nil {
		return size, err
	}
	if s.batch.skips() {
		// The partition stands still there. What is buffered before it has to
		// be in this batch too, for the commit goes past it.
		rest := s.txn.PollRecords(nil, 0) //nolint:staticcheck,contextcheck // nil means: only what is there
		if err := s.takeErrors(ctx, rest); err != nil {
			return size, err
		}
		s.takeRecords(rest)
	}
	return size, nil
}

// gather goes on polling for a moment if events come in numbers: what a
// transaction costs is shared by all that are in it. A few events wait for nobody.
func (s *session) gather(ctx context.Context, size int) error {
	if s.batch.records < gatherFrom {
		return nil
	}
	moment, cancel := context.WithTimeout(ctx, s.gatherFor)
	defer cancel()
	for s.batch.records < size && !s.batch.skips() && moment.Err() == nil {
		more := s.txn.PollRecords(moment, size-s.batch.records)
		if err := s.takeErrors(ctx, more); err != nil {
			return err
		}
		s.takeRecords(more)
	}
	return nil
}

func (s *session) takeRecords(fetches kgo.Fetches) {
	fetches.EachRecord(func(r *kgo.Record) {
		if !r.Attrs.IsControl() { // a marker only moves the commit
			s.batch.add(r, r.Topic == s.topics.Pages)
		}
	})
}

// takeErrors sorts what a poll complains of. An error is returned when the session
// can't go on.
func (s *session) takeErrors(ctx context.Context, fetches kgo.Fetches) error {
	for _, fe := range fetches.Errors() {
		bomb, isBomb := errors.AsType[*kgo.ErrDecompressTooLarge](fe.Err)
		loss, isLoss := errors.AsType[*kgo.ErrDataLoss](fe.Err)
		switch {
		case errors.Is(fe.Err, context.DeadlineExceeded), errors.Is(fe.Err, context.Canceled):
		case isBomb:
			s.addBomb(bomb)
		case isLoss:
			s.status.losses.Tell(ctx, s.cfg.Logger, loss.Topic, loss.Partition, fmt.Errorf("truncated: %w", loss))
		case errors.Is(fe.Err, kerr.OffsetOutOfRange):
			s.outOfRange(ctx, fe.Topic, fe.Partition)
		case errors.Is(fe.Err, kgo.ErrClientClosed), errors.Is(fe.Err, kerr.FencedInstanceID), errors.Is(fe.Err, kerr.UnknownTopicID):
			return fmt.Errorf("poll: %w", fe.Err)
		default:
			s.status.note(fmt.Errorf("poll %s/%d: %w", fe.Topic, fe.Partition, fe.Err))
		}
	}
	return nil
}

func (s *session) addBomb(bomb *kgo.ErrDecompressTooLarge) {
	for _, known := range s.batch.bombs {
		if known.Topic == bomb.Topic && known.Partition == bomb.Partition {
			return
		}
	}
	s.bombs.told++
	s.batch.bombs = append(s.batch.bombs, bomb)
}

// prepare does everything that needs no transaction, and fills the outbox. An
// error means that the batch is dropped.
func (s *session) prepare(ctx context.Context) error {
	s.batch.decode(s.topicID, &s.suspect)
	start := time.Now()
	found, err := s.barrier.pass(ctx, s.batch.tenants)
	if err != nil {
		return err
	}
	s.metrics.barrier.Record(ctx, time.Since(start).Seconds())
	s.batch.judgeTenants(found)
	if err := s.claim(ctx); err != nil {
		return err
	}
	s.status.going()
	return s.emit(ctx)
}

// claim makes the batch's claims, and waits while Redis is away.
func (s *session) claim(ctx context.Context) error {
	claims := s.batch.claims()
	if len(claims) == 0 {
		return nil
	}
	start := time.Now()
	pause := &backoff.Backoff{First: 10 * time.Millisecond, Limit: time.Second}
	for {
		err := s.claimer.claimAll(ctx, claims)
		if err == nil {
			s.metrics.claim.Record(ctx, time.Since(start).Seconds())
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.wait(err)
		pause.Wait(ctx)
	}
}

// emit fills the outbox: first pages, which are older, then events.
func (s *session) emit(ctx context.Context) error {
	s.out.reset(time.Now())
	s.matcher.begin()
	for _, bomb := range s.batch.bombs {
		s.out.rejectBatch(bomb)
	}
	for i := range s.batch.pages {
		s.out.expand(&s.batch.pages[i])
	}
	const look = 64 // events between two looks at the clock and at ctx
	for i := range s.batch.events {
		if i%look == 0 {
			s.cfg.Beat()
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		if err := s.matcher.emit(ctx, &s.batch.events[i], &s.out); err != nil {
			return err
		}
	}
	s.out.wanted.records = s.batch.records
	s.out.wanted.matching = time.Since(s.out.now)
	return nil
}

// wait is told before each wait for Redis, the view or Kafka.
func (s *session) wait(reason error) {
	s.cfg.Beat()
	s.status.waiting(reason)
}

func (s *session) registryEnd(ctx context.Context) (int64, error) {
	return broker.LastStableOffset(ctx, s.txn.Client(), s.topics.Registry, 0)
}
