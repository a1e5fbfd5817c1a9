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
	written atomic.Int64 // bytes handed to the layer below
	refused atomic.Bool  // nothing more is written
	users   atomic.Int32 // exchanges over HTTP/2 that wait on it
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
	if s.refused.Load() {
		return 0, net.ErrClosed
	}
	s.written.Add(int64(len(p))) // before it: an answer may be there before Write returns
	n, err := s.Conn.Write(p)
	s.written.Add(int64(n - len(p)))
	return n, err
}

// refuse makes each further write fail with no byte of it written.
func (s *sock) refuse() { s.refused.Store(true) }

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
