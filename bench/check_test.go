package main

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func judged(t *testing.T, results ...result) string {
	t.Helper()
	r := &report{lines: io.Discard}
	for _, res := range results {
		if err := r.add(res); err != nil {
			t.Fatal(err)
		}
	}
	missed, open := r.missed()
	if open >= len(goals()) {
		t.Errorf("no goal of %d was measured", len(goals()))
	}
	return strings.Join(missed, "; ")
}

func TestGoals(t *testing.T) {
	for _, row := range []struct {
		name string
		res  result
		want string
	}{
		{"reached", result{Backend: embedded, Scenario: "throughput", Values: values{keyRate + ofLimit: 0.5}}, ""},
		{
			"embedded too slow",
			result{Backend: embedded, Scenario: "throughput", Values: values{keyRate + ofLimit: 0.42}},
			"embedded throughput, of the limit: 0.42, want at least 0.5",
		},
		{"good enough on kafka", result{Backend: kafka, Scenario: "throughput", Values: values{keyRate + ofLimit: 0.42}}, ""},
		{
			"too late",
			result{Backend: embedded, Scenario: "latency/500", Values: values{keyP50: 1.5, keyP99: 10.1}},
			"embedded latency at 500/s, p99, ms: 10.1, want at most 10",
		},
		{
			"isolation by its factor",
			result{Backend: kafka, Scenario: "isolation/20", Values: values{keyWithout: 2, keyWith: 3, keyAdded: 1}},
			"kafka isolation, 20 % hang, p99 in ms: 3, want at most 2.6",
		},
		{
			"isolation by what is added",
			result{Backend: kafka, Scenario: "isolation/50", Values: values{keyWithout: 20, keyWith: 23, keyAdded: 3}},
			"kafka isolation, 50 % hang, added p99 in ms: 3, want at most 2",
		},
		{"less than without", result{Backend: kafka, Scenario: "isolation/50", Values: values{keyWithout: 20, keyWith: 19, keyAdded: -1}}, ""},
		{
			"too much memory",
			result{Backend: kafka, Scenario: endpointsName, Values: values{keyPeak: 1700}},
			"kafka 100,000 endpoints, memory of deliver, MB: 1700, want at most 1611",
		},
		{
			"index",
			result{Backend: kafka, Scenario: parkedName, Values: values{keyIndexRecords: 1001, keyIndexMB: 3.9, keyRewrites: 1}},
			"kafka 1 M parked, index records to park: 1001, want at most 1000",
		},
		{
			"grows",
			result{Backend: kafka, Scenario: "soak", Values: values{keyMemoryGrowth: 5.5, keyGoroutinesGrowth: -9, keyFilesGrowth: 0}},
			"kafka soak, growth of memory in %: 5.5, want at most 5",
		},
	} {
		if diff := cmp.Diff(row.want, judged(t, row.res)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
}

// Of several runs the median counts, and a run that failed does not.
func TestGoalsTakeTheMedian(t *testing.T) {
	run := func(share float64, failed string) result {
		return result{Backend: embedded, Scenario: "throughput", Values: values{keyRate + ofLimit: share}, Error: failed}
	}
	if got := judged(t, run(0.4, ""), run(0.6, ""), run(0.55, ""), run(0.1, "lost")); got != "" {
		t.Errorf("got %q, want none", got)
	}
}

func TestJudgeNamesGoals(t *testing.T) {
	r := &report{lines: io.Discard, results: []result{{Backend: embedded, Scenario: "latency/500", Values: values{keyP50: 2, keyP99: 20}}}}
	if err := r.judge(); err == nil || !strings.Contains(err.Error(), "2 goals missed") || !strings.Contains(err.Error(), "p50, ms: 2,") {
		t.Errorf("got %v", err)
	}
	r.results = nil
	if err := r.judge(); err != nil {
		t.Errorf("nothing measured: %v", err)
	}
}

func TestRatesHaveTheirShareOfTheLimit(t *testing.T) {
	v := values{keyRate: 50, keyDrain: 80, keyP50: 3}
	v.share(100)
	want := values{keyRate: 50, keyDrain: 80, keyP50: 3, keyRate + ofLimit: 0.5, keyDrain + ofLimit: 0.8, keyLimit: 100}
	if diff := cmp.Diff(want, v); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	v = values{keyRate: 50}
	v.share(0)
	if len(v) != 1 {
		t.Errorf("no limit: got %v", v)
	}
}
