package egress_test

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/egress"
)

// Each bound on idle connections makes the client close one: of two requests
// that were in flight at once, or the one that was not used in time. With the
// defaults none is closed.
func TestIdleConnectionsAreBounded(t *testing.T) {
	tests := []struct {
		name string
		cfg  egress.Config
		want bool
	}{
		{"in all", egress.Config{MaxIdleConns: 1}, true},
		{"for a host", egress.Config{MaxIdlePerHost: 1}, true},
		{"by time", egress.Config{IdleTimeout: 10 * time.Millisecond}, true},
		{"not", egress.Config{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			arrived, both, closed := make(chan struct{}), make(chan struct{}), make(chan struct{}, 2)
			address, _ := rawServer(t, func(c net.Conn, r *bufio.Reader) {
				if readRequest(r) != nil {
					return
				}
				arrived <- struct{}{}
				<-both // no limit on connections to a host: both requests get here
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				_, _ = r.ReadByte()
				closed <- struct{}{}
			})
			c := newClient(t, local(tt.cfg))
			results := make(chan egress.Result, 2)
			for range 2 {
				go func() { results <- send(t, c, "http://"+address) }()
			}
			<-arrived
			<-arrived
			close(both)
			wantStatus(t, <-results, 200)
			wantStatus(t, <-results, 200)
			if !tt.want {
				if len(closed) > 0 {
					t.Error("a connection was closed")
				}
				return
			}
			select {
			case <-closed:
			case <-time.After(time.Minute):
				t.Error("no connection was closed")
			}
		})
	}
}
