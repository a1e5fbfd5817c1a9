package registry

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"
)

// position is what a projector knows of a bucket.
type position struct {
	generation string
	next       int64
}

// logBounds is what a marker must agree with for its bucket to be continued.
type logBounds struct {
	topic      string
	start, end int64
	oldest     time.Time
}

// hold reports whether the bucket can be continued: its marker is of this topic,
// at an offset that this log has, and not so old that tombstones behind it may be
// gone.
func (l logBounds) hold(m storedMarker) bool {
	inLog := m.Next == 0 || m.Next >= l.start && m.Next <= l.end
	return m.topic == l.topic && inLog && m.at >= l.oldest.UnixMilli()
}

// generations makes the numbers of generations: milliseconds and 10 random bits
// in 51 bits (Lua's numbers are exact to 53), above all that it has seen. A flush
// makes Redis forget the numbers; the time, and what chance adds to it, keep them
// from repeating.
type generations struct{ highest int64 }

func (g *generations) see(n int64) { g.highest = max(g.highest, n) }

func (g *generations) next(now time.Time) int64 {
	g.highest = max(g.highest+1, now.UnixMilli()<<10|rand.Int64N(1<<10)) //nolint:gosec // no secret
	return g.highest
}

// begin starts a generation of a bucket unless its marker is no longer the one
// seen, and reports whether it did.
func begin(ctx context.Context, rdb redis.UniversalClient, script *redis.Script, seen storedMarker, fresh freshMarker) (bool, error) {
	done, err := runOne(ctx, rdb, script, call{
		keys: []string{markerKey(fresh.bucket), generationsKey(fresh.bucket)},
		args: []any{seen.topic, seen.generation, fresh.topic, fresh.generation, fresh.target, fresh.at},
	})
	return done == 1, err
}

// freshMarker is a new generation's.
type freshMarker struct {
	bucket     int
	topic      string
	generation int64
	target     int64 // the log's end
	at         int64 // ms
}

// sweepNames is how many hashes of each generation that is over one step
// deletes.
const sweepNames = 128

// sweeper deletes the generations of the view that are over, step by step.
type sweeper struct {
	rdb    redis.UniversalClient
	script *redis.Script
	done   bool
}

// step deletes some hashes of every generation that is over, until there is
// none.
func (s *sweeper) step(ctx context.Context) error {
	if s.done {
		return nil
	}
	markers, err := readMarkers(ctx, s.rdb)
	if err != nil {
		return err
	}
	var all [Buckets]*redis.StringSliceCmd
	if _, err = s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for b := range all {
			all[b] = p.SMembers(ctx, generationsKey(b))
		}
		return nil
	}); err != nil {
		return err
	}
	s.done = true
	for b := range all {
		for _, generation := range all[b].Val() {
			// Without a marker the bucket waits for a new generation: then all are
			// over. The script makes sure.
			if generation == markers[b].generation {
				continue
			}
			s.done = false
			if err := s.sweep(ctx, b, generation); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *sweeper) sweep(ctx context.Context, b int, generation string) error {
	names, err := s.rdb.SRandMemberN(ctx, tenantsKey(b, generation), sweepNames).Result()
	if err != nil {
		return err
	}
	c := call{
		keys: []string{markerKey(b), generationsKey(b), tenantsKey(b, generation)},
		args: []any{generation},
	}
	for _, name := range names {
		c.keys = append(c.keys, hashKey(b, generation, name))
		c.args = append(c.args, name)
	}
	_, err = runOne(ctx, s.rdb, s.script, c)
	return err
}
