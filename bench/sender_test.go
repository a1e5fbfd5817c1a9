package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain leaves out the client's cleaner of idle connections, which ends by
// itself within 10 s.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*HostClient).connsCleaner"))
}

// intake is a gateway that remembers the numbers of the events that it accepts.
type intake struct {
	mu      sync.Mutex
	refuse  int    // requests to turn away first
	refused func() // called at each of them
	numbers bitset
	count   int64
	notify  func(count int64)
}

func (i *intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	i.mu.Lock()
	defer i.mu.Unlock()
	if err != nil || i.refuse > 0 || r.Header.Get("Authorization") != "Bearer key" {
		i.refuse--
		w.WriteHeader(http.StatusServiceUnavailable)
		if i.refused != nil {
			i.refused()
		}
		return
	}
	for line := range bytes.Lines(body) {
		if n, ok := numberIn(line); ok && i.numbers.add(n) {
			i.count++
		}
	}
	if i.notify != nil {
		i.notify(i.count)
	}
	w.WriteHeader(http.StatusAccepted)
}

func startIntake(t *testing.T, i *intake) *sender {
	t.Helper()
	server := httptest.NewServer(i)
	s := newSender(strings.TrimPrefix(server.URL, "http://"), "key")
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		server.Close()
	})
	return s
}

func someEvents() *events {
	return newEvents("tenant", 1, func(int64) string { return eventType(0) })
}

func TestPostRepeatsUntilAccepted(t *testing.T) {
	i := &intake{refuse: 2}
	s := startIntake(t, i)
	if err := s.post(t.Context(), jsonType, someEvents().append(nil, 7)); err != nil {
		t.Fatal(err)
	}
	if s.repeats.Load() != 2 || i.count != 1 {
		t.Errorf("%d repeats, %d events; want 2 and 1", s.repeats.Load(), i.count)
	}
}

func TestPostGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := startIntake(t, &intake{refuse: 1 << 30, refused: cancel})
	err := s.post(ctx, jsonType, someEvents().append(nil, 7))
	if err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("got %v, want the last answer", err)
	}
}

// All numbers below next are accepted when a stream ends, and it is never
// further ahead than its backlog and one batch of each worker.
func TestStreamFinishesWhatItBegan(t *testing.T) {
	stop, cancel := context.WithCancel(t.Context())
	defer cancel()
	i := &intake{refuse: 3}
	st := &stream{events: someEvents(), workers: 4, batch: 10, fan: 2, backlog: 200}
	i.notify = func(count int64) {
		st.received.Store(count * st.fan)
		if count >= 500 {
			cancel()
		}
	}
	st.sender = startIntake(t, i)
	if err := st.run(t.Context(), stop); err != nil {
		t.Fatal(err)
	}
	if st.next.Load() != i.count || st.accepted.Load() != i.count {
		t.Errorf("%d given out, %d accepted, %d arrived: want the same", st.next.Load(), st.accepted.Load(), i.count)
	}
}

func TestStreamWaitsForRoom(t *testing.T) {
	stop, cancel := context.WithCancel(t.Context())
	defer cancel()
	soon := sync.OnceFunc(func() { time.AfterFunc(100*time.Millisecond, cancel) })
	i := &intake{notify: func(int64) { soon() }}
	st := &stream{sender: startIntake(t, i), events: someEvents(), workers: 2, batch: 10, fan: 10, backlog: 300}
	if err := st.run(t.Context(), stop); err != nil {
		t.Fatal(err)
	}
	if most := int64(30 + 2*10); i.count == 0 || i.count > most {
		t.Errorf("%d events sent while nothing was received, want 1 to %d", i.count, most)
	}
}

func TestStreamEndsAtItsTotal(t *testing.T) {
	i := &intake{refuse: 1}
	st := &stream{sender: startIntake(t, i), events: someEvents().padded(3), workers: 4, batch: 10, fan: 1, total: 95}
	if err := st.run(t.Context(), t.Context()); err != nil {
		t.Fatal(err)
	}
	if i.count != 90 || st.accepted.Load() != 90 {
		t.Errorf("%d arrived, %d accepted, want 90: whole batches", i.count, st.accepted.Load())
	}
}

func TestScheduleSendsEachNumberOnce(t *testing.T) {
	i := &intake{}
	load := &schedule{sender: startIntake(t, i), events: someEvents(), rate: 1000}
	if err := load.run(t.Context(), t.Context(), 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if i.count != 100 || len(load.acked) != 100 || len(load.due) != 100 {
		t.Fatalf("%d events arrived, %d due, %d acknowledged; want 100 each", i.count, len(load.due), len(load.acked))
	}
	for n := range load.due {
		if n > 0 && load.due[n]-load.due[n-1] != int64(time.Millisecond) {
			t.Errorf("event %d is due %d ns after the one before, want 1 ms", n, load.due[n]-load.due[n-1])
		}
		if load.acked[n] < load.due[n] {
			t.Errorf("event %d was accepted before it was due", n)
		}
	}
}
