package deliver

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// However many shards an endpoint had, those that it has divide its limits, and what
// the others may still do keeps the whole below twice the limits.
func TestFormerShardsKeepTheirPart(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ shards, most, flying, burst, inFlight, bursts int }{
		{shards: 4, most: 4, flying: 8, burst: 20, inFlight: 8, bursts: 20},
		{shards: 1, most: 4, flying: 8, burst: 20, inFlight: 8 + 3*2, bursts: 20 + 3*5},
		{shards: 2, most: 4, flying: 8, burst: 20, inFlight: 8 + 2*2, bursts: 20 + 2*5},
		{shards: 1, most: 16, flying: 0, burst: 0, inFlight: 32 + 15*2, bursts: 100 + 12*6 + 3*7},
		{shards: 1, most: 16, flying: 2, burst: 1, inFlight: 2 + 15, bursts: 1 + 15}, // each lane may make one
	} {
		e := &registry.Endpoint{
			ID: "ep_1", Tenant: "acme", URL: "https://a.example/", Shards: test.shards, MostShards: test.most,
			MaxInFlight: test.flying, RateLimit: registry.RateLimit{PerSecond: 100, Burst: test.burst},
		}
		inFlight, bursts, rate, former := 0, 0, 0.0, 0
		for shard := range test.most {
			x, err := newTarget(e, 7, shard, openSealer{}, DefaultMaxAge)
			if err != nil {
				t.Fatal(err)
			}
			inFlight, bursts, rate = inFlight+x.maxInFlight, bursts+x.burst, rate+x.rate
			if x.former {
				former++
			}
		}
		want := 100 * (1 + float64(test.most-test.shards)/float64(test.most))
		if rate < want-0.001 || rate > want+0.001 {
			t.Errorf("%d of %d shards: %g/s in all, want %g", test.shards, test.most, rate, want)
		}
		if inFlight != test.inFlight || bursts != test.bursts || former != test.most-test.shards {
			t.Errorf("%d of %d shards: %d in flight, a burst of %d, %d former; want %+v", test.shards, test.most, inFlight, bursts, former, test)
		}
	}
}

// The number of shards changes while records of all of them wait: what is started
// stays within what the lanes may do together, and everything arrives once.
func TestShardsChangeUnderLoad(t *testing.T) {
	for _, test := range []struct {
		from, to int
		rate     float64 // in all
		inFlight int
	}{
		{from: 4, to: 1, rate: 10 + 3*2.5, inFlight: 8 + 3*2},
		{from: 4, to: 2, rate: 10 + 2*2.5, inFlight: 8 + 2*2},
		{from: 1, to: 4, rate: 10, inFlight: 8},
	} {
		t.Run(fmt.Sprint(test.from, " to ", test.to), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n, burst = 200, 4
				s := newSim(t, 1)
				s.failing = func(string, int) bool { return false }
				e := registry.Endpoint{
					ID: "ep_1", Shards: test.from, MostShards: max(test.from, test.to), State: registry.StatePaused,
					RateLimit: registry.RateLimit{PerSecond: 10, Burst: burst}, MaxInFlight: 8,
				}
				s.endpoint(e)
				l := s.start("w0")
				for i := range n {
					s.sendTo("ep_1", i%test.from, i)
				}
				l.parked(n)
				e.State = registry.StateEnabled
				s.change(e)
				sleep(t.Context(), 5*time.Second)
				e.Shards = test.to
				s.change(e)
				for i := n; i < n+40; i++ {
					s.sendTo("ep_1", i%test.to, i)
				}
				most := 0
				for until := time.Now().Add(time.Hour); s.written(s.topics.Attempts) < n+40 && time.Now().Before(until); {
					sleep(t.Context(), 10*time.Millisecond)
					l.w.mu.Lock()
					most = max(most, len(l.w.running))
					l.w.mu.Unlock()
				}
				l.die()
				if most > test.inFlight {
					t.Errorf("%d attempts at once, want at most %d", most, test.inFlight)
				}
				s.checkRate(test.rate, 2*burst)
				if ended := s.ended(); len(ended) != n+40 || len(s.posts) != n+40 {
					t.Errorf("%d of %d deliveries ended, %d requests", len(ended), n+40, len(s.posts))
				}
			})
		})
	}
}

