package main

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

// soakRate is the steady load of soak, in events/s.
const soakRate = 500

// soaked are the samples of a soak, once a second.
type soaked struct{ memory, goroutines, files []point }

// soak runs a steady load and says whether the processes grow under it: a line
// through the second half of the time.
func (s *stage) soak(ctx context.Context) (values, error) {
	if err := s.prepare(ctx, throughputEndpoints, false, false); err != nil {
		return nil, err
	}
	load := &schedule{sender: s.gateway.sender(), events: s.spread(throughputEndpoints), rate: soakRate}
	done, cancel := context.WithCancel(ctx)
	defer cancel()
	var seen soaked
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer cancel()
		return load.run(running, running, s.sizes.soak)
	})
	group.Go(func() error { return s.watch(running, done, &seen) })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	_, repeats, err := s.settle(ctx, int64(len(load.acked)))
	if err != nil {
		return nil, err
	}
	out := values{keyRate: soakRate, keyMinutes: s.sizes.soak.Minutes(), keyRepeats: float64(repeats)}
	out[keyRSS], out[keyMemoryHour], out[keyMemoryGrowth] = growth(seen.memory)
	out[keyGoroutines], out[keyGoroutinesHour], out[keyGoroutinesGrowth] = growth(seen.goroutines)
	out[keyFiles], out[keyFilesHour], out[keyFilesGrowth] = growth(seen.files)
	return out, nil
}

// watch samples the gateway each second until stop ends.
func (s *stage) watch(ctx, stop context.Context, seen *soaked) error {
	start := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-stop.Done():
			return nil
		case <-tick.C:
		}
		used, err := s.gateway.usage()
		if err != nil {
			return err
		}
		m, err := s.gateway.metrics(ctx)
		if err != nil {
			return err
		}
		open := 0
		for _, r := range s.gateway.roles {
			n, err := r.child.files()
			if err != nil {
				return err
			}
			open += n
		}
		now := time.Since(start).Seconds()
		seen.memory = append(seen.memory, point{now, megabytes(used.rss)})
		seen.goroutines = append(seen.goroutines, point{now, m[metricGoroutines]})
		seen.files = append(seen.files, point{now, float64(open)})
	}
}
