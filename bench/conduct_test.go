package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/valyala/fasthttp"
)

func TestConduct(t *testing.T) {
	for _, row := range []struct {
		name    string
		conduct conduct
		status  int
		took    time.Duration
	}{
		{"at first", conduct{}, 204, 0},
		{"refuses", conduct{Status: 503}, 503, 0},
		{"takes its time", conduct{DelayMS: 30}, 204, 30 * time.Millisecond},
		{"hangs", conduct{Hang: true}, 500, hangLimit},
	} {
		synctest.Test(t, func(t *testing.T) {
			row.conduct.over = make(chan struct{})
			start := time.Now()
			if status := row.conduct.meet(); status != row.status || time.Since(start) != row.took {
				t.Errorf("%s: %d after %s, want %d after %s", row.name, status, time.Since(start), row.status, row.took)
			}
		})
	}
}

// What hangs fails as soon as its run is told to behave in another way, and only
// what is answered with success is booked.
func TestSinkChangesConduct(t *testing.T) {
	s := &sink{runs: map[int]*ledger{}}
	tell := func(body string) {
		if got := ask(s, "POST", conductPath+"?run=1", body).StatusCode(); got != fasthttp.StatusOK {
			t.Fatalf("conduct %s: status %d", body, got)
		}
	}
	tell(`{"hang":true}`)
	answered := make(chan int)
	go func() { answered <- ask(s, "POST", "/1/0", `{"n":1}`).StatusCode() }()
	if err := poll(t.Context(), time.Minute, func() (bool, error) { return s.ledger(1).flight.Load() == 1, nil }); err != nil {
		t.Fatal("nothing hangs: ", err)
	}
	tell(`{"status":503}`)
	if status := <-answered; status != 500 && status != 503 { // 503 if it came late
		t.Errorf("status %d", status)
	}
	tell(`{}`)
	if status := ask(s, "POST", "/1/0", `{"n":1}`).StatusCode(); status != fasthttp.StatusNoContent {
		t.Errorf("status %d", status)
	}
	if got, want := s.ledger(1).snapshot(), (counts{Received: 1, Distinct: 1, Refused: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := ask(s, "POST", conductPath+"?run=1", `{"hang":1}`).StatusCode(); got != fasthttp.StatusBadRequest {
		t.Errorf("bad conduct: status %d", got)
	}
}
