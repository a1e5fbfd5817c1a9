package deliver

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/registry"
)

// simulateEdits changes endpoints while their deliveries are in flight, parked and
// scheduled, and kills the worker at random moments: nothing is lost, each delivery
// ends once, no attempt is made again under its number once its outcome is known,
// and nothing of a deleted endpoint stays behind.
func simulateEdits(t *testing.T, seed uint64) {
	s := newSim(t, seed)
	s.refusing = []int{0, 30, 300}[s.rng.IntN(3)]
	second := registry.Duration(time.Second)
	endpoints := map[string]registry.Endpoint{}
	for _, id := range []string{"ep_a", "ep_b", "ep_gone"} {
		endpoints[id] = registry.Endpoint{
			ID: id, Ordered: s.draw(2) == 0, Retry: registry.Retry{Schedule: []registry.Duration{second, 2 * second, 30 * second}},
			Breaker: registry.Breaker{Failures: 1000, MinAttempts: 100_000},
		}
		s.endpoint(endpoints[id])
	}
	share := s.draw(60)
	s.failing = func(string, int) bool { return s.draw(100) < share }
	pace := []int{60, 600}[s.draw(2)] // milliseconds
	const n = 200

	ctx, stop := context.WithCancel(t.Context())
	var world, changes sync.WaitGroup
	world.Go(func() { s.turnWheel(ctx) })
	sent := map[string]string{}
	world.Go(func() {
		for i := range n {
			endpoint := []string{"ep_a", "ep_b", "ep_gone"}[s.draw(3)]
			id := s.send(endpoint, []string{"", "a", "b"}[s.draw(3)], i)
			s.mu.Lock()
			sent[id] = endpoint
			s.mu.Unlock()
			if !sleep(ctx, time.Duration(s.draw(pace))*time.Millisecond) {
				return
			}
		}
	})
	changes.Go(func() {
		for range 30 {
			sleep(ctx, time.Duration(s.draw(5*pace))*time.Millisecond)
			s.edit(endpoints) //nolint:contextcheck // the worker has a life of its own
		}
		for _, id := range slices.Sorted(maps.Keys(endpoints)) {
			e := endpoints[id]
			e.State = registry.StateEnabled
			s.change(e) //nolint:contextcheck // as above
		}
	})
	l := s.start("w0")
	for i := range 1 + s.draw(6) {
		sleep(ctx, time.Duration(s.draw(100*pace))*time.Millisecond)
		l.die()
		l = s.start(fmt.Sprint("w", i+1))
	}
	changes.Wait()
	left := n
	for until := time.Now().Add(time.Hour); left > 0 && time.Now().Before(until); {
		sleep(ctx, 10*time.Second)
		left = s.unended(n, sent)
	}
	if left > 0 {
		l.describe()
		t.Errorf("seed %d: %d deliveries have not ended", seed, left)
	}
	sleep(ctx, 2*rewriteAfter)
	l.die()
	stop()
	world.Wait()
	for id, n := range s.ended() {
		if n != 1 && id != "" && sent[id] != "ep_gone" { // what was never read has no id
			t.Errorf("seed %d: delivery %s of %s ended %d times", seed, id, sent[id], n)
		}
	}
	s.checkRepeats()
	s.checkParked()
}

// unended returns how many of n deliveries have not ended. Those of an endpoint
// that is deleted may end together, and where a worker died between a retry and its
// outcome one of them may end twice.
func (s *sim) unended(n int, sent map[string]string) int {
	ended, gone := s.ended(), s.finals("ep_gone")
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, endpoint := range sent {
		switch {
		case endpoint != "ep_gone":
			n -= min(ended[id], 1)
		case gone > 0:
			n, gone = n-1, gone-1
		}
	}
	return n
}

// edit changes an endpoint as a seed says.
func (s *sim) edit(endpoints map[string]registry.Endpoint) {
	ids := slices.Sorted(maps.Keys(endpoints))
	id := ids[s.draw(len(ids))]
	e := endpoints[id]
	switch s.draw(6) {
	case 0, 1:
		e.Ordered = !e.Ordered
	case 2:
		e.State = registry.StatePaused
	case 3:
		e.State = registry.StateEnabled
	case 4:
		e.RateLimit = registry.RateLimit{PerSecond: float64(1 + s.draw(30)), Burst: 1 + s.draw(3)}
	default:
		if id == "ep_gone" {
			delete(endpoints, id)
			s.remove(id)
			return
		}
		e.OnExhausted = []registry.OnExhausted{registry.SkipExhausted, registry.BlockExhausted}[s.draw(2)]
	}
	endpoints[id] = e
	s.change(e)
}

