package testkit

import (
	"net"
	"syscall"
)

// ShortListener has no free file for its first connections: so many calls of Accept
// fail. One goroutine may accept.
type ShortListener struct {
	net.Listener
	Short int
}

// Accept implements net.Listener.
func (l *ShortListener) Accept() (net.Conn, error) {
	if l.Short > 0 {
		l.Short--
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}
