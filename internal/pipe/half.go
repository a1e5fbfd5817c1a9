package pipe

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// room is how many bytes one direction holds before a writer waits for the
// reader.
const room = 64 << 10

// half is one direction of a connection. What a reader waits for is copied from
// the writer's memory straight into the reader's; the rest is kept.
type half struct {
	turn     sync.Mutex // of writers, so that two writes don't mix; taken before mu
	mu       sync.Mutex
	readable sync.Cond
	writable sync.Cond

	kept []byte // written and not read: kept[off:]
	off  int
	want []byte // of the reader that waits
	got  int    // bytes that were put into want

	ended  bool // the writer closed
	broken bool // the reader closed

	read, write deadline
}

func newHalf() *half {
	h := &half{}
	h.readable.L, h.writable.L = &h.mu, &h.mu
	h.read.wake, h.write.wake = h.wake, h.wake
	return h
}

// Read returns what is there, or waits for the next write.
func (h *half) Read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.broken:
			return 0, net.ErrClosed
		case h.read.passed():
			return 0, os.ErrDeadlineExceeded
		case h.off < len(h.kept):
			return h.take(p), nil
		case h.ended:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		if n := h.await(p); n > 0 {
			return n, nil
		}
	}
}

// take moves kept bytes to p.
func (h *half) take(p []byte) int {
	n := copy(p, h.kept[h.off:])
	if h.off += n; h.off == len(h.kept) {
		h.kept, h.off = h.kept[:0], 0
	}
	h.writable.Broadcast()
	return n
}

// await waits once, with p open to a writer, and returns what was put into it.
func (h *half) await(p []byte) int {
	if h.want != nil { // two readers: one at a time is served directly
		h.read.wait(&h.readable)
		return 0
	}
	h.want, h.got = p, 0
	h.read.wait(&h.readable)
	n := h.got
	h.want, h.got = nil, 0
	return n
}

// Write returns when all of p is with the reader or kept.
func (h *half) Write(p []byte) (n int, err error) {
	h.turn.Lock()
	defer h.turn.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.ended:
			return n, net.ErrClosed
		case h.broken:
			return n, &net.OpError{Op: "write", Net: address{}.Network(), Err: syscall.EPIPE}
		case h.write.passed():
			return n, os.ErrDeadlineExceeded
		}
		n += h.put(p[n:])
		if n == len(p) {
			return n, nil
		}
		h.write.wait(&h.writable)
	}
}

// put hands over and keeps as much of p as there is room for.
func (h *half) put(p []byte) (n int) {
	if h.want != nil && h.got == 0 {
		n = copy(h.want, p)
		h.got = n
		h.readable.Broadcast()
	}
	keep := min(len(p)-n, room-(len(h.kept)-h.off))
	if keep <= 0 {
		return n
	}
	if h.off > 0 && len(h.kept)+keep > room {
		h.kept = h.kept[:copy(h.kept, h.kept[h.off:])]
		h.off = 0
	}
	h.kept = append(h.kept, p[n:n+keep]...)
	h.readable.Broadcast()
	return n + keep
}

func (h *half) end()     { h.mark(&h.ended) }
func (h *half) breakUp() { h.mark(&h.broken) }

func (h *half) mark(closed *bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*closed = true
	h.wakeLocked()
}

// set changes a deadline; who waits looks at it again.
func (h *half) set(d *deadline, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d.at = at
	h.wakeLocked()
}

// wake wakes all who wait. It takes the lock so that nobody is between looking
// and waiting.
func (h *half) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wakeLocked()
}

func (h *half) wakeLocked() {
	h.readable.Broadcast()
	h.writable.Broadcast()
}

// deadline ends waiting at a time, if that is not zero. Its timer runs only while
// somebody waits. The lock of its half guards it.
type deadline struct {
	at    time.Time
	timer *time.Timer
	wake  func()
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// wait waits for one signal, or until the deadline.
func (d *deadline) wait(cond *sync.Cond) {
	if d.at.IsZero() {
		cond.Wait()
		return
	}
	if left := time.Until(d.at); d.timer == nil {
		d.timer = time.AfterFunc(left, d.wake)
	} else {
		d.timer.Reset(left)
	}
	cond.Wait()
	d.timer.Stop()
}
