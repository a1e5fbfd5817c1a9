package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// row is a line of the table.
type row struct {
	label, scenario, key string
	format               func(float64) string
	share                bool // show the share of the limit, too
}

func rows(o *options) []row {
	out := []row{
		{"ingest, batches of 100, events/s", "ingest", keyBatches, whole, true},
		{"ingest, one by one, events/s", "ingest", keySingles, whole, true},
		{"the limit before throughput, requests/s", "throughput", keyLimitBefore, whole, false},
		{"the limit after throughput, requests/s", "throughput", keyLimitAfter, whole, false},
		{"deliveries/s, sending and delivering", "throughput", keyRate, whole, true},
		{"deliveries/s, working off the backlog", "throughput", keyDrain, whole, true},
		{"CPU-seconds per 1,000 deliveries", "throughput", keyCPU, thousandths, false},
		{"memory after it, MB", "throughput", keyRSS, whole, false},
		{"memory at most, MB", "throughput", keyPeak, whole, false},
		{"fan-out 1 → 100, deliveries/s", "fanout", keyRate, whole, true},
		{"fan-out, CPU-seconds per 1,000 deliveries", "fanout", keyCPU, thousandths, false},
		{"fan-out 1 → 10,000, deliveries/s", "fanout10k", keyRate, whole, true},
		{"one event alone to 10,000 endpoints, ms", "fanout10k", keyAlone, whole, false},
	}
	for _, rate := range o.rates {
		out = append(out, latencyRows(rate)...)
	}
	for _, share := range hangShares() {
		label, name := fmt.Sprintf("%d %% of endpoints hang: ", share), isolationName(share)
		out = append(
			out,
			row{label + "p99 of the others without, ms", name, keyWithout, tenths, false},
			row{label + "p99 of the others with, ms", name, keyWith, tenths, false},
			row{label + "with / without", name, keyRatio, hundredths, false},
		)
	}
	out = append(out, crashRows()...)
	out = append(out, recoveryRows()...)
	return append(out, memoryRows(&o.sizes)...)
}

func latencyRows(rate int) []row {
	name, at := latencyName(rate), grouped(int64(rate))+"/s, "
	return []row{
		{at + "accepted → received, p50, ms", name, keyP50, tenths, false},
		{at + "accepted → received, p90, ms", name, keyP90, tenths, false},
		{at + "accepted → received, p99, ms", name, keyP99, tenths, false},
		{at + "accepted → received, worst, ms", name, keyMax, tenths, false},
		{at + "due to be sent → received, p50, ms", name, keyDueP50, tenths, false},
		{at + "due to be sent → received, p99, ms", name, keyDueP99, tenths, false},
	}
}

func recoveryRows() []row {
	const back = "back after records waited: "
	return []row{
		{back + "records parked", recoveryName, keyParked, whole, false},
		{back + "first one after, ms", recoveryName, keyFirst, whole, false},
		{back + "time to drain, s", recoveryName, keyDrainTime, tenths, false},
		{back + "requests/s", recoveryName, keyRate, whole, true},
		{back + "most requests/s in 0.1 s", recoveryName, keyPeak100, whole, true},
		{back + "most requests/s in 1 s", recoveryName, keyPeakSecond, whole, true},
		{back + "under way at once among the first 8", recoveryName, keyBeginFlight, whole, false},
		{back + "under way at once at most", recoveryName, keyPeakFlight, whole, false},
		{back + "full rate after, ms", recoveryName, keyRamp, whole, false},
		{back + "p99 of others before, ms", recoveryName, keyOthersBefore, tenths, false},
		{back + "p99 of others meanwhile, ms", recoveryName, keyOthersAfter, tenths, false},
	}
}

