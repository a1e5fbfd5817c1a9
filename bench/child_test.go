package main

import (
	"testing"
	"time"
)

func TestParseCPU(t *testing.T) {
	got, err := parseCPU([]byte("71 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9"))
	if err != nil || got != 2*time.Second {
		t.Errorf("got %s, %v; want 2s", got, err)
	}
	for _, bad := range []string{"", "71 (a) S 1 2", "71 (a) S 1 2 3 4 5 6 7 8 9 10 x 50 0"} {
		if got, err := parseCPU([]byte(bad)); err == nil {
			t.Errorf("%q: got %s, want an error", bad, got)
		}
	}
}

func TestParseMemory(t *testing.T) {
	status := []byte("Name:\tpostrider\nVmHWM:\t  2048 kB\nVmRSS:\t    512 kB\nThreads:\t9\n")
	for name, want := range map[string]int64{"VmHWM:": 2 << 20, "VmRSS:": 512 << 10, "VmSwap:": 0, "Threads:": 0} {
		if got := parseMemory(status, name); got != want {
			t.Errorf("%s: got %d, want %d", name, got, want)
		}
	}
}
