package deliver

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// Of the records of a delivery one counts for each attempt, and none once a later
// attempt was met or the delivery has ended; what is remembered is bounded.
func TestCopies(t *testing.T) {
	t.Parallel()
	c := newCopies(8)
	for i := range int64(100) {
		key := keyOf("dlv_x", schemas.Position{Offset: i})
		for _, test := range []struct {
			name    string
			offset  int64
			attempt int
			want    bool
		}{
			{"first", i, 2, false},
			{"the same record", i, 2, false},
			{"a copy", i + 1000, 2, true},
			{"the next attempt", i + 1001, 3, false},
			{"a copy of an earlier attempt", i + 1002, 2, true},
		} {
			if got := c.meet(key, met{test.offset, test.attempt}, 1000); got != test.want {
				t.Fatalf("%s of delivery %d: copy %t", test.name, i, got)
			}
		}
		c.end(key, 1000)
		if !c.meet(key, met{i + 1003, 9}, 1000) {
			t.Fatalf("a record of delivery %d counts after its end", i)
		}
		if n := len(c.young) + len(c.old); n > 8 {
			t.Fatalf("%d deliveries remembered, want at most 8", n)
		}
	}
	if c.end(keyOf("dlv_new", schemas.Position{}), 1000); c.meet(keyOf("dlv_new", schemas.Position{}), met{1, 2}, 1000) {
		t.Error("the end of a delivery of which no record was met is remembered")
	}
	c = newCopies(1 << 10)
	c.meet(keyOf("dlv_x", schemas.Position{}), met{1, 2}, 1000)
	c.meet(keyOf("dlv_y", schemas.Position{}), met{2, 2}, 1000+copiesKeep) // rotates
	if !c.meet(keyOf("dlv_x", schemas.Position{}), met{3, 2}, 1000+copiesKeep) {
		t.Error("forgotten before its time")
	}
}

// A doubt is remembered until its time, whatever else comes, and up to a bound.
func TestDoubts(t *testing.T) {
	t.Parallel()
	c := newCopies(4)
	key := keyOf("dlv_x", schemas.Position{Offset: 7})
	c.doubt(key, doubt{met{1, 1}, 5000}, 1000)
	for i := range int64(100) {
		c.meet(keyOf("dlv_y", schemas.Position{Offset: i}), met{i, 2}, 1000+i*copiesKeep/10)
	}
	c.tidy(5000)
	if c.meet(key, met{2, 2}, 4999) || !c.meet(key, met{3, 2}, 5000) {
		t.Error("of two retries not the first one counts")
	}
	c.doubt(key, doubt{met{1, 1}, 4000}, 1000)
	if got := c.doubts[key]; got != (doubt{met{2, 2}, 5000}) {
		t.Errorf("what is known was made less: %+v", got)
	}
	if c.tidy(5001); len(c.doubts) != 0 {
		t.Error("a doubt is kept beyond its time")
	}
	for i := range int64(doubtsCapacity + 10) {
		c.doubt(keyOf("dlv_z", schemas.Position{Offset: i}), doubt{metEnd(), 9000}, 1000)
	}
	if len(c.doubts) != doubtsCapacity {
		t.Errorf("%d doubts, want at most %d", len(c.doubts), doubtsCapacity)
	}
	if !c.meet(keyOf("dlv_z", schemas.Position{Offset: doubtsCapacity + 9}), met{1, 2}, 1000) {
		t.Error("what is above the bound is not remembered at all")
	}
}

// deathGap is a world in which a worker has died after it had written the retry of an
// attempt, and before the attempt's own record.
type deathGap struct {
	*sim
	ctx  context.Context //nolint:containedctx // the test's
	well bool            // what the receiver answers
	slow time.Duration   // how long it takes
}

// inTheGap runs a test in as many worlds as it takes for two workers to die there.
func inTheGap(t *testing.T, e registry.Endpoint, test func(t *testing.T, g *deathGap)) {
	t.Helper()
	hits := 0
	for seed := uint64(0); seed < 100 && hits < 2; seed++ {
		synctest.Test(t, func(t *testing.T) {
			g := &deathGap{sim: newSim(t, seed)}
			ctx, stop := context.WithCancel(t.Context())
			g.ctx = ctx
			g.failing = func(string, int) bool {
				g.mu.Lock()
				well, slow := g.well, g.slow
				g.mu.Unlock()
				sleep(ctx, slow)
				return !well
			}
			e.Breaker = registry.Breaker{Off: true}
			g.endpoint(e)
			var world sync.WaitGroup
			world.Go(func() { g.turnWheel(ctx) })
			l := g.start("w0")
			g.send(e.ID, "", 1)
			for g.written(g.topics.Schedule)+g.written(g.topics.Attempts) == 0 {
				sleep(ctx, 50*time.Microsecond)
			}
			l.die()
			if g.written(g.topics.Attempts) == 0 {
				hits++
				test(t, g)
			}
			stop()
			world.Wait()
		})
	}
	if hits == 0 {
		t.Error("no worker died between a retry and its attempt's record")
	}
}

// written returns how many records stand in a log.
func (s *sim) written(topic string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.logs[topic])
}

// recover has the receiver be well, and take a while for each answer.
func (g *deathGap) recover(slow time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.well, g.slow = true, slow
}

