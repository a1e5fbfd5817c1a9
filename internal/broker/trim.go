package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
)

// reading says which topics which groups read, by group.
type reading struct {
	cfg    Config
	groups map[string][]string
}

// SpareUnread says which groups (named without prefix) read which topics: from then
// on these topics are trimmed to their share of [Config.EmbeddedBytes] only below what
// their group has committed. What it has not read stays, until the topic alone is as
// large as EmbeddedBytes. Before the call, and for groups that are not named, that
// is the only bound of events, pages, deliveries and schedule.
func (e *Embedded) SpareUnread(c Config, groups map[string][]string) {
	e.reading.Store(&reading{c.withDefaults(), groups})
}

// trimRead trims what was read of topics that are larger than their share.
func (e *Embedded) trimRead() error {
	r := e.reading.Load()
	if r == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), gapWait)
	defer cancel()
	cl, err := r.cfg.NewClient()
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	large, err := r.large(ctx, adm)
	if err != nil || len(large) == 0 {
		return err
	}
	for group, topics := range r.groups {
		state, err := positions(ctx, adm, r.cfg.Group(group), topics)
		if err != nil {
			return err
		}
		if err := trimTo(ctx, adm, cuts(state, large)); err != nil {
			return err
		}
	}
	return nil
}

// excess is the part of a partition, in bytes, that is beyond its share.
type excess struct{ beyond, size int64 }

// large returns the partitions that are larger than their share.
func (r *reading) large(ctx context.Context, adm *kadm.Client) (map[string]map[int32]excess, error) {
	dirs, err := adm.DescribeAllLogDirs(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("ask how large partitions are: %w", err)
	}
	large := map[string]map[int32]excess{}
	for _, s := range r.cfg.specs() {
		share := s.shareOf(r.cfg)
		dirs.Each(func(dir kadm.DescribedLogDir) {
			for p, part := range dir.Topics[s.name] {
				if !s.spared || part.Size <= share {
					continue
				}
				if large[s.name] == nil {
					large[s.name] = map[int32]excess{}
				}
				large[s.name][p] = excess{part.Size - share, part.Size}
			}
		})
	}
	return large, nil
}

// cuts returns where to trim the large ones of a group's partitions: as if all of a
// partition's records were of one size, which over a few rounds is near enough, and
// not above the commit.
func cuts(state map[string]map[int32]position, large map[string]map[int32]excess) kadm.Offsets {
	var out kadm.Offsets
	for topic, parts := range state {
		for p, pos := range parts {
			x, ok := large[topic][p]
			if !ok {
				continue
			}
			share := float64(x.beyond) / float64(x.size)
			if to := min(pos.start+1+int64(float64(pos.end-pos.start)*share), pos.commit, pos.end-1); to > pos.start {
				out.AddOffset(topic, p, to, -1)
			}
		}
	}
	return out
}

func trimTo(ctx context.Context, adm *kadm.Client, to kadm.Offsets) error {
	if len(to) == 0 {
		return nil
	}
	done, err := adm.DeleteRecords(ctx, to)
	if err = errors.Join(err, done.Error()); err != nil {
		return fmt.Errorf("trim what was read: %w", err)
	}
	return nil
}
