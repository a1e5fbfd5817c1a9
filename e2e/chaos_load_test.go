package e2e

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/postrider/postrider/schemas"
)

// sent is an event that was accepted, and what the load knows of it.
type sent struct {
	id, typ, tenant string
	passes          bool // the filter, for typeFiltered
	tries           int  // how often it was sent
}

// knowingLoad sends events until it is stopped and remembers what must become
// of each.
type knowingLoad struct {
	g        *gateway
	interval time.Duration
	stop     chan struct{}
	done     sync.WaitGroup
	give     atomic.Bool
	doomed   atomic.Bool // the tenant that is deleted is still there
	seq      atomic.Int64

	mu      sync.Mutex
	sent    []sent
	answers map[int]int // status → how often; 0 without an answer
}

// startLoad sends about rate events a second.
func (g *gateway) startLoad(rate int, seed uint64) *knowingLoad {
	const senders = 6
	l := &knowingLoad{g: g, interval: time.Second * senders / time.Duration(rate), stop: make(chan struct{}), answers: map[int]int{}}
	l.doomed.Store(true)
	for i := range senders {
		rng := rand.New(rand.NewPCG(seed, uint64(i)+1000))
		l.done.Go(func() { l.run(rng) })
	}
	return l
}

func (l *knowingLoad) run(rng *rand.Rand) {
	tick := time.NewTicker(l.interval)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
			l.one(rng)
		}
	}
}

// one sends an event until it is accepted; one in a hundred is then sent again,
// half of these with other data.
func (l *knowingLoad) one(rng *rand.Rand) {
	e := sent{typ: pick(rng), tenant: "acme"}
	if e.typ == typeDoomed {
		if !l.doomed.Load() {
			return
		}
		e.tenant = "doomed"
	}
	id, total := uuid.NewString(), rng.IntN(200)
	e.passes = total > 100
	e.id = schemas.EventID(e.tenant, "/chaos", id)
	data := map[string]any{"total": total, "key": strconv.Itoa(rng.IntN(6)), "n": l.seq.Add(1)}
	body := map[string]any{"id": id, "source": "/chaos", "type": e.typ, "tenant": e.tenant, "partitionkey": data["key"], "data": data}
	if !l.persist(&e, body) {
		return
	}
	if rng.IntN(100) == 0 {
		if rng.IntN(2) == 0 && e.typ != typeFiltered {
			data["total"] = total + 1000
		}
		l.persist(&e, body)
	}
	l.mu.Lock()
	l.sent = append(l.sent, e)
	l.mu.Unlock()
}

// persist sends until the answer is 202; false if the load was given up first or
// the event is refused for good, which only a deleted tenant's may be.
func (l *knowingLoad) persist(e *sent, body map[string]any) bool {
	for {
		e.tries++
		code, answer, err := l.g.ask(ask{instance: "ingest-1", method: http.MethodPost, path: "/v1/events", body: body})
		if err != nil {
			code = 0
		}
		l.mu.Lock()
		l.answers[code]++
		l.mu.Unlock()
		switch {
		case code == http.StatusAccepted:
			var got struct {
				ID string `json:"id"`
			}
			if err := json.Unmarshal(answer, &got); err != nil || got.ID != e.id {
				l.g.t.Errorf("accepted as %q, want %s (%v)", got.ID, e.id, err)
			}
			return true
		case code >= 400 && code < 500:
			if e.tenant == "acme" {
				l.g.t.Errorf("event refused: %d %.300s", code, answer)
			}
			l.doomed.Store(false)
			return false
		}
		if l.give.Load() {
			return false
		}
		wait(context.Background(), 100*time.Millisecond)
	}
}

func pick(rng *rand.Rand) string {
	switch n := rng.IntN(100); {
	case n < 40:
		return typeOften
	case n < 65:
		return typeMore
	case n < 85:
		return typeSome
	case n < 90:
		return typeRare
	case n < 93:
		return typeNobodys
	case n < 97:
		return typeFiltered
	}
	return typeDoomed
}

// end stops the load and returns what was accepted.
func (l *knowingLoad) end() []sent {
	close(l.stop)
	timer := time.AfterFunc(30*time.Second, func() { l.give.Store(true) })
	defer timer.Stop()
	l.done.Wait()
	return l.sent
}
