package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/postrider/postrider/internal/egress/http1"
)

// writeGrace is how long a complete answer waits for a request that is still
// being written, so that the connection can be used again.
const writeGrace = 50 * time.Millisecond

// conn is a connection that HTTP/1.1 is spoken over. One exchange at a time uses
// it; in between it is in the pool.
type conn struct {
	key    connKey
	stream net.Conn // the socket, or TLS on it
	sock   *sock
	secure *tls.Conn // the upper layer of TLS, to the endpoint or to a proxy; nil: none
	probe  probe
	abort  func() // ends what waits on the stream

	// Of the pool.
	idleSince time.Time
	links     [orders]link
}

func newConn(key connKey, stream net.Conn, s *sock) *conn {
	cn := &conn{key: key, stream: stream, sock: s}
	cn.secure, _ = stream.(*tls.Conn)
	if cn.secure == nil {
		cn.secure, _ = s.Conn.(*tls.Conn)
	}
	cn.abort = func() { _ = stream.SetDeadline(longAgo()) }
	return cn
}

// close gives the connection up. TLS is not told: its farewell would wait for an
// endpoint that does not read. Nothing depends on how it ends.
func (cn *conn) close() { _ = cn.sock.Close() }

// begin makes the connection end with the exchange's time, or when the caller
// gives up. The result of stop says whether that did not happen.
func (cn *conn) begin(ctx context.Context, deadline time.Time) (stop func() bool, err error) {
	if err := cn.stream.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if ctx.Done() == nil {
		return func() bool { return true }, nil
	}
	return context.AfterFunc(ctx, cn.abort), nil
}

// fit begins an exchange on a kept connection, if that can still be used: the
// peer has neither closed it nor said anything unasked, which would be taken for
// the answer. stop is nil if not.
func (cn *conn) fit(ctx context.Context, deadline time.Time) (stop func() bool) {
	if cn.secure != nil {
		// TLS may have read more than it gave out. With a deadline that is over it
		// looks at that and does not wait for more, nor is it harmed.
		_ = cn.secure.SetReadDeadline(longAgo())
		if _, err := cn.secure.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
	}
	stop, err := cn.begin(ctx, deadline)
	if err != nil {
		return nil
	}
	if !cn.sock.isAlive(&cn.probe) {
		stop()
		return nil
	}
	return stop
}

// roundTrip writes a request and reads the answer, which may come before the
// whole request is written. keep says that the connection can be used again,
// unsent that no byte of the request went out.
func (c *Client) roundTrip(cn *conn, s *sending, result *Result) (keep, unsent bool, err error) {
	o, noBody := s.out, s.method == http.MethodHead
	before := cn.sock.written.Load()
	_, writeErr := cn.stream.Write(o.head)
	if writeErr != nil && cn.sock.written.Load() == before {
		return false, true, cn.refusal(writeErr)
	}
	if len(o.rest) == 0 || writeErr != nil {
		c.release(s)
		// An endpoint may have answered, or said why not, before it closed the connection.
		keep, err = c.receive(cn.stream, noBody, result)
		if err != nil && writeErr != nil && !isAlert(err) {
			err = writeErr
		}
		return keep && writeErr == nil, false, err
	}
	wrote := make(chan bool, 1)
	go func() {
		_, err := cn.stream.Write(o.rest)
		wrote <- err == nil
	}()
	keep, err = c.receive(cn.stream, noBody, result)
	return cn.endWrite(wrote, err == nil) && keep, false, err
}

// refusal returns why TLS was ended by the other side, if it said so before the
// first write failed; else the error of the write.
func (cn *conn) refusal(writeErr error) error {
	if cn.secure == nil {
		return writeErr
	}
	if _, err := cn.secure.Read(make([]byte, 1)); isAlert(err) {
		return err
	}
	return writeErr
}

// endWrite waits for the rest of a request, not long once there is an answer, and
// reports whether all of it was written.
func (cn *conn) endWrite(wrote <-chan bool, answered bool) bool {
	if answered {
		grace := time.NewTimer(writeGrace)
		defer grace.Stop()
		select {
		case all := <-wrote:
			return all
		case <-grace.C:
		}
	}
	cn.abort()
	<-wrote
	return false
}

// receive reads the answer into result and reports whether nothing is left of it.
func (c *Client) receive(src io.Reader, noBody bool, result *Result) (keep bool, err error) {
	r := http1.New(src)
	defer r.Release()
	head, err := r.ReadHead(noBody)
	if err != nil {
		return false, err
	}
	if head.Status == http.StatusSwitchingProtocols {
		return false, errSwitched
	}
	result.Status, result.RetryAfter = head.Status, head.RetryAfter
	if err := c.readBody(r, head.Length, result); err != nil {
		return false, err
	}
	return head.KeepAlive && r.Complete() && r.Buffered() == 0, nil
}
