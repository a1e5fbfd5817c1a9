package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/postrider/postrider/internal/backoff"
)

const (
	// unreadEvery is how often a group is looked at, unreadTimeout how long that may
	// take.
	unreadEvery   = 15 * time.Second
	unreadTimeout = 30 * time.Second
	// unreadSteps bounds the reads over markers and aborted records to the first one
	// that is unread.
	unreadSteps = 10
)

// Unread finds how old the oldest record is that a group has not committed past,
// whether or not anybody reads: it asks Kafka for the group's offsets, and for the
// records there, every 15 s. While it can't, what it knew last grows older.
type Unread struct {
	cfg    Config
	group  string
	topics []string
	keep   time.Duration
	log    *slog.Logger

	mu       sync.Mutex
	first    map[place]firstUnread // of partitions that have unread records
	measured time.Time             // when all was known last, or the beginning
}

// firstUnread is the first record of a partition that is not committed past, by the
// offset that was committed, and since when it has been there.
type firstUnread struct {
	commit int64
	at     time.Time
}

// NewUnread returns an Unread for a group, named without prefix, and its topics. It
// connects when it runs.
func NewUnread(cfg Config, group string, log *slog.Logger, topics ...string) *Unread {
	u := &Unread{cfg: cfg, group: cfg.Group(group), topics: topics, log: log, first: map[place]firstUnread{}, measured: time.Now()}
	for _, s := range cfg.withDefaults().specs() {
		if slices.Contains(topics, s.name) && (u.keep == 0 || s.keep < u.keep) {
			u.keep = s.keep
		}
	}
	return u
}

// Retention returns how long Kafka keeps the records: of several topics the shortest
// time.
func (u *Unread) Retention() time.Duration { return u.keep }

// Run looks at the group until ctx ends and then returns nil.
func (u *Unread) Run(ctx context.Context) error {
	r, err := NewPointReader(u.cfg)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		if err := u.measure(ctx, r); err != nil && ctx.Err() == nil {
			u.log.WarnContext(ctx, "find the oldest unread record", "group", u.group, "error", err)
		}
		if !backoff.Pause(ctx, unreadEvery) {
			return nil
		}
	}
}

// Age returns how old the oldest unread record is, 0 if there is none. It is right to
// about 15 s; when Kafka can't be asked, it is the time since that was known, at least.
func (u *Unread) Age() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	var age time.Duration
	if since := now.Sub(u.measured); since > 2*unreadEvery+unreadTimeout {
		age = since
	}
	for _, f := range u.first {
		age = max(age, now.Sub(f.at))
	}
	return age
}

// measure looks at all partitions. What it can't find out of one stays as it was, and
// if that was caught up, counts from when that was known.
func (u *Unread) measure(ctx context.Context, r *PointReader) error {
	ctx, cancel := context.WithTimeout(ctx, unreadTimeout)
	defer cancel()
	adm := kadm.NewClient(r.cl)
	asked := time.Now()
	commits, err := adm.FetchOffsets(ctx, u.group)
	if err != nil {
		return fmt.Errorf("read the offsets: %w", err)
	}
	ends, err := adm.ListCommittedOffsets(ctx, u.topics...)
	if err != nil {
		return fmt.Errorf("read the ends: %w", err)
	}
	var errs []error
	ends.Each(func(end kadm.ListedOffset) {
		commit, _ := commits.Lookup(end.Topic, end.Partition) // none: 0, where a new partition is begun
		if err := errors.Join(end.Err, commit.Err, u.look(ctx, r, place{end.Topic, end.Partition}, max(commit.At, 0), end.Offset)); err != nil {
			errs = append(errs, err)
		}
	})
	if len(errs) == 0 && len(ends) == len(u.topics) {
		u.mu.Lock()
		u.measured = asked
		u.mu.Unlock()
	}
	return errors.Join(errs[:min(len(errs), 5)]...)
}

// look finds the first unread record of a partition, if it is another one than before.
func (u *Unread) look(ctx context.Context, r *PointReader, at place, commit, end int64) error {
	u.mu.Lock()
	known, ok := u.first[at]
	measured := u.measured
	if commit >= end {
		delete(u.first, at)
	}
	u.mu.Unlock()
	if commit >= end || ok && known.commit == commit {
		return nil
	}
	since, err := sinceOf(ctx, r, at, commit)
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case err == nil && since.IsZero():
		delete(u.first, at)
	case err == nil:
		u.first[at] = firstUnread{commit, since}
	case !ok:
		u.first[at] = firstUnread{-1, measured} // asked again next time
	}
	return err
}

// sinceOf returns since when the first record from an offset on has been in Kafka,
// zero if there is none.
func sinceOf(ctx context.Context, r *PointReader, at place, offset int64) (time.Time, error) {
	for range unreadSteps {
		s, err := r.Read(ctx, at.topic, at.partition, offset, 1)
		switch {
		case errors.Is(err, kerr.OffsetOutOfRange) && offset < s.LogStart:
			offset = s.LogStart // deleted unread: what is left is the oldest
			continue
		case errors.Is(err, kerr.OffsetOutOfRange):
			return time.Time{}, nil
		case err != nil:
			return time.Time{}, err
		case len(s.Records) > 0:
			return s.Records[0].Timestamp, nil
		case s.Next <= offset:
			return time.Time{}, nil
		}
		offset = s.Next
	}
	return time.Time{}, fmt.Errorf("no record of %s/%d in %d reads up to offset %d", at.topic, at.partition, unreadSteps, offset)
}
