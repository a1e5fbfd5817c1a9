package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// dialer opens connections to addresses that the guard allows.
type dialer struct {
	guard   *guard
	names   *names
	timeout time.Duration
	tcp     connector
	proxy   *proxy // nil: there is none
	h2Open  atomic.Int64
}

func newDialer(cfg *Config, g *guard) *dialer {
	d := &dialer{guard: g, names: newNames(cfg), timeout: cfg.ConnectTimeout, tcp: connector{timeout: cfg.ConnectTimeout}}
	d.tcp.Control = d.control
	d.proxy = newProxy(cfg, d.names)
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
	return nameless(d.guard.check(target.Addr()))
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
		s.countIn(&d.h2Open)
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
	if x != nil && x.dials.Add(1) > maxDials {
		return nil, errGoesAway
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
	s.countIn(&d.h2Open)
	if x != nil {
		x.opened.Store(secure)
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
	addrs, err := d.names.lookup(ctx, host)
	if err != nil {
		return nil, &stageError{phaseResolve, err}
	}
	allowed, blocked := d.guard.split(host, addrs)
	if len(allowed) == 0 {
		return nil, blocked
	}
	x.enter(phaseConnect)
	if d.proxy != nil {
		return d.proxy.dial(ctx, allowed, uint16(port))
	}
	c, err := d.tcp.dialAny(ctx, allowed[:min(len(allowed), maxAddrs)], uint16(port))
	if err != nil {
		d.names.forget(host) // it may have moved
		return nil, &stageError{phaseConnect, d.guard.conceal(host, err)}
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
