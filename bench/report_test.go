package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTable(t *testing.T) {
	r := &report{lines: io.Discard}
	for _, res := range []result{
		{Scenario: limitName, Values: values{keyRate: 20000, keyCPU: 0.0251}},
		{Backend: embedded, Scenario: "throughput", Values: values{keyRate: 12345.6, keyRate + ofLimit: 0.617, keyCPU: 0.1}},
		{Backend: kafka, Scenario: "throughput", Error: "3 of 9 deliveries did not arrive\nlog"},
		{Backend: embedded, Scenario: "crash/dev", Values: values{keyGap: 812.4, keyRepeats: 0}},
		{Backend: embedded, Scenario: "latency/500", Run: 1, Values: values{keyP99: 4}},
		{Backend: embedded, Scenario: "latency/500", Run: 2, Values: values{keyP99: 9}},
		{Backend: embedded, Scenario: "latency/500", Run: 3, Values: values{keyP99: 5}},
		{Backend: kafka, Scenario: "start", Missing: "no java"},
	} {
		if err := r.add(res); err != nil {
			t.Fatal(err)
		}
	}
	var got strings.Builder
	if err := r.table(&got, &options{backends: []string{embedded, kafka}, rates: []int{500}}); err != nil {
		t.Fatal(err)
	}
	want := `The limit: a plain keep-alive client reaches 20,000 requests/s with 0.025 CPU-seconds per 1,000.

| | embedded | kafka |
|---|---:|---:|
| the limit before throughput, requests/s |  | failed |
| the limit after throughput, requests/s |  | failed |
| deliveries/s, sending and delivering | 12,346 (62 %) | failed |
| deliveries/s, working off the backlog |  | failed |
| CPU-seconds per 1,000 deliveries | 0.100 | failed |
| memory after it, MB |  | failed |
| memory at most, MB |  | failed |
| 500/s, accepted → received, p99, ms | 5.0, 4.0 to 9.0 |  |
| kill -9 dev: longest time without delivery, ms | 812 |  |
| kill -9 dev: repeated deliveries | 0 |  |

Failed: kafka throughput: 3 of 9 deliveries did not arrive

Not run: kafka: no java
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	if r.failed() != 1 {
		t.Errorf("failed: got %d, want 1", r.failed())
	}
}

func TestResultIsOneLine(t *testing.T) {
	var out bytes.Buffer
	r := &report{lines: &out}
	if err := r.add(result{Backend: kafka, Scenario: "latency", Run: 2, Error: "a\nb"}); err != nil {
		t.Fatal(err)
	}
	want := `{"time":"0001-01-01T00:00:00Z","backend":"kafka","scenario":"latency","run":2,"load_average":0,"error":"a\nb"}` + "\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("line (-want +got):\n%s", diff)
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
