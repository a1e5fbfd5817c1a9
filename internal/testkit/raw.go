package testkit

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// RawServer runs handle for each connection to an address of 127.0.0.1, as
// [ServeRaw] does, and returns that address.
func RawServer(tb testing.TB, handle func(net.Conn, *bufio.Reader)) (address string, count *atomic.Int32) {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // local and at once
	if err != nil {
		tb.Fatal(err)
	}
	return ln.Addr().String(), ServeRaw(tb, ln, handle)
}

// ServeRaw runs handle for each connection, closes it behind that, and counts them.
// When the test ends the listener is closed with the connections that are left, and
// all handlers have to end.
func ServeRaw(tb testing.TB, ln net.Listener, handle func(net.Conn, *bufio.Reader)) (count *atomic.Int32) {
	tb.Helper()
	count = &atomic.Int32{}
	var tasks sync.WaitGroup
	var mu sync.Mutex
	open, ended := map[net.Conn]bool{}, false
	admit := func(c net.Conn) bool {
		mu.Lock()
		defer mu.Unlock()
		open[c] = true
		return !ended
	}
	tasks.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			if !admit(c) {
				_ = c.Close()
				return
			}
			tasks.Go(func() {
				handle(c, bufio.NewReader(c))
				_ = c.Close()
				mu.Lock()
				defer mu.Unlock()
				delete(open, c)
			})
		}
	})
	tb.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		ended = true
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		tasks.Wait()
	})
	return count
}

// ReadRequest reads an HTTP request with its body.
func ReadRequest(r *bufio.Reader) error {
	req, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, req.Body)
	return err
}