// finals counts the deliveries that have ended, of one endpoint or of all ("").
func (s *sim) finals(endpoint string) (n int) {
	for _, a := range s.attempts() {
		if a.Outcome.Final() && (endpoint == "" || a.Endpoint == endpoint) {
			n += max(int(a.Count), 1)
		}
	}
	return n
}

// TestSimulationEdits is the model of changes under load.
func TestSimulationEdits(t *testing.T) {
	for seed := uint64(*firstSeed); seed < uint64(*firstSeed+*simulations); seed++ {
		synctest.Test(t, func(t *testing.T) { simulateEdits(t, seed) })
		if t.Failed() {
			return
		}
	}
}

// minutes is a schedule whose retries outlast what a test does meanwhile.
func minutes() registry.Retry {
	return registry.Retry{Schedule: []registry.Duration{registry.Duration(10 * time.Minute)}}
}

// What was parked before its endpoint became ordered keeps its place when it
// fails: a later owner knows of the attempt, also once the completion log is past it.
func TestFailsInAChunkWithoutKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.failing = func(_ string, attempt int) bool { return attempt == 1 }
		e := registry.Endpoint{ID: "ep_1", State: registry.StatePaused, Retry: minutes()}
		s.endpoint(e)
		l := s.start("w0")
		s.send("ep_1", "k", 1)
		s.send("ep_1", "k", 2)
		sleep(t.Context(), 10*time.Second)
		e.State, e.Ordered = registry.StateEnabled, true
		s.change(e)
		sleep(t.Context(), 3*time.Minute)
		l.die()
		l = s.start("w1")
		sleep(t.Context(), time.Hour)
		l.die()
		if got := s.numbers(); !slices.Equal(got, []int{1, 2, 1, 2}) {
			t.Errorf("attempts %v, want two of each delivery", got)
		}
		s.checkDue()
	})
}

// A head that is in flight when its endpoint ceases to be ordered, and fails, does
// not begin to count anew.
func TestFailsWhenNoLongerOrdered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		e := registry.Endpoint{ID: "ep_1", Ordered: true, Retry: minutes()}
		s.endpoint(e)
		s.failing = func(_ string, attempt int) bool {
			if attempt == 1 {
				e.Ordered = false
				s.change(e)
			}
			return attempt == 1
		}
		l := s.start("w0")
		s.send("ep_1", "k", 1)
		sleep(t.Context(), time.Hour)
		l.die()
		if got := s.numbers(); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("attempts %v, want 1 and 2", got)
		}
	})
}

// A parked head that is in flight when its endpoint is deleted, and fails, ends as
// the others do.
func TestFailsWhenDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		e := registry.Endpoint{ID: "ep_1", Ordered: true, State: registry.StatePaused, Retry: minutes()}
		s.endpoint(e)
		s.failing = func(string, int) bool { s.remove("ep_1"); return true }
		l := s.start("w0")
		s.send("ep_1", "k", 1)
		s.send("ep_1", "k", 2)
		sleep(t.Context(), 10*time.Second)
		e.State = registry.StateEnabled
		s.change(e)
		sleep(t.Context(), time.Minute)
		l.die()
		if got := s.finals(""); got != 2 {
			t.Errorf("%d of 2 deliveries ended: %+v", got, s.attempts())
		}
		s.checkParked()
	})
}

