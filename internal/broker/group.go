package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Start says where a group goes on in a partition whose commit is lost.
type Start string

// The values of [Start].
const (
	StartRefuse   Start = ""         // it doesn't: an error asks the operator
	StartEarliest Start = "earliest" // at the oldest record that is left
	StartLatest   Start = "latest"   // after the newest record
)

func (s Start) valid() error {
	switch s {
	case StartRefuse, StartEarliest, StartLatest:
		return nil
	}
	return fmt.Errorf("start %q: must be earliest or latest", string(s))
}

// ErrLostCommit says that a group has no commit in a partition where it should
// have one. It wants a decision: [Config.Start].
var ErrLostCommit = errors.New("commit is missing")

// position is what decides where a group starts in one partition.
type position struct {
	commit     int64 // -1: none
	start, end int64 // of the log; end is the last stable offset
}

// decide returns the offset for each partition of a topic that has no commit,
// and, sorted, the partitions for which there is none.
//
// Nothing in Kafka tells a new group from one that lost its commits. But
// partitions are only ever added at the end, and a partition that still begins
// at 0 can be read from 0 without losing anything (what was handled before is
// caught as a repeat). So: partitions above the highest one with a commit (all
// of them, for a new group) that begin at 0 start at 0. Everything else is lost:
// a hole between commits, or a log whose beginning is gone. An explicit start
// decides what is lost, and topics without any commit.
func decide(parts map[int32]position, start Start) (from map[int32]int64, lost []int32) {
	from = map[int32]int64{}
	last := int32(-1)
	for p, pos := range parts {
		if pos.commit >= 0 {
			last = max(last, p)
		}
	}
	for p, pos := range parts {
		switch {
		case pos.commit >= 0:
		case p > last && pos.start == 0 && (last >= 0 || start == StartRefuse):
			from[p] = 0
		case start == StartEarliest:
			from[p] = pos.start
		case start == StartLatest:
			from[p] = pos.end
		default:
			lost = append(lost, p)
		}
	}
	slices.Sort(lost)
	return from, lost
}

// groupWait bounds how long EnsureGroup waits for a coordinator
// and for others that do the same.
const groupWait = time.Minute