// A former shard is told of, and disables nothing, only while it has something left;
// its breaker does not stay open for ever, whoever owns it.
func TestFormerShardIsMended(t *testing.T) {
	for _, handover := range []bool{false, true} {
		t.Run(fmt.Sprint("hand-over ", handover), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const lane = "ep_1-3"
				s := newSim(t, 1)
				s.failing = func(string, int) bool { return true }
				second := registry.Duration(time.Second)
				e := registry.Endpoint{
					ID: "ep_1", Shards: 4, MostShards: 4, Breaker: registry.Breaker{Failures: 1},
					Retry: registry.Retry{Schedule: []registry.Duration{second}},
				}
				s.endpoint(e)
				ctx, stop := context.WithCancel(t.Context())
				var wheel sync.WaitGroup
				wheel.Go(func() { s.turnWheel(ctx) })
				l := s.start("w0")
				const n = 20
				for i := range n {
					s.sendTo("ep_1", 3, i)
				}
				l.parked(n - 2)
				e.Shards = 1
				s.change(e)
				sleep(t.Context(), 5*time.Minute)
				if s.told(lane) == nil {
					t.Error("the registry is not told of a breaker that holds up what is left for a former shard")
				}
				for until := time.Now().Add(5 * time.Hour); s.finals("") < n && time.Now().Before(until); {
					sleep(t.Context(), 10*time.Second)
				}
				if handover {
					l.die()
					l = s.start("w1")
				}
				sleep(t.Context(), 5*time.Minute)
				l.w.mu.Lock()
				if f := l.w.homes[0].lanes[lane]; f != nil && (f.breaker.isOpen() || !f.failingSince.IsZero()) {
					t.Errorf("the former shard has failed since %s, its breaker is open: %t", f.failingSince, f.breaker.isOpen())
				}
				l.w.mu.Unlock()
				if told := s.told(lane); told != nil {
					t.Errorf("the registry is told %s of a former shard that has nothing left", told)
				}
				if state := s.last(s.topics.Lanes, lane+stateSuffix); len(state) > 0 {
					t.Errorf("lanes have the state %s of a former shard that has nothing left", state)
				}
				l.die()
				stop()
				wheel.Wait()
			})
		})
	}
}

// told returns the last report of a lane, nil where there is none or it was taken back.
func (s *sim) told(lane string) []byte {
	return s.last(s.topics.Registry, string(registry.EncodeKey("acme", lane+registry.ReportSuffix)))
}

// last returns the last value under a key, nil where there is none.
func (s *sim) last(topic, key string) (value []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.logs[topic] {
		if string(r.Key) == key {
			value = r.Value
		}
	}
	return value
}

// checkRate checks that in no stretch of time more requests came than a rate and a
// burst allow. A request is seen a moment after its attempt was allowed.
func (s *sim) checkRate(rate float64, burst int) {
	s.t.Helper()
	const slack = 100 * time.Millisecond
	for i := range s.posts {
		for j := i; j < len(s.posts); j++ {
			span := s.posts[j].at.Sub(s.posts[i].at)
			if most := float64(burst) + (span+slack).Seconds()*rate; float64(j-i+1) > most+1 {
				s.t.Errorf("%d requests within %s at %g/s", j-i+1, span, rate)
				return
			}
		}
	}
}

// sendTo appends a first attempt for one shard of an endpoint.
func (s *sim) sendTo(endpoint string, shard, n int) {
	e := schemas.Event{
		ID: strconv.Itoa(n), Source: "/sim", Type: "t", Tenant: "acme", DataContentType: "application/json",
		Time: "2026-11-22T10:00:00Z", Data: fmt.Appendf(nil, `"%d,"`, n),
	}
	id := e.EventID()
	d := &schemas.Delivery{
		Event: e, ID: schemas.DeliveryID(id, endpoint, ""), EventID: id, Endpoint: endpoint, Shard: shard, Attempt: 1, MadeAt: time.Now(),
	}
	s.append(&kgo.Record{
		Topic: s.topics.Deliveries, Key: []byte(d.Lane()), Value: e.Data, Headers: schemas.AppendDeliveryHeaders[kgo.RecordHeader](nil, d),
	})
}
