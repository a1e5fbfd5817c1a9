package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"net/url"
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

// dial opens a connection for HTTP/1.1, or returns the TLS connection on which
// the endpoint chose HTTP/2.
func (d *dialer) dial(ctx context.Context, key connKey, u *url.URL, deadline time.Time) (*conn, *tls.Conn, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = map[bool]string{true: "443", false: "80"}[key.https]
	}
	s, err := d.connect(ctx, host, port)
	if err != nil {
		return nil, nil, err
	}
	if !key.https {
		return newConn(key, s, s), nil, nil
	}
	secure, err := d.handshake(ctx, s, host, key.id.config)
	if err != nil {
		return nil, nil, err
	}
	if secure.ConnectionState().NegotiatedProtocol == "h2" {
		return nil, secure, nil
	}
	return newConn(key, secure, s), nil, nil
}

// dialHTTP2 is called by the transport with a context that outlives the exchange:
// the dialler's own time limits hold.
func (d *dialer) dialHTTP2(ctx context.Context, address string, config *tls.Config) (net.Conn, error) {
	x := exchangeOf(ctx)
	if ready := x.take(); ready != nil {
		return ready, nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, &stageError{phaseResolve, err}
	}
	s, err := d.connect(ctx, host, port)
	if err != nil {
		return nil, err
	}
	secure, err := d.handshake(ctx, s, host, config)
	if err != nil {
		return nil, err
	}
	if secure.ConnectionState().NegotiatedProtocol != "h2" {
		_ = secure.Close()
		return nil, errNotHTTP2
	}
	return secure, nil
}

// connect resolves and connects. Of an answer with allowed and blocked addresses
// only the allowed ones are tried.
func (d *dialer) connect(ctx context.Context, host, portText string) (*sock, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	x := exchangeOf(ctx)
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
	return newSock(c, c.RemoteAddr()), nil
}

// handshake starts TLS on a connection, which is closed if that fails.
func (d *dialer) handshake(ctx context.Context, s *sock, host string, config *tls.Config) (*tls.Conn, error) {
	exchangeOf(ctx).enter(phaseHandshake)
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	config = config.Clone()
	config.ServerName = host
	secure := tls.Client(s, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = s.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, &stageError{phaseHandshake, err}
	}
	return secure, nil
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
