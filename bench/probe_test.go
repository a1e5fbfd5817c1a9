package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMetricsAreSummedUp(t *testing.T) {
	sum := map[string]float64{"go_goroutines": 5}
	text := "# HELP go_goroutines Number.\n# TYPE go_goroutines gauge\ngo_goroutines 12\n\n" +
		"parked{a=\"x y\",b=\"{}\"} 3\nparked{a=\"z\"} 1.5e3\n"
	if err := addMetrics(sum, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]float64{"go_goroutines": 17, "parked": 1503}, sum); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	if err := addMetrics(sum, strings.NewReader("parked many\n")); err == nil {
		t.Error("a value that is no number: no error")
	}
}

func TestParseHeap(t *testing.T) {
	got, err := parseHeap(strings.NewReader("heap profile: 1: 2\n# runtime.MemStats\n# Alloc = 3\n# HeapAlloc = 4096\n# HeapSys = 9\n"))
	if err != nil || got != 4096 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, bad := range []string{"", "heap profile\n", "# HeapAlloc = x\n"} {
		if got, err := parseHeap(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: got %d, want an error", bad, got)
		}
	}
}

func TestIndexCountsByKind(t *testing.T) {
	var x index
	for _, rec := range []struct{ key, value string }{
		{"owner", "a"}, {"ready/7", "b"}, {"ep_1/state", "c"}, {"ep_1/cancel/dlv_1", "d"}, {"ep_1/7/0", "chunk"}, {"ep_1/7/1", "chunk"},
	} {
		x.add([]byte(rec.key), []byte(rec.value))
	}
	x.add([]byte("ep_1/7/0"), nil)
	want := index{Chunks: 2, Tombstones: 1, Others: 4, Bytes: 5 + 1 + 7 + 1 + 10 + 1 + 17 + 1 + 8 + 5 + 8 + 5 + 8}
	if diff := cmp.Diff(want, x); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
	if x.records() != 7 || x.minus(index{Chunks: 2, Others: 1}) != (index{Tombstones: 1, Others: 3, Bytes: x.Bytes}) {
		t.Errorf("records %d, minus %+v", x.records(), x.minus(index{Chunks: 2, Others: 1}))
	}
}
