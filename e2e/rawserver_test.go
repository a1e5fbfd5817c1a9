package e2e

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// rawServer runs handle for each connection and returns the address. It is
// closed, with its connections, at the end of the test.
func rawServer(t *testing.T, handle func(net.Conn, *bufio.Reader)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveRaw(t, ln, handle)
	return ln.Addr().String()
}

func serveRaw(t *testing.T, ln net.Listener, handle func(net.Conn, *bufio.Reader)) {
	t.Helper()
	var tasks sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	tasks.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			tasks.Go(func() {
				handle(c, bufio.NewReader(c))
				_ = c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		tasks.Wait()
	})
}

// answers reads a request, writes a text and closes.
func answers(text string) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		if readRequest(r) == nil {
			_, _ = io.WriteString(c, text)
		}
	}
}

// stops reads a request, writes a text and then does nothing until the other
// side hangs up.
func stops(text string) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		if readRequest(r) == nil {
			_, _ = io.WriteString(c, text)
			_, _ = io.Copy(io.Discard, r)
		}
	}
}

// pours reads a request, writes a text and then another again and again, with a
// pause, until the other side hangs up.
func pours(first, again string, pause time.Duration) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		if readRequest(r) != nil {
			return
		}
		_, err := io.WriteString(c, first)
		for err == nil {
			if pause > 0 {
				<-time.After(pause)
			}
			_, err = io.WriteString(c, again)
		}
	}
}

// resets reads a request and ends the connection with a RST.
func resets(c net.Conn, r *bufio.Reader) {
	if readRequest(r) == nil {
		_ = c.(*net.TCPConn).SetLinger(0)
	}
}

// early answers before it has read the body.
func early(status string) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 "+status+"\r\nContent-Length: 0\r\n\r\n")
		_, _ = io.Copy(io.Discard, req.Body)
	}
}

func readRequest(r *bufio.Reader) error {
	req, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, req.Body)
	return err
}

// closedPort returns an address that nobody listens on.
func closedPort(t *testing.T) string { return freeAddress(t) }

// fullQueue returns an address whose queue of connections is full: a connect to
// it gets no answer.
func fullQueue(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	bound := name.(*syscall.SockaddrInet4)
	address := netip.AddrPortFrom(netip.AddrFrom4(bound.Addr), uint16(bound.Port)).String()
	for range 16 {
		c, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("this kernel keeps no limit on the queue")
	return ""
}

// longHeader is more than a response's headers may have.
func longHeader() string {
	return "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 65<<10) + "\r\n\r\n"
}
