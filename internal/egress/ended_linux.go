package egress

import "golang.org/x/sys/unix"

// hasEnded reports whether the peer has closed the connection, whatever there is
// left to read, which the peek of isAlive can't see past. It does not wait.
func (s *sock) hasEnded() bool {
	if s.raw == nil {
		return false
	}
	ended := false
	err := s.raw.Control(func(fd uintptr) {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}} //nolint:gosec // a descriptor is an int
		n, err := unix.Poll(fds[:], 0)
		ended = err == nil && n > 0 // closed, reset or failed
	})
	return err != nil || ended
}
