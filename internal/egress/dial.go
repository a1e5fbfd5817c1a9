package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

const (
	// maxAddrs bounds how many addresses of one answer are tried.
	maxAddrs = 16
	// fallbackDelay is how long the other address family waits (RFC 8305).
	fallbackDelay = 300 * time.Millisecond
	// minAddrTime is what one address gets at least before the next is tried.
	minAddrTime = 2 * time.Second
)

// dialer opens connections to addresses that the guard allows.
type dialer struct {
	guard    *guard
	resolver Resolver
	timeout  time.Duration
	tcp      net.Dialer
}

func newDialer(cfg Config, g *guard) *dialer {
	d := &dialer{guard: g, resolver: cfg.Resolver, timeout: cfg.ConnectTimeout}
	d.tcp.Control = d.control
	return d
}

// control is the last word: it sees the IP that the socket is about to connect to.
func (d *dialer) control(_, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return &BlockedError{Class: AddrReserved}
	}
	if err := checkPort(target.Port()); err != nil {
		return err
	}
	return d.guard.check(target.Addr())
}

// dialContext resolves and connects. The transport calls it with a context that
// outlives the exchange, so it has a time limit of its own. Of an answer with
// allowed and blocked addresses only the allowed ones are tried.
func (d *dialer) dialContext(ctx context.Context, _, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	x := exchangeOf(ctx)
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, &stageError{phaseResolve, err}
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, &stageError{phaseResolve, errors.New("invalid port")}
	}
	if err := checkPort(uint16(port)); err != nil {
		return nil, err
	}
	x.enter(phaseResolve)
	addrs, err := lookup(ctx, d.resolver, host)
	if err != nil {
		return nil, &stageError{phaseResolve, err}
	}
	allowed, blocked := d.guard.split(addrs)
	if len(allowed) == 0 {
		return nil, blocked
	}
	x.enter(phaseConnect)
	c, err := d.dialAny(ctx, allowed[:min(len(allowed), maxAddrs)], uint16(port))
	if err != nil {
		return nil, &stageError{phaseConnect, err}
	}
	x.enter(phaseHandshake)
	remote := c.RemoteAddr()
	return &conn{Conn: c, remote: &remoteAddr{Addr: remote, text: remote.String()}}, nil
}

// lookup returns the addresses of a name, at least one, or the literal address itself.
func lookup(ctx context.Context, r Resolver, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	addrs, err := r.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

// dialed is the end of one series of tries.
type dialed struct {
	conn net.Conn
	err  error
}

// dialAny tries the family of the first address, and the other one when that
// fails or takes long. It returns after all tries have ended.
func (d *dialer) dialAny(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	primary, fallback := byFamily(addrs)
	if len(fallback) == 0 {
		return d.dialSerial(ctx, primary, port)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan dialed, 2)
	series := func(addrs []netip.Addr) {
		c, err := d.dialSerial(ctx, addrs, port)
		results <- dialed{c, err}
	}
	timer := time.NewTimer(fallbackDelay)
	defer timer.Stop()
	go series(primary)
	var winner net.Conn
	var firstErr error
	waiting := fallback
	for pending := 1; pending > 0; {
		select {
		case <-timer.C:
		case r := <-results:
			pending--
			switch {
			case r.err == nil && winner == nil:
				winner = r.conn
				cancel()
			case r.err == nil:
				_ = r.conn.Close()
			case firstErr == nil:
				firstErr = r.err
			}
		}
		if winner == nil && waiting != nil {
			go series(waiting)
			waiting = nil
			pending++
		}
	}
	if winner != nil {
		return winner, nil
	}
	return nil, firstErr
}

// dialSerial tries one address after the other, sharing out the time that is left.
func (d *dialer) dialSerial(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	var firstErr error
	for i, addr := range addrs {
		share := d.timeout
		if deadline, ok := ctx.Deadline(); ok {
			share = max(time.Until(deadline)/time.Duration(len(addrs)-i), minAddrTime)
		}
		one, cancel := context.WithTimeout(ctx, share)
		c, err := d.tcp.DialContext(one, "tcp", netip.AddrPortFrom(addr, port).String())
		cancel()
		if err == nil {
			return c, nil
		}
		if firstErr == nil {
			firstErr = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, firstErr
}

func byFamily(addrs []netip.Addr) (primary, fallback []netip.Addr) {
	for _, addr := range addrs {
		if addr.Is4() == addrs[0].Is4() {
			primary = append(primary, addr)
		} else {
			fallback = append(fallback, addr)
		}
	}
	return primary, fallback
}

// conn remembers the text of its remote address: each exchange reports it.
type conn struct {
	net.Conn
	remote *remoteAddr
}

// RemoteAddr returns the remote address with its text made once.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

type remoteAddr struct {
	net.Addr
	text string
}

// String returns the address and port.
func (a *remoteAddr) String() string { return a.text }
