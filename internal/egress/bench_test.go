package egress_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/egress"
)

// BenchmarkClients posts 1 KiB from 64 goroutines over kept connections to a
// sink in another process. cpu-us/op is what this process uses, kernel included.
func BenchmarkClients(b *testing.B) {
	address := startSink(b)
	u, body := parseURL(b, "http://"+address+"/hook"), make([]byte, 1024)
	ctx, cancel := context.WithCancel(b.Context()) // as deliver's: not Background
	defer cancel()
	b.Run("egress", func(b *testing.B) {
		c := newClient(b, local(egress.Config{}))
		measure(b, func() error {
			if result := c.Do(ctx, &egress.Request{URL: u, Fields: benchFields(), Body: body}); result.Err != nil {
				return result.Err
			}
			return nil
		})
	})
	b.Run("net-http", func(b *testing.B) {
		transport := &http.Transport{MaxIdleConns: 64, MaxIdleConnsPerHost: 64, DisableCompression: true}
		defer transport.CloseIdleConnections()
		measure(b, func() error {
			bounded, cancel := context.WithTimeout(ctx, 15*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(bounded, http.MethodPost, u.String(), bytes.NewReader(body))
			if err != nil {
				return err
			}
			req.Header = benchHeader()
			resp, err := transport.RoundTrip(req)
			if err != nil {
				return err
			}
			defer func() { _ = resp.Body.Close() }()
			_, err = io.ReadAll(io.LimitReader(resp.Body, 8<<10))
			return err
		})
	})
}

func benchFields() []egress.Field {
	return []egress.Field{
		{Name: "Content-Type", Value: "application/json"},
		{Name: "Webhook-Id", Value: "evt_xmh81g4aaknvnrmg9zkkyndsre"},
		{Name: "Webhook-Timestamp", Value: "1795360509"},
		{Name: "Webhook-Signature", Value: "v1,58S7zDeO9LuGM7HzXVQG835xSiBzfzx5vufOZI+rPOI="},
		{Name: "Postrider-Attempt", Value: "1"},
		{Name: "Postrider-Hops", Value: "1"},
	}
}

func benchHeader() http.Header {
	header := make(http.Header, 8)
	for _, f := range benchFields() {
		header[f.Name] = []string{f.Value}
	}
	return header
}

func measure(b *testing.B, do func() error) {
	b.Helper()
	b.ReportAllocs()
	b.SetParallelism(64 / runtime.GOMAXPROCS(0))
	before := cpuTime(b)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := do(); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/1000/float64(b.N), "cpu-us/op")
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkCheckAddr is paid for each new connection, twice.
func BenchmarkCheckAddr(b *testing.B) {
	c := newClient(b, egress.Config{})
	addr := addrList("2606:4700::1111")[0]
	b.ReportAllocs()
	for b.Loop() {
		if err := c.CheckAddr(addr); err != nil {
			b.Fatal(err)
		}
	}
}
