//go:build unix

package egress

import "syscall"

// probe looks whether an idle connection can still be used, without waiting. Its
// method is made a func once: a closure for each exchange would be garbage.
type probe struct {
	peek  func(fd uintptr) bool
	alive bool
	one   [1]byte
}

// look is run with the descriptor. Nothing to read and no end is the only sign
// of health: bytes that nobody asked for make a connection useless, too.
func (p *probe) look(fd uintptr) bool {
	_, _, err := syscall.Recvfrom(int(fd), p.one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	p.alive = err == syscall.EAGAIN
	return true
}

// isAlive reports whether the peer has neither closed the connection nor sent
// anything. The deadline of the connection must not be over.
func (s *sock) isAlive(p *probe) bool {
	if s.raw == nil {
		return true
	}
	if p.peek == nil {
		p.peek = p.look
	}
	p.alive = false
	return s.raw.Read(p.peek) == nil && p.alive
}
