package httpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postrider/postrider/internal/backoff"
)

// ErrDrain is returned by Serve when requests were still under way at the end
// of the drain time; their connections were cut.
var ErrDrain = errors.New("requests were cut off at the end of the drain time")

// Serve answers the connections of ln until ctx ends. Then it accepts no more,
// lets the requests under way finish within the drain time, closes what is
// left, and returns: nil after a clean drain, ErrDrain otherwise. It owns ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	tracked := &listener{Listener: ln, timeout: s.cfg.WriteTimeout, open: make(map[*conn]struct{})}
	served := make(chan error, 1)
	go func() { served <- s.app.Listener(tracked) }()
	select {
	case err := <-served:
		tracked.closeAll()
		if err == nil {
			err = net.ErrClosed
		}
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	// Closed here as well: Shutdown does nothing if Serve has not yet begun.
	_ = tracked.Close()
	if err := <-served; err != nil {
		tracked.closeAll()
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainTimeout)
	defer cancel()
	silent := time.AfterFunc(min(silentTime, s.cfg.DrainTimeout/2), tracked.closeSilent)
	defer silent.Stop()
	if err := s.app.ShutdownWithContext(drain); err != nil {
		tracked.closeAll()
		return fmt.Errorf("stop serving %s: %w", ln.Addr(), ErrDrain)
	}
	return nil
}

// listener knows its open connections and bounds each write on them. A write
// deadline per answer, fasthttp's own, would cut every stream after that time.
type listener struct {
	net.Listener
	timeout time.Duration
	once    sync.Once
	err     error
	mu      sync.Mutex
	open    map[*conn]struct{}
}

// Accept implements net.Listener. It outlasts what may soon be over, such as a lack
// of free files: fasthttp would end with the first error.
func (l *listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	pause := backoff.Backoff{First: 5 * time.Millisecond, Limit: time.Second}
	for err != nil && !errors.Is(err, net.ErrClosed) {
		pause.Wait(context.Background())
		nc, err = l.Listener.Accept()
	}
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, from: l}
	l.mu.Lock()
	l.open[c] = struct{}{}
	l.mu.Unlock()
	return c, nil
}

// Close implements net.Listener; a second call returns what the first did.
func (l *listener) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}

func (l *listener) closeAll() {
	_ = l.Close()
	l.mu.Lock()
	open := make([]*conn, 0, len(l.open))
	for c := range l.open {
		open = append(open, c)
	}
	l.mu.Unlock()
	for _, c := range open {
		_ = c.cut()
	}
}

// silentTime is how long, at the end, a connection may take to send the first byte
// of its first request.
const silentTime = time.Second

// closeSilent closes the connections on which nothing ever came: clients open some
// ahead, and fasthttp takes each for one with a request under way.
func (l *listener) closeSilent() {
	l.mu.Lock()
	var silent []*conn
	for c := range l.open {
		if c.state.CompareAndSwap(stateNew, stateSilent) {
			silent = append(silent, c)
		}
	}
	l.mu.Unlock()
	for _, c := range silent {
		_ = c.cut()
	}
}

// lingerTime bounds how long a connection whose request was refused before its
// end is read on.
const lingerTime = time.Second

type conn struct {
	net.Conn
	from *listener
	// unread says that the client may still be sending what nobody will read.
	unread atomic.Bool
	// state is what is known of the client.
	state atomic.Int32
	// shut says that a handler runs that has not asked for the body; failed is the
	// error that a Read had. Both are for the goroutine that reads.
	shut   bool
	failed error
}

// The states of a connection.
const (
	stateNew    int32 = iota // nothing came yet
	stateHeard               // something came
	stateSilent              // closed since nothing came; what comes after all is not looked at
)

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	if c.shut {
		return 0, errUnasked
	}
	n, err := c.Conn.Read(b)
	if err != nil {
		c.failed = err
	}
	if n > 0 && c.state.Load() != stateHeard && !c.state.CompareAndSwap(stateNew, stateHeard) {
		return 0, net.ErrClosed
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.from.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// Close implements net.Conn. To close while the client is sending resets the
// connection, and the answer, a 413 for instance, may never be read: then what
// comes is thrown away for a moment, until the client has closed.
func (c *conn) Close() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && c.unread.Swap(false) && half.CloseWrite() == nil {
		if c.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
			_, _ = io.Copy(io.Discard, c.Conn) // ends by the deadline at the latest
		}
	}
	return c.cut()
}

// cut closes the connection at once.
func (c *conn) cut() error {
	c.from.mu.Lock()
	delete(c.from.open, c)
	c.from.mu.Unlock()
	return c.Conn.Close()
}
