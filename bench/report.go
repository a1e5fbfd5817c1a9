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
	keyRate     = "per_second"
	keyAccepted = "accepted_per_second"
	keyCPU      = "cpu_seconds_per_1000"
	keyRSS      = "memory_mb"
	keyPeak     = "memory_peak_mb"
	keyBacklog  = "backlog"
	keyDrain    = "drain_per_second"
	keyDrained  = "drained"
	keyRepeats  = "repeats"
	keyBatches  = "batches_per_second"
	keySingles  = "singles_per_second"
	keyP50      = "p50_ms"
	keyP99      = "p99_ms"
	keyMax      = "max_ms"
	keyDueP50   = "from_due_p50_ms"
	keyDueP99   = "from_due_p99_ms"
	keyGap      = "gap_ms"
	keyGapAt    = "gap_from_kill_ms"
	keyReady    = "ready_ms"
	keySent     = "events"
	keyResent   = "sent_again"
)

// values are the figures of one result by key.
type values map[string]float64

// result is one measurement: one JSON line.
type result struct {
	Time     time.Time `json:"time"`
	Backend  string    `json:"backend,omitempty"`
	Scenario string    `json:"scenario"`
	// Load is the machine's load average over a minute when it began.
	Load   float64 `json:"load_average"`
	Values values  `json:"values,omitempty"`
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

// find returns the result of a scenario, nil if it did not run.
func (r *report) find(backend, name string) *result {
	for i := range r.results {
		if res := &r.results[i]; res.Backend == backend && res.Scenario == name {
			return res
		}
	}
	return nil
}

// row is a line of the table.
type row struct {
	label, scenario, key string
	format               func(float64) string
	share                bool // show the share of the limit, too
}

func rows() []row {
	return []row{
		{"ingest, batches of 100, events/s", "ingest", keyBatches, whole, false},
		{"ingest, one by one, events/s", "ingest", keySingles, whole, false},
		{"deliveries/s, sending and delivering", "throughput", keyRate, whole, true},
		{"deliveries/s, working off the backlog", "throughput", keyDrain, whole, true},
		{"CPU-seconds per 1,000 deliveries", "throughput", keyCPU, thousandths, false},
		{"memory after it, MB", "throughput", keyRSS, whole, false},
		{"memory at most, MB", "throughput", keyPeak, whole, false},
		{"fan-out 1 → 100, deliveries/s", "fanout", keyRate, whole, true},
		{"fan-out, CPU-seconds per 1,000 deliveries", "fanout", keyCPU, thousandths, false},
		{"accepted → received, p50, ms", "latency", keyP50, tenths, false},
		{"accepted → received, p99, ms", "latency", keyP99, tenths, false},
		{"accepted → received, worst, ms", "latency", keyMax, tenths, false},
		{"due to be sent → received, p50, ms", "latency", keyDueP50, tenths, false},
		{"due to be sent → received, p99, ms", "latency", keyDueP99, tenths, false},
	}
}

// crashRoles are the processes that the scenario crash kills, in the order of
// the table.
func crashRoles() []string { return []string{"dev", "ingest", "fanout", "deliver", "control"} }

func crashRows() []row {
	var out []row
	for _, name := range crashRoles() {
		scenario := crashName + "/" + name
		out = append(out,
			row{"kill -9 " + name + ": longest time without delivery, ms", scenario, keyGap, whole, false},
			row{"kill -9 " + name + ": repeated deliveries", scenario, keyRepeats, whole, false},
		)
	}
	return out
}

func whole(v float64) string       { return grouped(int64(v + 0.5)) }
func tenths(v float64) string      { return strconv.FormatFloat(v, 'f', 1, 64) }
func thousandths(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) }

// grouped writes a number with commas between thousands.
func grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// table writes the results as Markdown. A scenario that failed shows it.
func (r *report) table(w io.Writer, backends []string) error {
	var b strings.Builder
	limit := 0.0
	if res := r.find("", limitName); res != nil && res.Error == "" {
		limit = res.Values[keyRate]
		fmt.Fprintf(&b, "The limit: a plain keep-alive client reaches %s requests/s with %s CPU-seconds per 1,000.\n\n",
			whole(limit), thousandths(res.Values[keyCPU]))
	}
	fmt.Fprintf(&b, "| | %s |\n|---|%s\n", strings.Join(backends, " | "), strings.Repeat("---:|", len(backends)))
	for _, row := range append(rows(), crashRows()...) {
		cells, found := make([]string, 0, len(backends)), false
		for _, backend := range backends {
			text := row.cell(r.find(backend, row.scenario), limit)
			cells, found = append(cells, text), found || text != ""
		}
		if found {
			fmt.Fprintf(&b, "| %s | %s |\n", row.label, strings.Join(cells, " | "))
		}
	}
	for _, res := range r.results {
		if res.Error != "" {
			first, _, _ := strings.Cut(res.Error, "\n")
			fmt.Fprintf(&b, "\nFailed: %s %s: %s\n", res.Backend, res.Scenario, first)
		}
		if res.Missing != "" {
			fmt.Fprintf(&b, "\nNot run: %s: %s\n", res.Backend, res.Missing)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (row row) cell(res *result, limit float64) string {
	switch {
	case res == nil:
		return ""
	case res.Error != "":
		return "failed"
	}
	v, ok := res.Values[row.key]
	if !ok {
		return ""
	}
	text := row.format(v)
	if row.share && limit > 0 {
		text += fmt.Sprintf(" (%.0f %%)", v/limit*100)
	}
	return text
}

// newLines opens the file of the JSON lines; no folder, no file.
func newLines(folder string, now time.Time) (io.WriteCloser, error) {
	if folder == "" {
		return discard{io.Discard}, nil
	}
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return nil, fmt.Errorf("folder of the results: %w", err)
	}
	return os.Create(filepath.Join(folder, now.UTC().Format("20060102T150405Z")+".jsonl")) //nolint:gosec // the user names the folder
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
