//go:build !linux

package egress

// hasEnded can't look on this system: a closed connection shows when it is used.
func (*sock) hasEnded() bool { return false }
