package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
)

// sink is a receiver that counts what comes.
type sink struct {
	*httptest.Server
	answer func(r *http.Request) int

	mu     sync.Mutex
	got    []arrival
	keep   bool // keep whole requests
	counts map[string]int
}

// arrival is one request at a sink.
type arrival struct {
	ID, Attempt string
	Path        string // of the URL
	At          time.Time
	Status      int
	Header      http.Header
	Body        string // base64, only where the sink keeps requests
}

func newSink(t *testing.T, answer func(r *http.Request) int) *sink {
	s := &sink{answer: answer, counts: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *sink) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender was killed in the middle
	}
	a := arrival{ID: r.Header.Get("Webhook-Id"), Attempt: r.Header.Get("Postrider-Attempt"), Path: r.URL.Path, At: time.Now(), Status: http.StatusOK}
	if s.answer != nil {
		a.Status = s.answer(r)
	}
	s.mu.Lock()
	if s.keep {
		a.Header, a.Body = r.Header.Clone(), base64.StdEncoding.EncodeToString(body)
	}
	s.got = append(s.got, a)
	if a.Status < 300 {
		s.counts[a.ID]++
	}
	s.mu.Unlock()
	w.WriteHeader(a.Status)
}

// accepted returns how many different events the sink has accepted.
func (s *sink) accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.counts)
}

// arrivals returns all requests so far.
func (s *sink) arrivals() []arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]arrival(nil), s.got...)
}

// missing returns those of the events that the sink has not accepted.
func (s *sink) missing(events []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, id := range events {
		if s.counts[id] == 0 {
			out = append(out, id)
		}
	}
	return out
}

// repeats returns how many requests were a second one of the same attempt.
func (s *sink) repeats() (n int) {
	seen := map[string]bool{}
	for _, a := range s.arrivals() {
		key := a.Path + " " + a.ID + "/" + a.Attempt
		if seen[key] {
			n++
		}
		seen[key] = true
	}
	return n
}

// oneInFive answers each fifth request with 500.
func oneInFive() func(*http.Request) int {
	var count atomic.Int64
	return func(*http.Request) int {
		if count.Add(1)%5 == 0 {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	}
}

// slowly answers after a while.
func slowly(d time.Duration, answer func(*http.Request) int) func(*http.Request) int {
	return func(r *http.Request) int {
		wait(r.Context(), d)
		if answer == nil {
			return http.StatusOK
		}
		return answer(r)
	}
}

// load sends events one by one over HTTP until it is stopped, and remembers
// which were accepted. An event that was not is sent again under its id, as a
// careful producer does.
type load struct {
	g        *gateway
	stop     chan struct{}
	done     sync.WaitGroup
	mu       sync.Mutex
	ids      []string
	refused  atomic.Int64 // answers of 503
	give     atomic.Bool
	interval time.Duration
	typ      string
}

// sendLoad starts a load of about rate events per second over a few connections.
func (g *gateway) sendLoad(typ string, rate int) *load {
	const senders = 8
	l := &load{g: g, stop: make(chan struct{}), interval: time.Second * senders / time.Duration(rate), typ: typ}
	for range senders {
		l.done.Go(l.send)
	}
	return l
}

func (l *load) send() {
	tick := time.NewTicker(l.interval)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		id := uuid.NewString()
		data := map[string]any{"n": id, "total": 120, "sent": time.Now().UnixMicro()}
		body := map[string]any{"id": id, "source": "/e2e", "type": l.typ, "tenant": "acme", "data": data}
		for {
			var got struct {
				ID string `json:"id"`
			}
			status, err := l.g.try("ingest-1", "POST", "/v1/events", body, &got)
			if err == nil && status == http.StatusAccepted {
				l.mu.Lock()
				l.ids = append(l.ids, got.ID)
				l.mu.Unlock()
				break
			}
			if status == http.StatusServiceUnavailable {
				l.refused.Add(1)
			}
			if l.give.Load() {
				break // not accepted: no promise was made
			}
			wait(l.g.t.Context(), 50*time.Millisecond) // a producer's own pause
		}
	}
}

// end stops the load and returns the ids of all accepted events.
func (l *load) end() []string {
	close(l.stop)
	timer := time.AfterFunc(20*time.Second, func() { l.give.Store(true) })
	defer timer.Stop()
	l.done.Wait()
	return l.ids
}

// accepted returns how many events were accepted so far.
func (l *load) accepted() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.ids)
}

// so returns the ids of the events that were accepted so far.
func (l *load) so() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.ids...)
}

// wait pauses a test while a load runs.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// event sends one event and returns its id. While the answer is 503 it sends it
// again, as a careful producer does.
func (g *gateway) event(typ string, data any) string {
	g.t.Helper()
	var got struct {
		ID string `json:"id"`
	}
	body := map[string]any{"id": uuid.NewString(), "source": "/e2e", "type": typ, "tenant": "acme", "data": data}
	eventually(g.t, time.Minute, "an event is accepted", func() bool {
		status, err := g.try("ingest-1", "POST", "/v1/events", body, &got)
		if status >= 400 && status < 500 {
			g.t.Fatalf("event: %d, %v", status, err)
		}
		return err == nil && status == http.StatusAccepted
	})
	return got.ID
}

// events sends n events in batches and returns their ids in order.
func (g *gateway) events(n int) []string {
	g.t.Helper()
	var ids []string
	for len(ids) < n {
		ids = append(ids, g.batch("order.paid", min(500, n-len(ids)))...)
	}
	return ids
}

func (g *gateway) batch(typ string, n int) []string {
	g.t.Helper()
	var lines []byte
	for range n {
		lines = fmt.Appendf(lines, `{"id":%q,"source":"/e2e","type":%q,"tenant":"acme","partitionkey":"one","data":{"total":120}}`+"\n", uuid.NewString(), typ)
	}
	var ids []string
	eventually(g.t, time.Minute, "a batch is accepted", func() (ok bool) {
		var err error
		if ids, err = g.post("application/x-ndjson", lines); err != nil && !strings.HasPrefix(err.Error(), "503") {
			g.t.Fatal(err)
		}
		return err == nil
	})
	return ids
}
