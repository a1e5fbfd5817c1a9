package main

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// point is a value at a time, in seconds from some beginning.
type point struct{ x, y float64 }

// slope returns how much the values grow per second: the line through the points
// with the least squares. Fewer than two different times have none.
func slope(points []point) float64 {
	var meanX, meanY, xy, xx float64
	for _, p := range points {
		meanX += p.x / float64(len(points))
		meanY += p.y / float64(len(points))
	}
	for _, p := range points {
		xy += (p.x - meanX) * (p.y - meanY)
		xx += (p.x - meanX) * (p.x - meanX)
	}
	if xx == 0 {
		return 0
	}
	return xy / xx
}

// growth says how a value went over the second half of its points: its mean, how
// much the fitted line rises in an hour, and over that half in percent of the
// mean.
func growth(points []point) (mean, perHour, percent float64) {
	half := points[len(points)/2:]
	if len(half) == 0 {
		return 0, 0, 0
	}
	for _, p := range half {
		mean += p.y / float64(len(half))
	}
	rise := slope(half)
	if mean != 0 {
		percent = rise * (half[len(half)-1].x - half[0].x) / mean * 100
	}
	return mean, rise * 3600, percent
}

// median is the middle one of the values, or the mean of the two in the middle; 0
// without any.
func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	switch {
	case n == 0:
		return 0
	case n%2 == 1:
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// perWindow counts times (in any order) in windows of equal width from the first
// to the last of them, and returns each as a rate per second at the beginning of
// its window.
func perWindow(times []time.Duration, width time.Duration) []point {
	if len(times) == 0 {
		return nil
	}
	first, last := slices.Min(times), slices.Max(times)
	out := make([]point, (last-first)/width+1)
	for i := range out {
		out[i].x = (first + time.Duration(i)*width).Seconds()
	}
	for _, t := range times {
		out[(t-first)/width].y += 1 / width.Seconds()
	}
	return out
}

// highest is the largest value of the points, 0 without any.
func highest(points []point) (most float64) {
	for _, p := range points {
		most = max(most, p.y)
	}
	return most
}

// windowPercentile returns, for each window of time that has points, the given
// percentile of their values.
func windowPercentile(points []point, width time.Duration, p float64) []point {
	windows := map[float64][]time.Duration{}
	for _, at := range points {
		i := math.Floor(at.x / width.Seconds())
		windows[i] = append(windows[i], time.Duration(at.y*float64(time.Millisecond)))
	}
	out := make([]point, 0, len(windows))
	for i, values := range windows {
		slices.Sort(values)
		out = append(out, point{(i + 0.5) * width.Seconds(), milliseconds(percentile(values, p))})
	}
	slices.SortFunc(out, func(a, b point) int { return cmp.Compare(a.x, b.x) })
	return out
}

// pointPercentile is the given percentile of the points' values (milliseconds).
func pointPercentile(points []point, p float64) float64 {
	values := make([]time.Duration, 0, len(points))
	for _, at := range points {
		values = append(values, time.Duration(at.y*float64(time.Millisecond)))
	}
	slices.Sort(values)
	return milliseconds(percentile(values, p))
}
