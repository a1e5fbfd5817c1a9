package pipe

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/postrider/postrider/internal/backoff"
)

// Listener accepts the connections of another listener and those of Dial.
type Listener struct {
	net.Listener
	conns  chan net.Conn
	closed chan struct{}
	close  sync.Once
	start  sync.Once
	loop   sync.WaitGroup
	err    error // why the other listener ended; set before failed is closed
	failed chan struct{}
}

// NewListener adds Dial to a listener, which it closes with itself.
func NewListener(ln net.Listener) *Listener {
	return &Listener{Listener: ln, conns: make(chan net.Conn), closed: make(chan struct{}), failed: make(chan struct{})}
}

// Accept returns the next connection of either kind. From the first call on
// until Close a goroutine waits at the other listener.
func (l *Listener) Accept() (net.Conn, error) {
	l.start.Do(func() { l.loop.Go(l.acceptLoop) })
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.failed:
		return nil, l.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// acceptLoop outlasts what may soon be over, such as a lack of free files: whoever
// serves a listener ends with its first error.
func (l *Listener) acceptLoop() {
	pause := backoff.Backoff{First: 5 * time.Millisecond, Limit: time.Second}
	for {
		c, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			l.err = err
			close(l.failed)
			return
		}
		if err != nil {
			select {
			case <-l.closed:
				return
			case <-time.After(pause.Next()):
			}
			continue
		}
		pause.Reset()
		select {
		case l.conns <- c:
		case <-l.closed:
			_ = c.Close()
		}
	}
}

// Dial connects to the listener within the process. It waits until the
// connection is accepted or ctx ends.
func (l *Listener) Dial(ctx context.Context) (net.Conn, error) {
	client, server := New()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Close ends Accept, Dial and the other listener; connections live on.
func (l *Listener) Close() error {
	l.close.Do(func() { close(l.closed) })
	l.start.Do(func() {}) // no loop begins any more
	err := l.Listener.Close()
	l.loop.Wait()
	return err
}
