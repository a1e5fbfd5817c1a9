//go:build linux

package egress_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postrider/postrider/internal/egress"
)

// arrived waits until the other end's kernel has acknowledged all that was sent,
// the end of the connection included.
func arrived(t *testing.T, c syscall.Conn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	for unacked := uint32(1); unacked > 0; runtime.Gosched() {
		if err := raw.Control(func(fd uintptr) {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			if err != nil {
				t.Error(err)
				unacked = 0
				return
			}
			unacked = info.Unacked
		}); err != nil {
			t.Error(err)
			return
		}
	}
}

// A kept connection that the endpoint has closed, or on which it said something
// unasked, is not used: the next request gets a new one and succeeds.
func TestStaleConnectionsAreNotUsed(t *testing.T) {
	a := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{a.hour(t).tls}}
	for name, spoil := range map[string]func(c net.Conn, tcp *net.TCPConn){
		"closed":        func(_ net.Conn, tcp *net.TCPConn) { _ = tcp.CloseWrite() },
		"closed by TLS": func(c net.Conn, _ *net.TCPConn) { _ = c.(interface{ CloseWrite() error }).CloseWrite() },
		"unasked": func(c net.Conn, _ *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
		},
	} {
		for _, scheme := range []string{"http", "https"} {
			t.Run(name+" "+scheme, func(t *testing.T) {
				var requests atomic.Int32
				spoilt := make(chan struct{}, 8)
				address, conns := rawServer(t, func(c net.Conn, r *bufio.Reader) {
					tcp := c.(*net.TCPConn)
					if scheme == "https" {
						c = tls.Server(c, config)
						r = bufio.NewReader(c)
					}
					if readRequest(r) != nil {
						return
					}
					requests.Add(1)
					_, _ = io.WriteString(c, delivered)
					arrived(t, tcp)
					spoil(c, tcp)
					arrived(t, tcp)
					spoilt <- struct{}{}
					if readRequest(r) == nil {
						t.Error("a request came over the spoilt connection")
					}
				})
				c := newClient(t, local(egress.Config{Resolver: always("127.0.0.1"), RootCAs: a.pool()}))
				for range 3 {
					wantStatus(t, send(t, c, scheme+"://hook.example:"+portOf(t, address)), 200)
					<-spoilt
				}
				if requests.Load() != 3 || conns.Load() != 3 {
					t.Errorf("%d requests over %d connections", requests.Load(), conns.Load())
				}
			})
		}
	}
}
