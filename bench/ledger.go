package main

import (
	"bytes"
	"strconv"
	"strings"
	"sync"
)

// Bounds of what one run may hold in the sink.
const (
	maxEndpoints = 1024
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
}

// arrival is one request that a traced endpoint received.
type arrival struct {
	Number int64 `json:"n"`
	At     int64 `json:"t"` // Unix nanoseconds
}

// ledger is what arrived for one run. Its events are told apart by the number
// in their data, its endpoints by their path.
type ledger struct {
	mu       sync.Mutex
	counts   counts
	seen     [maxEndpoints]bitset
	arrivals []arrival
}

// note books a request. Only the first maxArrivals are remembered by time.
func (l *ledger) note(endpoint int, body []byte, at int64, traced bool) {
	number, ok := numberIn(body)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Received++
	if !ok || endpoint < 0 || endpoint >= maxEndpoints {
		l.counts.Unreadable++
		return
	}
	if l.seen[endpoint].add(number) {
		l.counts.Distinct++
	}
	if traced && len(l.arrivals) < maxArrivals {
		l.arrivals = append(l.arrivals, arrival{number, at})
	}
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
