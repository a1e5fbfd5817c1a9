package main

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, row := range []struct {
		name   string
		values []time.Duration
		p      float64
		want   time.Duration
	}{
		{"none", nil, 50, 0},
		{"one", []time.Duration{7}, 99, 7},
		{"zero is the least", hundred, 0, 1},
		{"middle", hundred, 50, 50},
		{"p99", hundred, 99, 99},
		{"between two ranks, the higher", hundred, 98.5, 99},
		{"all", hundred, 100, 100},
		{"median of two, the lower", []time.Duration{3, 9}, 50, 3},
	} {
		if got := percentile(row.values, row.p); got != row.want {
			t.Errorf("%s: got %d, want %d", row.name, got, row.want)
		}
	}
}

// At least p percent of the values are not above the percentile, and fewer than
// that are below it.
func TestPercentileLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.SliceOfN(rapid.Int64Range(0, 1000), 1, 200).Draw(t, "values")
		p := rapid.Float64Range(0.1, 100).Draw(t, "p")
		values := make([]time.Duration, len(raw))
		for i, v := range raw {
			values[i] = time.Duration(v)
		}
		slices.Sort(values)
		got := percentile(values, p)
		var below, upTo float64
		for _, v := range values {
			if v < got {
				below++
			}
			if v <= got {
				upTo++
			}
		}
		need := p / 100 * float64(len(values))
		if upTo < need || below >= need {
			t.Fatalf("p%g of %v is %d: %g below, %g up to it, %g needed", p, values, got, below, upTo, need)
		}
	})
}

func TestLongestGap(t *testing.T) {
	for _, row := range []struct {
		name  string
		times []int64
		gap   time.Duration
		at    int64
	}{
		{"nothing arrived", nil, 90, 10},
		{"in the middle", []int64{20, 30, 80, 90}, 50, 30},
		{"any order, and what is outside doesn't count", []int64{90, 5, 80, 30, 20, 500}, 50, 30},
		{"up to the first arrival", []int64{60, 70, 80, 90}, 50, 10},
		{"after the last arrival", []int64{20, 30, 40}, 60, 40},
		{"the first of equal ones", []int64{40, 70}, 30, 10},
	} {
		gap, at := longestGap(row.times, 10, 100)
		if gap != row.gap || at != row.at {
			t.Errorf("%s: got %d at %d, want %d at %d", row.name, gap, at, row.gap, row.at)
		}
	}
}

func TestRate(t *testing.T) {
	start := time.Unix(100, 0)
	if got := rate(sample{start, 50}, sample{start.Add(2 * time.Second), 250}); got != 100 {
		t.Errorf("got %g, want 100", got)
	}
	if got := rate(sample{start, 50}, sample{start, 250}); got != 0 {
		t.Errorf("no time passed: got %g, want 0", got)
	}
}

func TestLatencies(t *testing.T) {
	got, missing := latencies([]int64{100, 200, 300, 400}, map[int64]int64{0: 150, 1: 190, 3: 410, 9: 1})
	if diff := cmp.Diff([]time.Duration{0, 10, 50}, got); diff != "" {
		t.Errorf("latencies (-want +got):\n%s", diff)
	}
	if missing != 1 {
		t.Errorf("missing: got %d, want 1", missing)
	}
}

func TestBitset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var set bitset
		model := map[int64]bool{}
		for _, n := range rapid.SliceOf(rapid.Int64Range(0, 1000)).Draw(t, "numbers") {
			if got := set.add(n); got == model[n] {
				t.Fatalf("add(%d): got %t, though in the set: %t", n, got, model[n])
			}
			model[n] = true
		}
	})
}
