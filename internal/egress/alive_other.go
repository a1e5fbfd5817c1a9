//go:build !unix

package egress

type probe struct{}

// isAlive can't look on this system: a closed connection shows when it is used.
func (*sock) isAlive(*probe) bool { return true }
