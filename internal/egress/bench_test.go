package egress_test

import (
	"net/http"
	"testing"

	"github.com/postrider/postrider/internal/egress"
)

// BenchmarkDo posts 1 KiB over kept connections; client and server share the cores.
func BenchmarkDo(b *testing.B) {
	address, _ := rawServer(b, answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	c := newClient(b, local(egress.Config{}))
	u, body := parseURL(b, "http://"+address+"/hook"), make([]byte, 1024)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			header := http.Header{"Content-Type": {"application/json"}, "Webhook-Id": {"evt_1"}}
			if result := c.Do(b.Context(), &egress.Request{URL: u, Header: header, Body: body}); result.Err != nil {
				b.Error(result.Err)
				return
			}
		}
	})
	c.CloseIdleConnections()
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