// story tells the outcomes and the attempts of the posts of the first delivery.
func (g *deathGap) story() (outcomes []schemas.Outcome, posts []int) {
	g.mu.Lock()
	delivery := g.posts[0].delivery
	for _, p := range g.posts {
		if p.delivery == delivery {
			posts = append(posts, p.attempt)
		}
	}
	g.mu.Unlock()
	for _, a := range g.attempts() {
		if a.Delivery == delivery {
			outcomes = append(outcomes, a.Outcome)
		}
	}
	return outcomes, posts
}

func (g *deathGap) want(outcomes []schemas.Outcome, posts []int) {
	g.t.Helper()
	gotOutcomes, gotPosts := g.story()
	if diff := cmp.Diff(outcomes, gotOutcomes); diff != "" {
		g.t.Errorf("seed %d: outcomes (-want +got):\n%s", g.seed, diff)
	}
	if diff := cmp.Diff(posts, gotPosts); diff != "" {
		g.t.Errorf("seed %d: attempts posted (-want +got):\n%s", g.seed, diff)
	}
}

func steps(of ...time.Duration) (out []registry.Duration) {
	for _, step := range of {
		out = append(out, registry.Duration(step))
	}
	return out
}

// The attempt that is made again is delivered: the retry of the one before is
// not sent.
func TestRetryAfterTheEnd(t *testing.T) {
	t.Parallel()
	e := registry.Endpoint{ID: "ep_1", Retry: registry.Retry{Schedule: steps(2 * time.Hour)}}
	delivered := []schemas.Outcome{schemas.OutcomeDelivered, schemas.OutcomeRepeat}
	t.Run("delivered", func(t *testing.T) {
		inTheGap(t, e, func(_ *testing.T, g *deathGap) {
			g.recover(0)
			l := g.start("w1")
			sleep(g.ctx, 3*time.Hour)
			l.die()
			g.want(delivered, []int{1, 1})
		})
	})
	t.Run("the owner changes again", func(t *testing.T) {
		short := e
		short.Retry.Schedule = steps(10 * time.Minute)
		inTheGap(t, short, func(_ *testing.T, g *deathGap) {
			g.recover(0)
			l := g.start("w1")
			sleep(g.ctx, 50*time.Second)
			l.die()
			l = g.start("w2")
			sleep(g.ctx, time.Hour)
			l.die()
			g.want(delivered, []int{1, 1})
		})
	})
	t.Run("the retry comes while the attempt is under way", func(t *testing.T) {
		short := e
		short.Retry.Schedule = steps(2 * time.Second)
		inTheGap(t, short, func(_ *testing.T, g *deathGap) {
			g.recover(30 * time.Second)
			l := g.start("w1")
			sleep(g.ctx, 10*time.Minute)
			l.die()
			outcomes, posts := g.story()
			if g.ended()[g.posts[0].delivery] != 1 || len(posts) != 2 {
				g.t.Errorf("seed %d: outcomes %v of attempts %v", g.seed, outcomes, posts)
			}
		})
	})
	t.Run("expired", func(t *testing.T) {
		short := e
		short.Retry = registry.Retry{Schedule: steps(50 * time.Minute), MaxAge: registry.Duration(time.Hour)}
		inTheGap(t, short, func(_ *testing.T, g *deathGap) {
			sleep(g.ctx, 2*time.Hour) // the retry is there when the worker comes
			l := g.start("w1")
			sleep(g.ctx, 2*time.Hour)
			l.die()
			if got := g.ended(); got[g.posts[0].delivery] != 1 {
				g.t.Errorf("seed %d: ended %v", g.seed, got)
			}
		})
	})
}

// Both wait parked: the attempt is not made again, as its retry shows that it was made.
func TestParkedBeforeItsRetry(t *testing.T) {
	t.Parallel()
	e := registry.Endpoint{ID: "ep_1", Retry: registry.Retry{Schedule: steps(2*time.Second, time.Hour)}}
	inTheGap(t, e, func(_ *testing.T, g *deathGap) {
		paused := e
		paused.State = registry.StatePaused
		g.change(paused)
		l := g.start("w1")
		sleep(g.ctx, 5*time.Minute)
		g.recover(0)
		g.change(e)
		sleep(g.ctx, 5*time.Minute)
		l.die()
		g.want([]schemas.Outcome{schemas.OutcomeRepeat, schemas.OutcomeDelivered}, []int{1, 2})
	})
}

// Two retries of one attempt that come far apart, with many others in between: one
// of them counts.
func TestForkAfterAnOutage(t *testing.T) {
	t.Parallel()
	step := 30 * time.Minute
	e := registry.Endpoint{ID: "ep_1", Retry: registry.Retry{Schedule: steps(step, step, step)}}
	inTheGap(t, e, func(_ *testing.T, g *deathGap) {
		g.endpoint(registry.Endpoint{ID: "ep_2", Retry: registry.Retry{Schedule: steps(time.Second)}, Breaker: registry.Breaker{Off: true}})
		sleep(g.ctx, 26*time.Minute)
		l := g.start("w1")
		for n := range 150 {
			g.send("ep_2", "", 100+n)
			sleep(g.ctx, time.Minute)
		}
		sleep(g.ctx, 30*time.Minute)
		l.die()
		g.want([]schemas.Outcome{
			schemas.OutcomeRetry, schemas.OutcomeRetry, schemas.OutcomeRepeat, schemas.OutcomeRetry, schemas.OutcomeExhausted,
		}, []int{1, 1, 2, 3, 4})
	})
}
