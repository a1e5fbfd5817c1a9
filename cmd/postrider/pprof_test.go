package main

import (
	"context"
	"net"
	"net/http"
	"runtime"
	"testing"
)

func TestPprof(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- servePprof(ctx, ln) }()
	resp, err := http.Get("http://" + ln.Addr().String() + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
	if got := runtime.SetMutexProfileFraction(-1); got != mutexSample {
		t.Errorf("one wait for a lock in %d is seen, want %d", got, mutexSample)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
