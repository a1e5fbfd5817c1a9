package fanout

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// lag returns how many records of events and pages the group has not committed.
// Offsets of pages have holes, so what is left there is read; offsets of events
// have none, for nobody writes them in transactions.
func (r *rig) lag(ctx context.Context) (int64, error) {
	adm := kadm.NewClient(r.cl)
	commits, err := adm.FetchOffsets(ctx, r.broker.Group(Group))
	if err != nil {
		return -1, err
	}
	ends, err := adm.ListCommittedOffsets(ctx, Topics(r.topics)...)
	if err != nil {
		return -1, err
	}
	var lag int64
	var bad error
	pages := map[int32]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		commit, ok := commits.Lookup(end.Topic, end.Partition)
		switch left := end.Offset - commit.At; {
		case !ok || end.Err != nil:
			bad = fmt.Errorf("commit or end of %s/%d: %w", end.Topic, end.Partition, end.Err)
		case end.Topic != r.topics.Pages:
			lag += left
		case left > 0:
			pages[end.Partition] = commit.At
		}
	})
	if lag == 0 && bad == nil && len(pages) > 0 {
		return r.unreadPages(ctx, pages)
	}
	return lag, bad
}

// unreadPages counts the committed pages from the given offsets on.
func (r *rig) unreadPages(ctx context.Context, from map[int32]int64) (int64, error) {
	cl, err := r.broker.NewReader(map[string]map[int32]int64{r.topics.Pages: from})
	if err != nil {
		return -1, err
	}
	defer cl.Close()
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	var n int64
	for short.Err() == nil {
		n += int64(cl.PollFetches(short).NumRecords())
	}
	return n, nil
}