// While an endpoint is not known its records are parked with their keys, lest it
// be ordered. Once it is known not to be, keys are written no more, and those that
// were go with the next merge.
func TestKeysOfTheUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		e := registry.Endpoint{ID: "ep_1", State: registry.StatePaused, Retry: minutes()}
		s.endpoint(e)
		s.failing, s.away = func(string, int) bool { return false }, true
		l := s.start("w0")
		formats := func() string {
			s.mu.Lock()
			defer s.mu.Unlock()
			var out []byte
			for _, r := range s.logs[s.topics.Lanes] {
				if kind, _, _ := laneKind(string(r.Key)); kind == kindChunk && r.Value != nil {
					out = append(out, '0'+r.Value[0])
				}
			}
			return string(out)
		}
		n := 0
		send := func(records int) {
			for range records {
				n++
				s.send("ep_1", "k", n)
			}
		}
		send(laneQueue + 1) // one more than wait in memory to become known
		sleep(t.Context(), 20*time.Second)
		keyed := formats()
		if strings.Trim(keyed, "2") != "" || keyed == "" {
			t.Errorf("chunks of the formats %q, want some with keys", keyed)
		}
		send(1)
		for pending := 0; pending == 0; {
			sleep(t.Context(), 10*time.Millisecond)
			l.w.mu.Lock()
			pending = len(l.w.pending)
			l.w.mu.Unlock()
		}
		s.mu.Lock()
		s.away = false
		s.mu.Unlock()
		sleep(t.Context(), 10*time.Second)
		for range mergeAbove + 8 {
			send(1)
			sleep(t.Context(), 10*time.Second)
		}
		known, ok := strings.CutPrefix(formats(), keyed)
		if !ok || strings.Contains(known, "2") || len(known) < mergeAbove {
			t.Errorf("chunks of the formats %q, want %s and then none with keys: what was flushed and what was merged", formats(), keyed)
		}
		e.State = registry.StateEnabled
		s.change(e)
		sleep(t.Context(), time.Hour)
		l.die()
		if got := s.finals(""); got != n {
			t.Errorf("%d of %d delivered", got, n)
		}
	})
}

// sleepwalk takes the partition over as a worker does that was stopped in the middle
// of one, and goes on before it hears that the group has given its partition away.
func (s *sim) sleepwalk() {
	owner := &kgo.Record{Topic: s.topics.Lanes, Key: []byte(ownerKey), Value: ownerValue("sleeper")}
	s.append(owner)
	l := newLedger()
	s.mu.Lock()
	for _, r := range s.logs[s.topics.Lanes] {
		l.apply(r)
	}
	from := s.committed
	s.mu.Unlock()
	left, err := l.estate(owner.Offset, from.epoch)
	if err != nil {
		s.t.Error(err)
		return
	}
	n := int64(0)
	for name, p := range left.chunks {
		for _, c := range pack(p, func() int64 { n++; return n }) {
			s.append(&kgo.Record{Topic: s.topics.Lanes, Key: chunkKey(name, owner.Offset, c.number), Value: c.body})
		}
	}
	s.append(&kgo.Record{Topic: s.topics.Lanes, Key: readyRecordKey(owner.Offset), Value: ownerValue("sleeper")})
}

// What the group's owner parks and commits before it has heard of a worker that
// took the partition over in its sleep is not lost, though that one's epoch is
// higher, and ready.
func TestSleeperIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return false }
		e := registry.Endpoint{ID: "ep_1", State: registry.StatePaused}
		s.endpoint(e)
		l := s.start("w0")
		const events = 10
		for n := range events {
			if n == events/2 {
				l.parked(n)
				sleep(t.Context(), 5*time.Second)
				s.sleepwalk()
			}
			s.send("ep_1", "", n)
		}
		l.parked(events)
		sleep(t.Context(), 3*time.Second) // it commits
		for _, worker := range []string{"w0", "w1"} {
			l.die()
			l = s.start(worker)
			sleep(t.Context(), time.Minute)
		}
		e.State = registry.StateEnabled
		s.change(e)
		sleep(t.Context(), time.Hour)
		l.die()
		if got := s.finals(""); got != events {
			t.Errorf("%d of %d delivered", got, events)
		}
		s.checkParked()
	})
}

// A worker that dies before its first commit leaves the chunks of who committed
// last as they are.
func TestDiesBeforeItsFirstCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return false }
		e := registry.Endpoint{ID: "ep_1", State: registry.StatePaused}
		s.endpoint(e)
		l := s.start("w0")
		for n := range 10 {
			s.send("ep_1", "", n)
		}
		l.parked(10)
		sleep(t.Context(), 5*time.Second)
		for n, refuse := range []bool{true, true, false} {
			l.die()
			s.mu.Lock()
			s.refuse = refuse
			s.mu.Unlock()
			l = s.start(fmt.Sprint("w", n+1))
			l.parked(10)
			sleep(t.Context(), 10*time.Second)
		}
		e.State = registry.StateEnabled
		s.change(e)
		sleep(t.Context(), time.Minute)
		l.die()
		if got := s.finals(""); got != 10 {
			t.Errorf("%d of 10 delivered", got)
		}
		s.checkParked()
	})
}

