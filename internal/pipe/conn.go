// Package pipe has network connections that do not leave the process: what a
// write holds is copied once, without a system call.
//
// In: a listener, whose own connections come in beside those made here. Out:
// net.Conn with everything that callers of TCP expect: deadlines, a buffer of
// 64 KiB in each direction, the end of the stream after the peer has closed.
// Reads and writes block as those of TCP do.
package pipe

import (
	"net"
	"time"
)

// New returns the two ends of a connection.
func New() (a, b net.Conn) {
	there, back := newHalf(), newHalf()
	return &conn{in: back, out: there}, &conn{in: there, out: back}
}

type conn struct{ in, out *half }

func (c *conn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *conn) Write(p []byte) (int, error) { return c.out.Write(p) }

// Close ends both directions; the peer still reads what was written.
func (c *conn) Close() error {
	c.out.end()
	c.in.breakUp()
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	c.in.set(&c.in.read, t)
	c.out.set(&c.out.write, t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.set(&c.in.read, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.set(&c.out.write, t)
	return nil
}

// The address is one of loopback, since peers look for a host in it.
func (c *conn) LocalAddr() net.Addr  { return address{} }
func (c *conn) RemoteAddr() net.Addr { return address{} }

type address struct{}

func (address) Network() string { return "pipe" }
func (address) String() string  { return "127.0.0.1:0" }
