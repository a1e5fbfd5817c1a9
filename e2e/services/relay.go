package services

import (
	"context"
	"net"
	"sync"
)

// Relay forwards TCP connections until it is cut, like a cable: while it is cut
// connections stay open and new ones are accepted, but nothing passes. What was
// on its way passes when it is mended, as TCP would send it again.
type Relay struct {
	Address string // where it listens
	to      string
	ln      net.Listener
	tasks   sync.WaitGroup
	ctx     context.Context //nolint:containedctx // the relay's life, from start to Close
	end     context.CancelFunc

	mu   sync.Mutex
	open chan struct{} // closed while bytes may pass
}

// newRelay listens on a free port and forwards to an address.
func newRelay(to string) (*Relay, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // local and at once
	if err != nil {
		return nil, err
	}
	r := &Relay{Address: ln.Addr().String(), to: to, ln: ln, open: make(chan struct{})}
	close(r.open)
	r.ctx, r.end = context.WithCancel(context.Background())
	r.tasks.Go(r.accept)
	return r, nil
}

// Cut lets nothing pass until Mend.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = make(chan struct{})
}

// Mend ends a cut.
func (r *Relay) Mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.open:
	default:
		close(r.open)
	}
}

// Close ends all connections and returns when they are gone.
func (r *Relay) Close() {
	r.end()
	_ = r.ln.Close() // it is in nobody's way
	r.tasks.Wait()
}

func (r *Relay) accept() {
	for {
		conn, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.tasks.Go(func() { r.join(conn) })
	}
}

// join connects a caller with the target until one of them ends.
func (r *Relay) join(caller net.Conn) {
	defer caller.Close() //nolint:errcheck // both ends are gone
	if r.wait() != nil {
		return
	}
	target, err := new(net.Dialer).DialContext(r.ctx, "tcp", r.to)
	if err != nil {
		return
	}
	defer target.Close() //nolint:errcheck // both ends are gone
	hangUp := context.AfterFunc(r.ctx, func() { _, _ = caller.Close(), target.Close() })
	defer hangUp()
	var back sync.WaitGroup
	back.Go(func() { r.pump(caller, target) })
	r.pump(target, caller)
	back.Wait()
}

// pump copies one direction and hangs up at its end.
func (r *Relay) pump(to, from net.Conn) {
	defer to.Close() //nolint:errcheck // the other direction notices
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if r.wait() != nil {
			return
		}
		if _, failed := to.Write(buf[:n]); failed != nil || err != nil {
			return
		}
	}
}

// wait returns when bytes may pass.
func (r *Relay) wait() error {
	r.mu.Lock()
	open := r.open
	r.mu.Unlock()
	select {
	case <-open:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}