func memoryRows(s *sizes) []row {
	endpoints, parked := grouped(int64(s.endpoints))+" endpoints: ", grouped(s.parked)+" parked: "
	return []row{
		{endpoints + "memory, MB", endpointsName, keyRSS, whole, false},
		{endpoints + "memory at most, MB", endpointsName, keyPeak, whole, false},
		{endpoints + "memory when all is idle, MB", endpointsName, keyRest, whole, false},
		{endpoints + "bytes for each that was used", endpointsName, keyUsedCost, whole, false},
		{endpoints + "bytes for each further one, never used", endpointsName, keyIdleCost, whole, false},
		{parked + "memory before, at rest, MB", parkedName, keyBefore, tenths, false},
		{parked + "memory when the last is parked, MB", parkedName, keyRSS, tenths, false},
		{parked + "memory they take, at rest, MB", parkedName, keyRSSGrowth, tenths, false},
		{parked + "live heap they take, MB", parkedName, keyHeapGrowth, tenths, false},
		{parked + "records parked/s", parkedName, keyRate, whole, true},
		{parked + "index records to park", parkedName, keyIndexRecords, whole, false},
		{parked + "index to park, MB", parkedName, keyIndexMB, tenths, false},
		{parked + "drained/s", parkedName, keyDrain, whole, true},
		{parked + "index records written again in each minute of the drain", parkedName, keyRewrites, tenths, false},
		{parked + "tombstones in a minute of the drain", parkedName, keyTombstones, tenths, false},
		{"soak: memory, MB", "soak", keyRSS, whole, false},
		{"soak: memory, growth in the second half, %", "soak", keyMemoryGrowth, tenths, false},
		{"soak: memory, growth, MB per hour", "soak", keyMemoryHour, tenths, false},
		{"soak: goroutines", "soak", keyGoroutines, whole, false},
		{"soak: goroutines, growth in the second half, %", "soak", keyGoroutinesGrowth, tenths, false},
		{"soak: open files", "soak", keyFiles, whole, false},
		{"soak: open files, growth in the second half, %", "soak", keyFilesGrowth, tenths, false},
	}
}

// crashRoles are the processes that the scenario crash kills, in the order of
// the table.
func crashRoles() []string { return []string{"dev", "ingest", "fanout", "deliver", "control"} }

func crashRows() []row {
	var out []row
	for _, name := range crashRoles() {
		scenario := crashName + "/" + name
		out = append(
			out,
			row{"kill -9 " + name + ": longest time without delivery, ms", scenario, keyGap, whole, false},
			row{"kill -9 " + name + ": lost deliveries", scenario, keyLost, whole, false},
			row{"kill -9 " + name + ": repeated deliveries", scenario, keyRepeats, whole, false},
		)
	}
	return out
}

func whole(v float64) string       { return grouped(int64(math.Round(v))) }
func tenths(v float64) string      { return strconv.FormatFloat(v, 'f', 1, 64) }
func hundredths(v float64) string  { return strconv.FormatFloat(v, 'f', 2, 64) }
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
func (r *report) table(w io.Writer, o *options) error {
	var b strings.Builder
	if limits := r.find("", limitName); len(limits) > 0 {
		rate, cpu := row{"", "", keyRate, whole, false}, row{"", "", keyCPU, thousandths, false}
		fmt.Fprintf(&b, "The limit: a plain keep-alive client reaches %s requests/s with %s CPU-seconds per 1,000.\n\n", rate.cell(limits), cpu.cell(limits))
	}
	fmt.Fprintf(&b, "| | %s |\n|---|%s\n", strings.Join(o.backends, " | "), strings.Repeat("---:|", len(o.backends)))
	for _, row := range rows(o) {
		cells, found := make([]string, 0, len(o.backends)), false
		for _, backend := range o.backends {
			text := row.cell(r.find(backend, row.scenario))
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

// cell is the figure of a row: of several runs the median, with the least and the
// most.
func (row row) cell(runs []result) string {
	all := figures(runs, row.key)
	switch {
	case slices.ContainsFunc(runs, func(r result) bool { return r.Error != "" }):
		return "failed"
	case len(all) == 0:
		return ""
	}
	text := row.format(median(all))
	if shares := figures(runs, row.key+ofLimit); row.share && len(shares) > 0 {
		text += fmt.Sprintf(" (%.0f %%)", median(shares)*100)
	}
	if len(all) > 1 {
		text += fmt.Sprintf(", %s to %s", row.format(slices.Min(all)), row.format(slices.Max(all)))
	}
	return text
}

// figures are a key's values in the runs that have it.
func figures(runs []result, key string) (all []float64) {
	for _, res := range runs {
		if v, ok := res.Values[key]; ok && res.Error == "" {
			all = append(all, v)
		}
	}
	return all
}
