//go:build unix

package testkit

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// FullListener returns an address of 127.0.0.1 whose queue of connections is full
// until the test ends: a connect to it gets no answer.
func FullListener(tb testing.TB) string {
	tb.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = syscall.Close(fd) })
	syscall.CloseOnExec(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		tb.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		tb.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		tb.Fatal(err)
	}
	bound, ok := name.(*syscall.SockaddrInet4)
	if !ok {
		tb.Fatalf("bound to %T", name)
	}
	address := netip.AddrPortFrom(netip.AddrFrom4(bound.Addr), uint16(bound.Port)).String() //nolint:gosec // a port
	failed := 0
	for range 16 {
		c, err := net.DialTimeout("tcp", address, 200*time.Millisecond) //nolint:noctx // has its own limit
		if err == nil {
			tb.Cleanup(func() { _ = c.Close() })
			continue
		}
		if failed++; failed == 2 { // one alone may be a busy machine
			return address
		}
	}
	tb.Skip("this kernel keeps no limit on the queue")
	return ""
}
