package egress

import (
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// sock is a connection as it was dialled: to the target, or through a proxy that
// leads there. It counts what is written, and remembers the text of its remote
// address: each exchange reports it.
type sock struct {
	net.Conn
	raw     syscall.RawConn // of the TCP connection below; nil if there is none
	remote  remoteAddr
	written int64 // bytes handed to the layer below; one writer at a time
	counter atomic.Pointer[atomic.Int64]
}

func newSock(c net.Conn, remote net.Addr) *sock {
	s := &sock{Conn: c, remote: remoteAddr{Addr: remote, text: remote.String()}}
	if tcp, ok := c.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
	return s
}

// Write counts what it passes on.
func (s *sock) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	s.written += int64(n)
	return n, err
}

// countIn adds the connection to a number of open ones until it is closed.
func (s *sock) countIn(n *atomic.Int64) {
	n.Add(1)
	s.counter.Store(n)
}

// Close closes the connection.
func (s *sock) Close() error {
	if n := s.counter.Swap(nil); n != nil {
		n.Add(-1)
	}
	return s.Conn.Close()
}

// RemoteAddr returns the address of the target, with its text made once.
func (s *sock) RemoteAddr() net.Addr { return &s.remote }

// longAgo is a deadline that ends what is waiting at once.
func longAgo() time.Time { return time.Unix(1, 0) }

type remoteAddr struct {
	net.Addr
	text string
}

// String returns the address and port.
func (a *remoteAddr) String() string { return a.text }