// numbers returns the numbers of the attempts that were made, in their order.
func (s *sim) numbers() (out []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.posts {
		out = append(out, p.attempt)
	}
	return out
}

// However many parked records retention took away, no more of them are on their
// way to attempts at once than of any other.
func TestLossIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const total = 20_000
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return false }
		e := registry.Endpoint{ID: "ep_lost", State: registry.StatePaused}
		s.endpoint(e)
		s.made, s.total = func(offset int64) *kgo.Record { return s.record("ep_lost", offset) }, total
		l := s.start("w0")
		l.parked(total)
		s.mu.Lock()
		s.gone = total
		s.mu.Unlock()
		e.State = registry.StateEnabled
		s.change(e)
		most := 0
		for ended, until := 0, time.Now().Add(time.Hour); ended < total && time.Now().Before(until); {
			sleep(t.Context(), 10*time.Millisecond)
			s.mu.Lock()
			ended = len(s.logs[s.topics.Attempts])
			s.mu.Unlock()
			l.w.mu.Lock()
			most = max(most, l.w.unwritten)
			l.w.mu.Unlock()
		}
		l.die()
		if got := s.finals(""); got != total || most == 0 || most > l.w.maxUnwritten() {
			t.Errorf("%d of %d ended, %d outcomes on their way at once", got, total, most)
		}
	})
}

// parked waits until a number of records is parked.
func (l *life) parked(n int) {
	for until := time.Now().Add(time.Hour); sleep(l.ctx, time.Second); {
		if time.Now().After(until) {
			l.sim.t.Errorf("%d records are not parked within an hour", n)
			return
		}
		l.w.mu.Lock()
		got := l.w.census().parked
		l.w.mu.Unlock()
		if got >= n {
			return
		}
	}
}

// Parked records are visited when the first of them is too old, not over and over
// because their chunk once began with one that was.
func TestVisitsAreRare(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		t.Run(fmt.Sprint("ordered ", ordered), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, 1)
				s.failing = func(string, int) bool { return false }
				s.endpoint(registry.Endpoint{
					ID: "ep_1", State: registry.StatePaused, Ordered: ordered, Retry: registry.Retry{MaxAge: registry.Duration(time.Hour)},
				})
				l := s.start("w0")
				s.send("ep_1", "", 1)
				sleep(t.Context(), 20*time.Minute)
				s.send("ep_1", "", 2)
				sleep(t.Context(), time.Minute)
				l.die()
				l = s.start("w1") // which makes one chunk of both
				sleep(t.Context(), 45*time.Minute)
				first, before := s.finals(""), s.counted()
				sleep(t.Context(), 10*time.Minute)
				if reads := s.counted() - before; first != 1 || reads > 0 {
					t.Errorf("%d of the parked records have expired, want the first; %d visits of the other", first, reads)
				}
				sleep(t.Context(), 10*time.Minute)
				if got := s.finals(""); got != 2 {
					t.Errorf("%d of 2 parked records have expired", got)
				}
				l.die()
			})
		})
	}
}

// counted returns how often parked records were read.
func (s *sim) counted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

// However many attempts are under way when an endpoint says that it wants no more,
// that is written once.
func TestGoneIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.status = http.StatusGone
		s.failing = func(string, int) bool { return true }
		s.endpoint(registry.Endpoint{ID: "ep_1"})
		l := s.start("w0")
		for n := range 5 {
			s.send("ep_1", "", n)
		}
		sleep(t.Context(), time.Minute)
		l.die()
		if made := len(s.numbers()); made != slowStart {
			t.Errorf("%d attempts, want %d at once and none after that", made, slowStart)
		}
		if told := len(s.logs[s.topics.Registry]); told != 1 {
			t.Errorf("%d records of the endpoint's health, want 1", told)
		}
	})
}
