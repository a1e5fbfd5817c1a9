package main

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func approx() cmp.Option {
	return cmp.Options{cmp.AllowUnexported(point{}), cmpopts.EquateApprox(1e-9, 1e-9)}
}

// The fit of a line is that line, wherever it stands.
func TestSlopeOfALine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rise := rapid.Float64Range(-100, 100).Draw(t, "rise")
		base := rapid.Float64Range(-1000, 1000).Draw(t, "base")
		var points []point
		for i := range rapid.IntRange(2, 50).Draw(t, "points") {
			points = append(points, point{float64(i), base + rise*float64(i)})
		}
		if got := slope(points); math.Abs(got-rise) > 1e-6 {
			t.Fatalf("got %g, want %g", got, rise)
		}
	})
}

func TestSlopeOfNothing(t *testing.T) {
	for _, points := range [][]point{nil, {{1, 5}}, {{1, 5}, {1, 9}}} {
		if got := slope(points); got != 0 {
			t.Errorf("%v: got %g, want 0", points, got)
		}
	}
}

func TestGrowthIsOfTheSecondHalf(t *testing.T) {
	points := []point{{0, 1}, {1, 900}, {2, 100}, {3, 101}, {4, 102}}
	mean, perHour, percent := growth(points)
	want := []float64{101, 3600, 2.0 / 101 * 100}
	if diff := cmp.Diff(want, []float64{mean, perHour, percent}, approx()); diff != "" {
		t.Errorf("mean, per hour, percent (-want +got):\n%s", diff)
	}
	if mean, perHour, percent := growth(nil); mean != 0 || perHour != 0 || percent != 0 {
		t.Errorf("nothing: got %g %g %g", mean, perHour, percent)
	}
}

func TestMedian(t *testing.T) {
	for _, row := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{4}, 4}, {[]float64{9, 1, 4}, 4}, {[]float64{9, 1, 4, 2}, 3}} {
		if got := median(row.values); got != row.want {
			t.Errorf("%v: got %g, want %g", row.values, got, row.want)
		}
	}
}

func TestPerWindow(t *testing.T) {
	const ms = time.Millisecond
	got := perWindow([]time.Duration{350 * ms, 100 * ms, 199 * ms, 100 * ms}, 100*ms)
	if diff := cmp.Diff([]point{{0.1, 30}, {0.2, 0}, {0.3, 10}}, got, approx()); diff != "" {
		t.Errorf("rates (-want +got):\n%s", diff)
	}
	if got := perWindow(nil, ms); got != nil {
		t.Errorf("nothing: got %v", got)
	}
}

func TestWindowPercentile(t *testing.T) {
	points := []point{{-0.1, 7}, {0.1, 1}, {0.4, 3}, {0.3, 2}, {1.2, 8}}
	got := windowPercentile(points, 500*time.Millisecond, 99)
	if diff := cmp.Diff([]point{{-0.25, 7}, {0.25, 3}, {1.25, 8}}, got, approx()); diff != "" {
		t.Errorf("percentiles (-want +got):\n%s", diff)
	}
	if got := pointPercentile(points, 50); math.Abs(got-3) > 1e-9 {
		t.Errorf("median of all: got %g, want 3", got)
	}
}

func TestRampTime(t *testing.T) {
	var times []time.Duration
	at := 5 * time.Second
	for i := range 30 { // one request a window of 10 ms, from the third on four
		n := 4
		if i < 2 {
			n = 1
		}
		for range n {
			times = append(times, at)
		}
		at += 10 * time.Millisecond
	}
	if got := rampTime(times); math.Abs(got-0.02) > 1e-9 {
		t.Errorf("got %g s, want 0.02", got)
	}
}

func TestBeginFlight(t *testing.T) {
	var trace []arrival
	for i := range int64(20) {
		trace = append(trace, arrival{Number: i, At: 100 - i, Flight: 20 - i})
	}
	if got := beginFlight(trace); got != 8 { // the earliest have the lowest
		t.Errorf("got %d, want 8", got)
	}
}
