package main

import (
	"fmt"
	"math"
	"strings"
)

// goal is a figure that the gateway has to reach. Of several runs the median
// counts.
type goal struct {
	name              string
	backend, scenario string
	key               string
	most, least       float64 // one of them is 0: no bound
	// mostOf bounds the figure by a multiple of another one of the same result.
	mostOf string
}

// mebibyte in megabytes, in which memory is reported.
const mebibyte = 1.048576

// flat is how much a figure may grow over the second half of a soak, in percent.
const flat = 5

// hangFactor and hangAdded bound what hanging endpoints may do to the others.
const (
	hangFactor = 1.3
	hangAdded  = 2 // ms
)

func goals() []goal {
	out := []goal{
		{name: "throughput, of the limit", backend: embedded, scenario: "throughput", key: keyRate + ofLimit, least: 0.5},
		{name: "throughput, of the limit", backend: kafka, scenario: "throughput", key: keyRate + ofLimit, least: 0.3},
		{name: "latency at 500/s, p50, ms", backend: embedded, scenario: latencyName(500), key: keyP50, most: 1.5},
		{name: "latency at 500/s, p99, ms", backend: embedded, scenario: latencyName(500), key: keyP99, most: 10},
		{name: "100,000 endpoints, memory of deliver, MB", backend: kafka, scenario: endpointsName, key: keyPeak, most: 1536 * mebibyte},
		{name: "1 M parked, memory of deliver, MB", backend: kafka, scenario: parkedName, key: keyRSSGrowth, most: 50 * mebibyte},
		{name: "1 M parked, index records to park", backend: kafka, scenario: parkedName, key: keyIndexRecords, most: 1000},
		{name: "1 M parked, MB of index to park", backend: kafka, scenario: parkedName, key: keyIndexMB, most: 4},
		{name: "1 M parked, index records written again in a minute", backend: kafka, scenario: parkedName, key: keyRewrites, most: 1},
	}
	for _, b := range []string{embedded, kafka} {
		for _, share := range hangShares() {
			name := isolationName(share)
			out = append(
				out,
				goal{name: fmt.Sprintf("isolation, %d %% hang, p99 in ms", share), backend: b, scenario: name, key: keyWith, most: hangFactor, mostOf: keyWithout},
				goal{name: fmt.Sprintf("isolation, %d %% hang, added p99 in ms", share), backend: b, scenario: name, key: keyAdded, most: hangAdded},
			)
		}
		out = append(out, goal{name: "soak, growth of goroutines in %", backend: b, scenario: "soak", key: keyGoroutinesGrowth, most: flat})
	}
	// The embedded broker has the index of its log in memory and its segments open,
	// and both grow until the log has reached its bound.
	return append(
		out,
		goal{name: "soak, growth of memory in %", backend: kafka, scenario: "soak", key: keyMemoryGrowth, most: flat},
		goal{name: "soak, growth of open files in %", backend: kafka, scenario: "soak", key: keyFilesGrowth, most: flat},
	)
}

// missed says which goals were measured and not reached, and how many were not
// measured.
func (r *report) missed() (out []string, open int) {
	for _, g := range goals() {
		runs := r.find(g.backend, g.scenario)
		all := figures(runs, g.key)
		if len(all) == 0 {
			open++
			continue
		}
		got, most := median(all), g.most
		if g.mostOf != "" {
			most *= median(figures(runs, g.mostOf))
		}
		switch {
		case most > 0 && (got > most || math.IsNaN(got)):
			out = append(out, fmt.Sprintf("%s %s: %.4g, want at most %.4g", g.backend, g.name, got, most))
		case g.least > 0 && !(got >= g.least):
			out = append(out, fmt.Sprintf("%s %s: %.4g, want at least %.4g", g.backend, g.name, got, g.least))
		}
	}
	return out, open
}

// judge is an error that names each goal that was missed.
func (r *report) judge() error {
	missed, _ := r.missed()
	if len(missed) == 0 {
		return nil
	}
	return fmt.Errorf("%d goals missed:\n  %s", len(missed), strings.Join(missed, "\n  "))
}
