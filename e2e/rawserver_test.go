package e2e

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/testkit"
)

// rawServer runs handle for each connection and returns the address.
func rawServer(t *testing.T, handle func(net.Conn, *bufio.Reader)) string {
	t.Helper()
	address, _ := testkit.RawServer(t, handle)
	return address
}

// answers reads a request, writes a text and closes.
func answers(text string) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		if testkit.ReadRequest(r) == nil {
			_, _ = io.WriteString(c, text)
		}
	}
}

// stops reads a request, writes a text and then does nothing until the other
// side hangs up.
func stops(text string) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		if testkit.ReadRequest(r) == nil {
			_, _ = io.WriteString(c, text)
			_, _ = io.Copy(io.Discard, r)
		}
	}
}

// pours reads a request, writes a text and then another again and again, with a
// pause, until the other side hangs up.
func pours(first, again string, pause time.Duration) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		if testkit.ReadRequest(r) != nil {
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
	if testkit.ReadRequest(r) == nil {
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

// closedPort returns an address that nobody listens on.
func closedPort(t *testing.T) string { return freeAddress(t) }

// longHeader is more than a response's headers may have.
func longHeader() string {
	return "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 65<<10) + "\r\n\r\n"
}
