package registry

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"

	"github.com/alicebob/miniredis/v2/server"
)

// front serves connections from within the process. miniredis's own loop hands
// each command to another goroutine and flushes after each answer; this one
// flushes when there is no further command to read.
type front struct {
	redis *server.Server

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
	loops  sync.WaitGroup
}

const frontBuffer = 32 << 10

// serve answers a connection until it or the front is closed.
func (f *front) serve(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		_ = c.Close()
		return
	}
	f.conns[c] = struct{}{}
	f.loops.Go(func() {
		_ = f.loop(c) // the peer is gone, or broke the protocol: there is nobody to tell
		_ = c.Close()
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.conns, c)
	})
}

func (f *front) loop(c net.Conn) error {
	in := command{Reader: bufio.NewReaderSize(c, frontBuffer)}
	out := bufio.NewWriterSize(c, frontBuffer)
	peer := server.NewPeer(out)
	for !peer.Closed() {
		args, err := in.read()
		if err != nil {
			return err
		}
		f.redis.Dispatch(peer, args)
		if in.Buffered() == 0 {
			peer.Flush()
		}
	}
	peer.Flush()
	return nil
}

// close ends every connection and waits until they are over.
func (f *front) close() {
	f.mu.Lock()
	f.closed = true
	for c := range f.conns {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.loops.Wait()
}

// command reads commands: arrays of bulk strings (RESP, "Sending commands").
type command struct {
	*bufio.Reader
	last string // the longest-lived argument so far: the time to live of claims
}

// Bounds of a command, as of Redis itself.
const (
	maxArgs = 1 << 20
	maxBulk = 512 << 20
)

var errProtocol = errors.New("not a command")

func (c *command) read() ([]string, error) {
	n, err := c.length('*', maxArgs)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errProtocol
	}
	args := make([]string, 0, min(n, 64))
	for range n {
		arg, err := c.bulk()
		if err != nil {
			return nil, err
		}
		args = append(args, arg)
	}
	return args, nil
}

// length reads a line of a sign and a number.
func (c *command) length(sign byte, most int) (int, error) {
	line, err := c.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 4 || line[0] != sign || line[len(line)-2] != '\r' {
		return 0, errProtocol
	}
	n, err := strconv.Atoi(string(line[1 : len(line)-2]))
	if err != nil || n < 0 || n > most {
		return 0, errProtocol
	}
	return n, nil
}

// bulk reads one argument.
func (c *command) bulk() (string, error) {
	n, err := c.length('$', maxBulk)
	if err != nil {
		return "", err
	}
	if n+2 <= frontBuffer {
		raw, err := c.Peek(n + 2)
		if err != nil {
			return "", err
		}
		arg := c.word(raw[:n])
		_, err = c.Discard(n + 2)
		return arg, err
	}
	raw := make([]byte, n+2)
	if _, err := io.ReadFull(c, raw); err != nil {
		return "", err
	}
	return string(raw[:n]), nil
}

// word returns an argument; for those of every claim there is no new memory.
func (c *command) word(raw []byte) string {
	switch string(raw) {
	case "set":
		return "set"
	case "nx":
		return "nx"
	case "NX":
		return "NX"
	case "get":
		return "get"
	case "GET":
		return "GET"
	case "ex":
		return "ex"
	case "px":
		return "px"
	case c.last:
		return c.last
	}
	word := string(raw)
	if len(word) < 12 {
		c.last = word
	}
	return word
}
