package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Keys of values. Rates are per second, times in milliseconds, memory in
// megabytes (10⁶ bytes), CPU in seconds per 1,000 requests or deliveries.
const (
	keyRate        = "per_second"
	keyAccepted    = "accepted_per_second"
	keyLimit       = "limit_per_second"
	keyLimitBefore = "limit_before_per_second"
	keyLimitAfter  = "limit_after_per_second"
	keyCPU         = "cpu_seconds_per_1000"
	keyRSS         = "memory_mb"
	keyPeak        = "memory_peak_mb"
	keyBacklog     = "backlog"
	keyDrain       = "drain_per_second"
	keyDrained     = "drained"
	keyRepeats     = "repeats"
	keyLost        = "lost"
	keyBatches     = "batches_per_second"
	keySingles     = "singles_per_second"
	keySent        = "events"
	keyResent      = "sent_again"

	keyP50    = "p50_ms"
	keyP90    = "p90_ms"
	keyP99    = "p99_ms"
	keyMax    = "max_ms"
	keyDueP50 = "from_due_p50_ms"
	keyDueP90 = "from_due_p90_ms"
	keyDueP99 = "from_due_p99_ms"
	keyDueMax = "from_due_max_ms"
	keyGap    = "gap_ms"
	keyGapAt  = "gap_from_kill_ms"
	keyReady  = "ready_ms"

	// keyAlone is from sending wide events until all that they became arrived.
	keyAlone  = "all_arrived_ms"
	keyCreate = "create_seconds"

	keyWithout = "without_p99_ms"
	keyWith    = "with_p99_ms"
	keyRatio   = "ratio"
	keyAdded   = "added_ms"

	keyParked       = "parked"
	keyRefused      = "refused"
	keyFirst        = "first_ms"
	keyDrainTime    = "drain_seconds"
	keyPeak100      = "peak_100ms_per_second"
	keyPeakSecond   = "peak_1s_per_second"
	keyPeakFlight   = "peak_under_way"
	keyBegin100     = "first_100ms_per_second"
	keyBeginFlight  = "first_under_way"
	keyRamp         = "ramp_ms"
	keyOthersBefore = "others_before_p99_ms"
	keyOthersAfter  = "others_after_p99_ms"

	keyMinutes          = "minutes"
	keyMemoryHour       = "memory_mb_per_hour"
	keyMemoryGrowth     = "memory_growth_percent"
	keyGoroutines       = "goroutines"
	keyGoroutinesHour   = "goroutines_per_hour"
	keyGoroutinesGrowth = "goroutines_growth_percent"
	keyFiles            = "open_files"
	keyFilesHour        = "open_files_per_hour"
	keyFilesGrowth      = "open_files_growth_percent"

	keyEndpoints    = "endpoints"
	keyBefore       = "memory_before_mb"
	keyRest         = "memory_at_rest_mb"
	keyUsedCost     = "bytes_per_endpoint_after_use"
	keyIdleCost     = "bytes_per_endpoint_never_used"
	keyRSSGrowth    = "memory_growth_mb"
	keyHeapGrowth   = "heap_growth_mb"
	keyIndexRecords = "index_records"
	keyIndexMB      = "index_mb"
	keyRewrites     = "index_rewrites_per_minute"
	keyTombstones   = "index_tombstones_per_minute"
)

// ofLimit follows the key of a rate in the key of its share of the limit.
const ofLimit = "_of_limit"

// values are the figures of one result by key.
type values map[string]float64

// share adds to each rate what part of the plain client's limit it is.
func (v values) share(limit float64) {
	for _, key := range []string{keyRate, keyDrain, keyBatches, keySingles, keyPeak100, keyPeakSecond} {
		if rate, ok := v[key]; ok && limit > 0 {
			v[key+ofLimit], v[keyLimit] = rate/limit, limit
		}
	}
}

// result is one measurement: one JSON line.
type result struct {
	Time     time.Time `json:"time"`
	Backend  string    `json:"backend,omitempty"`
	Scenario string    `json:"scenario"`
	// Run counts the repeats of everything, from 1.
	Run int `json:"run"`
	// Load is the machine's load average over a minute when it began.
	Load   float64 `json:"load_average"`
	Values values  `json:"values,omitempty"`
	// Detail is what is no single figure: pairs, kinds of records.
	Detail any `json:"detail,omitempty"`
	// Error is why there is no figure, or why it doesn't count.
	Error string `json:"error,omitempty"`
	// Missing is what this machine doesn't have to run it: no failure.
	Missing string `json:"missing,omitempty"`
}

// report collects results.
type report struct {
	lines   io.Writer // JSON
	results []result
}

func (r *report) add(res result) error {
	r.results = append(r.results, res)
	line, err := json.Marshal(res)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(r.lines, "%s\n", line)
	return err
}

// failed counts the results with an error.
func (r *report) failed() (n int) {
	for _, res := range r.results {
		if res.Error != "" {
			n++
		}
	}
	return n
}

// find returns the results of a scenario, one for each run.
func (r *report) find(backend, name string) (found []result) {
	for _, res := range r.results {
		if res.Backend == backend && res.Scenario == name {
			found = append(found, res)
		}
	}
	return found
}

// stamp begins the names of a run's files.
func stamp(now time.Time) string { return now.UTC().Format("20060102T150405Z") }

// newLines opens the file of the JSON lines; no folder, no file.
func newLines(folder string, now time.Time) (io.WriteCloser, error) {
	if folder == "" {
		return discard{io.Discard}, nil
	}
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return nil, fmt.Errorf("folder of the results: %w", err)
	}
	return os.Create(filepath.Join(folder, stamp(now)+".jsonl")) //nolint:gosec // the user names the folder
}

type discard struct{ io.Writer }

// Close does nothing: nothing is open.
func (discard) Close() error { return nil }

// loadAverage returns the machine's load average over a minute, 0 if unknown.
func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return load
}
