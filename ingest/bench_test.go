package ingest

import (
	"net/http"
	"strings"
	"testing"
)

const benchLine = `{"type":"order.paid","id":"0198c9a0-7d5c-7a31-8a51-0d8f5a7c1e11","source":"/shop","subject":"order/1234",` +
	`"time":"2026-01-02T03:04:05Z","data":{"order":"1234","total":129.9,"currency":"EUR","items":[{"sku":"a-1","n":2},{"sku":"b-2","n":1}]}}`

// BenchmarkBatch measures the whole way of 1,000 small events, HTTP included.
func BenchmarkBatch(b *testing.B) {
	for name, tt := range map[string]struct{ body, media string }{
		"lines": {strings.Repeat(benchLine+"\n", 1000), "application/x-ndjson"},
		"batch": {
			"[" + strings.Repeat(strings.Replace(benchLine, "{", `{"specversion":"1.0",`, 1)+",", 999) +
				strings.Replace(benchLine, "{", `{"specversion":"1.0",`, 1) + "]", "application/cloudevents-batch+json",
		},
	} {
		b.Run(name, func(b *testing.B) {
			g := start(b, Config{}, Deps{Producer: discard{}})
			body, h := []byte(tt.body), headers{"Content-Type", tt.media}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if got := g.raw(b, body, h); got != http.StatusAccepted {
					b.Fatalf("status %d", got)
				}
				n += 1000
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkSingle measures one event a request, over 32 connections.
func BenchmarkSingle(b *testing.B) {
	g := start(b, Config{}, Deps{Producer: discard{}})
	body, h := []byte(benchLine), headers{"Content-Type", "application/json"}
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if got := g.raw(b, body, h); got != http.StatusAccepted {
				b.Errorf("status %d", got)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
