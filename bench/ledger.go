package main

import (
	"bytes"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Bounds of what one run may hold in the sink.
const (
	maxEndpoints = 1 << 17
	maxNumber    = 1 << 28
	maxArrivals  = 1 << 20
)

// counts is what the sink says about a run.
type counts struct {
	// Received are all requests, Distinct the different pairs of event and
	// endpoint among them; the difference are repeats.
	Received int64 `json:"received"`
	Distinct int64 `json:"distinct"`
	// Unreadable are requests without a number.
	Unreadable int64 `json:"unreadable"`
	// Refused are requests that got no 2xx because the run was told so; they are
	// not among Received.
	Refused int64 `json:"refused"`
}

// arrival is one request that a traced endpoint received.
type arrival struct {
	Number int64 `json:"n"`
	At     int64 `json:"t"` // Unix nanoseconds
	// Flight is how many requests of the run were under way, this one included.
	Flight int64 `json:"f"`
}

// ledger is what arrived for one run. Its events are told apart by the number
// in their data, its endpoints by their path.
type ledger struct {
	conduct atomic.Pointer[conduct]
	flight  atomic.Int64

	mu       sync.Mutex
	counts   counts
	seen     []bitset // by endpoint
	arrivals []arrival
}

func newLedger() *ledger {
	l := &ledger{}
	l.conduct.Store(&conduct{over: make(chan struct{})})
	return l
}

// note books a request that is answered with success. Only the first
// maxArrivals are remembered by time.
func (l *ledger) note(p place, body []byte, at, flight int64) {
	number, ok := numberIn(body)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Received++
	if !ok || p.endpoint < 0 || p.endpoint >= maxEndpoints {
		l.counts.Unreadable++
		return
	}
	if more := p.endpoint + 1 - len(l.seen); more > 0 {
		l.seen = append(l.seen, make([]bitset, more)...)
	}
	if l.seen[p.endpoint].add(number) {
		l.counts.Distinct++
	}
	if p.traced && len(l.arrivals) < maxArrivals {
		l.arrivals = append(l.arrivals, arrival{number, at, flight})
	}
}

func (l *ledger) refused() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Refused++
}

func (l *ledger) snapshot() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts
}

func (l *ledger) trace() []arrival {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]arrival{}, l.arrivals...)
}

// numberIn returns the event's number: the digits after the first "n": of the
// body, which the sender puts at the start of the data.
func numberIn(body []byte) (int64, bool) {
	_, rest, found := bytes.Cut(body, []byte(`"n":`))
	if !found {
		return 0, false
	}
	var n int64
	digits := 0
	for ; digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' && n < maxNumber; digits++ {
		n = n*10 + int64(rest[digits]-'0')
	}
	return n, digits > 0 && n < maxNumber
}

// place is what an endpoint's path says: /<run>/<endpoint>, with /t behind it
// where the times of arrival are wanted.
type place struct {
	run, endpoint int
	traced        bool
}

func parsePlace(path string) (p place, ok bool) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	p.traced = len(parts) == 3 && parts[2] == "t"
	if len(parts) != 2 && !p.traced {
		return place{}, false
	}
	var errRun, errEndpoint error
	p.run, errRun = strconv.Atoi(parts[0])
	p.endpoint, errEndpoint = strconv.Atoi(parts[1])
	return p, errRun == nil && errEndpoint == nil
}

func (p place) path() string {
	path := "/" + strconv.Itoa(p.run) + "/" + strconv.Itoa(p.endpoint)
	if p.traced {
		path += "/t"
	}
	return path
}