// EnsureGroup gives a group (named without prefix, "fanout") its first commit in
// every partition of the topics, before its members join. A partition that lost
// its commit is [ErrLostCommit] unless [Config.Start] decides. Any number of
// processes may call it at the same time, also while the group runs: a running
// group gives partitions that were added since a start by itself (see
// [Config.GroupOptions]).
func EnsureGroup(ctx context.Context, cl *kgo.Client, cfg Config, group string, topics ...string) error {
	c := cfg.withDefaults()
	full := c.Group(group)
	ctx, cancel := context.WithTimeout(ctx, groupWait)
	defer cancel()
	// A client of its own: one that found the group's coordinator on a broker that
	// is down asks it for ever, also after another broker took over.
	cl, err := kgo.NewClient(cl.Opts()...)
	if err != nil {
		return fmt.Errorf("first commit of group %s: %w", full, err)
	}
	defer cl.Close()
	tick := time.NewTicker(metadataMinAge)
	defer tick.Stop()
	for {
		done, err := c.commitInitial(ctx, kadm.NewClient(cl), full, topics)
		if done || err != nil && !kerr.IsRetriable(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("first commit of group %s: %w", full, errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

// commitInitial is one try. It is done when no commit is missing, was made, or
// is up to the group's members. A retriable error (a new cluster has no
// coordinator yet) is worth another try.
func (c Config) commitInitial(ctx context.Context, adm *kadm.Client, group string, topics []string) (done bool, err error) {
	state, err := positions(ctx, adm, group, topics)
	if err != nil {
		return false, err
	}
	var commits kadm.Offsets
	lostBefore := false // a commit that only an explicit start allows
	for _, topic := range topics {
		from, lost := decide(state[topic], c.Start)
		if len(lost) > 0 {
			return false, fmt.Errorf("group %s, topic %s, partitions %v: %w; say --start=earliest or --start=latest once", group, topic, lost, ErrLostCommit)
		}
		_, lost = decide(state[topic], StartRefuse)
		lostBefore = lostBefore || len(lost) > 0
		for p, offset := range from {
			commits.AddOffset(topic, p, offset, -1)
		}
	}
	if len(commits) == 0 {
		return true, nil
	}
	results, err := adm.CommitOffsets(ctx, group, commits)
	if err != nil {
		return false, fmt.Errorf("first commit of group %s: %w", group, err)
	}
	err = results.Error()
	switch {
	case err == nil:
		return true, nil
	case isActive(err):
		// Members are there already. Partitions that they were given later are
		// theirs to start; a lost commit can't be decided over their heads.
		if lostBefore {
			return false, fmt.Errorf("group %s has members and lost commits; stop them first: %w", group, ErrLostCommit)
		}
		return true, nil
	}
	return false, fmt.Errorf("first commit of group %s: %w", group, err)
}

// isActive reports whether a commit from outside was refused because the group
// has members.
func isActive(err error) bool {
	return errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.RebalanceInProgress) || errors.Is(err, kerr.IllegalGeneration)
}

// positions reads commits and log bounds of every partition of the topics. A
// commit in an open transaction is not waited for: after a kill that would be
// the transaction's whole time-out, and only whether there is a commit counts.
func positions(ctx context.Context, adm *kadm.Client, group string, topics []string) (map[string]map[int32]position, error) {
	commits, err := adm.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("read commits of group %s: %w", group, err)
	}
	if err := commits.Error(); err != nil {
		return nil, fmt.Errorf("read commits of group %s: %w", group, err)
	}
	starts, err := adm.ListStartOffsets(ctx, topics...)
	if err = errors.Join(err, starts.Error()); err != nil {
		return nil, fmt.Errorf("list log starts: %w", err)
	}
	ends, err := adm.ListCommittedOffsets(ctx, topics...)
	if err = errors.Join(err, ends.Error()); err != nil {
		return nil, fmt.Errorf("list log ends: %w", err)
	}
	state := make(map[string]map[int32]position, len(topics))
	for _, topic := range topics {
		state[topic] = map[int32]position{}
		for p, s := range starts[topic] {
			pos := position{commit: -1, start: s.Offset}
			if end, ok := ends.Lookup(topic, p); ok {
				pos.end = end.Offset
			}
			if o, ok := commits.Lookup(topic, p); ok {
				pos.commit = o.At
			}
			state[topic][p] = pos
		}
	}
	return state, nil
}

// startAdded replaces the missing commits among just assigned offsets by the
// rule of decide. What is lost stays missing: kgo then fails that partition in
// PollFetches. It opens its own client, because kgo hands none to this hook;
// that happens only when partitions were added to a running group.
func (c Config) startAdded(ctx context.Context, group string, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	missing := map[string]bool{}
	for topic, parts := range offsets {
		for _, o := range parts {
			if o.EpochOffset().Offset < 0 {
				missing[topic] = true
			}
		}
	}
	if len(missing) == 0 {
		return offsets, nil
	}
	adm, err := c.NewClient()
	if err != nil {
		return nil, err
	}
	defer adm.Close()
	state, err := positions(ctx, kadm.NewClient(adm), group, slices.Sorted(maps.Keys(missing)))
	if err != nil {
		return nil, err
	}
	for topic, parts := range state {
		from, _ := decide(parts, c.Start)
		for p, offset := range from {
			if o, ok := offsets[topic][p]; ok && o.EpochOffset().Offset < 0 {
				offsets[topic][p] = kgo.NoResetOffset().At(offset)
			}
		}
	}
	return offsets, nil
}

// LeaveGroup takes a static member out of a group (named without prefix), so
// that its partitions go to others at once instead of after [SessionTimeout].
// The member's own client must be closed before: it would join again.
func LeaveGroup(ctx context.Context, cl *kgo.Client, cfg Config, group, instanceID string) error {
	ctx, cancel := context.WithTimeout(ctx, leaveWait)
	defer cancel()
	left, err := kadm.NewClient(cl).LeaveGroup(ctx, kadm.LeaveGroup(cfg.Group(group)).InstanceIDs(instanceID).Reason("the process stops"))
	if err == nil {
		err = left.Error()
	}
	if err == nil || errors.Is(err, kerr.UnknownMemberID) { // it was out already
		return nil
	}
	return fmt.Errorf("leave group %s: %w", cfg.Group(group), err)
}

// leaveWait bounds how long leaving a group may hold up the end of a process.
const leaveWait = 5 * time.Second
