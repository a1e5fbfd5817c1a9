package egress

import (
	"context"
	"net"
	"net/netip"
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

// connector makes TCP connections to addresses, trying several.
type connector struct {
	net.Dialer
	timeout time.Duration // for all of them
}

// dialed is the end of one series of tries.
type dialed struct {
	conn net.Conn
	err  error
}

// dialAny tries the family of the first address, and the other one when that
// fails or takes long. It returns after all tries have ended.
func (d *connector) dialAny(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
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
func (d *connector) dialSerial(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	var firstErr error
	for i, addr := range addrs {
		share := d.timeout
		if deadline, ok := ctx.Deadline(); ok {
			share = max(time.Until(deadline)/time.Duration(len(addrs)-i), minAddrTime)
		}
		one, cancel := context.WithTimeout(ctx, share)
		c, err := d.DialContext(one, "tcp", netip.AddrPortFrom(addr, port).String())
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
