package egress

import (
	"context"
	"crypto/tls"
	"net/http/httptrace"
	"sync/atomic"
)

// phase is how far opening a connection for an exchange has come.
type phase int32

const (
	phaseNone phase = iota
	phaseResolve
	phaseConnect
	phaseHandshake
)

// exchange is the state of one request over HTTP/2. A dial that it started may
// outlive it and still writes its phase, so it is never used again.
type exchange struct {
	ready  atomic.Pointer[tls.Conn] // a connection to begin with
	opened atomic.Pointer[tls.Conn] // the connection that was opened for it, if one was
	phase  atomic.Int32
	dials  atomic.Int32 // connections that were to be opened for it
	sock   *sock        // what the request was last given to; nil: nothing yet
	reused bool         // another exchange had used it before
	before int64        // what was written to it by then
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

func (x *exchange) enter(p phase) {
	if x != nil {
		x.phase.Store(int32(p))
	}
}

// take returns the connection to begin with, once.
func (x *exchange) take() *tls.Conn {
	if x == nil {
		return nil
	}
	return x.ready.Swap(nil)
}

// trace makes the transport tell x which connection it uses.
func (x *exchange) trace(ctx context.Context) context.Context {
	ctx = context.WithValue(ctx, exchangeKey{}, x)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: x.gotConn})
}

// gotConn is called by the exchange's goroutine before anything of the request is
// written. The transport may not have noticed yet that the endpoint has closed a
// kept connection: written to it the request would be lost, and nobody could say
// that it was not processed. Where other exchanges use the connection, their answers
// may still be read, and it is left to the transport.
func (x *exchange) gotConn(info httptrace.GotConnInfo) {
	x.leave()
	secure, ok := info.Conn.(*tls.Conn)
	if !ok {
		return
	}
	if x.sock, ok = secure.NetConn().(*sock); !ok {
		return
	}
	alone := x.sock.users.Add(1) == 1
	x.reused, x.before = info.Reused, x.sock.written.Load()
	if alone && x.reused && x.sock.hasEnded() {
		x.sock.refuse()
	}
}

// leave says that the exchange does not wait on its connection any more.
func (x *exchange) leave() {
	if x.sock != nil {
		x.sock.users.Add(-1)
	}
}

// unsent reports whether a kept connection has failed with err before any byte of
// the request was written. The transport has let go of both by then: it returns
// an error, other than for the time or a cancel, once nothing writes any more.
func (x *exchange) unsent(err error) bool {
	return x.reused && isReset(err, err.Error()) && x.sock.written.Load() == x.before
}

// lost returns why the connection of an exchange ended, which the transport does
// not hand on: an endpoint may refuse our certificate only after the handshake.
func (x *exchange) lost(err error) error {
	tc := x.opened.Load()
	if tc == nil {
		return err
	}
	_ = tc.SetReadDeadline(longAgo()) // it has failed: nothing is waited for
	if _, cause := tc.Read(make([]byte, 1)); cause != nil && !isTimeout(cause) {
		return cause
	}
	return err
}
