package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestNumberIn(t *testing.T) {
	for body, want := range map[string]int64{
		`{"type":"bench.0","timestamp":"2026-01-01T00:00:00Z","data":{"n":42,"pad":"\"n\":7"}}`: 42,
		`{"n":0}`:                    0,
		`{"n":`:                      -1,
		`{"n":x}`:                    -1,
		`{}`:                         -1,
		``:                           -1,
		`{"n":99999999999999999999}`: -1,
	} {
		got, ok := numberIn([]byte(body))
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%s: got %d, want %d", body, got, want)
		}
	}
}

// The number that the sender writes is the one that the sink reads.
func TestSentNumberIsRead(t *testing.T) {
	e := newEvents("tenant", 3, func(n int64) string { return "bench.1" })
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, maxNumber-1).Draw(t, "n")
		if got, ok := numberIn(e.append(nil, n)); !ok || got != n {
			t.Fatalf("got %d %t, want %d", got, ok, n)
		}
	})
}

func TestPlace(t *testing.T) {
	for _, want := range []place{{0, 0, false}, {12, 7, true}} {
		got, ok := parsePlace(want.path())
		if !ok || got != want {
			t.Errorf("%s: got %v %t", want.path(), got, ok)
		}
	}
	for _, path := range []string{"", "/", "/1", "/1/x", "/1/2/3", "/1/2/t/4", "/x/2"} {
		if got, ok := parsePlace(path); ok {
			t.Errorf("%q: got %v, want a refusal", path, got)
		}
	}
}

func TestLedgerCounts(t *testing.T) {
	l := newLedger()
	l.note(place{endpoint: 0, traced: true}, []byte(`{"n":1}`), 10, 1)
	l.note(place{endpoint: 0, traced: true}, []byte(`{"n":1}`), 20, 2)
	l.note(place{endpoint: 1}, []byte(`{"n":1}`), 30, 1)
	l.note(place{endpoint: 0, traced: true}, []byte(`{}`), 40, 1)
	l.note(place{endpoint: maxEndpoints, traced: true}, []byte(`{"n":1}`), 50, 1)
	l.refused()
	if diff := cmp.Diff(counts{Received: 5, Distinct: 2, Unreadable: 2, Refused: 1}, l.snapshot()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]arrival{{1, 10, 1}, {1, 20, 2}}, l.trace()); diff != "" {
		t.Errorf("arrivals (-want +got):\n%s", diff)
	}
}
