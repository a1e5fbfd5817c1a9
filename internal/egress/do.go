package egress

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/postrider/postrider/internal/egress/http1"
)

// Request is one request to send.
type Request struct {
	// Method is the HTTP method; empty means POST.
	Method string
	// URL is where to send it, best a kept result of CheckURL. It is only read.
	// User info and fragment are not sent.
	URL *url.URL
	// Fields are header fields, sent in their order and as they are written. Those
	// about the connection and the framing are left out: Host, Content-Length,
	// Transfer-Encoding, Connection, Expect and the like.
	Fields []Field
	// Body is sent as it is. It must never change after the call: after a timeout
	// HTTP/2 may still be reading it.
	Body []byte
	// Timeout limits the whole exchange; 0 means that of the Config.
	Timeout time.Duration
	// TLS is how an https endpoint is spoken to; nil means no client certificate
	// and the authorities of the Config.
	TLS *TLS
}

// Result is what came of a request.
type Result struct {
	// Status is the final HTTP status, 0 if none arrived. It is also set when Err
	// says that the exchange broke off later, in the body.
	Status int
	// RetryAfter is the value of that header, empty if absent or over 64 bytes.
	RetryAfter string
	// Body is the start of the response body, at most MaxResponse bytes, not
	// decompressed.
	Body []byte
	// Truncated reports whether the body was longer than what is kept.
	Truncated bool
	// Duration is the time of the whole exchange.
	Duration time.Duration
	// RemoteAddr is the address and port that was spoken to, empty if none.
	RemoteAddr string
	// Err is nil if a complete response arrived (or as much as is read of one),
	// whatever its status.
	Err *Error
}

// Do sends req and reads the answer. It returns when the exchange has ended, its
// time is over or ctx is done, whichever comes first; it never panics on what an
// endpoint sends. A status of 3xx is returned as it is.
func (c *Client) Do(ctx context.Context, req *Request) Result {
	start := time.Now()
	timeout := req.Timeout
	if timeout <= 0 {
		timeout = c.cfg.Timeout
	}
	deadline := start.Add(timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	var result Result
	if err := c.exchange(ctx, req, deadline, &result); err != nil {
		result.Err = classify(ctx, err)
	}
	result.Duration = time.Since(start)
	return result
}

func (c *Client) exchange(ctx context.Context, req *Request, deadline time.Time, result *Result) error {
	if err := checkTarget(req.URL); err != nil {
		return err
	}
	method := req.Method
	if method == "" {
		method = http.MethodPost
	} else if !http1.IsToken(method) {
		return invalidError("invalid method")
	}
	if err := ctx.Err(); err != nil || !time.Now().Before(deadline) {
		return &stageError{phaseNone, context.DeadlineExceeded}
	}
	out := c.outgoing.Get().(*outgoing)
	s := sending{req: req, method: method, out: out, deadline: deadline}
	defer func() { c.release(&s) }()
	if err := out.encode(req, method, c.cfg.UserAgent); err != nil {
		return err
	}
	s.key = connKey{https: req.URL.Scheme == "https", host: req.URL.Host}
	if s.key.https {
		s.key.id = c.ids.of(req.TLS)
	}
	return c.send(ctx, &s, result)
}

// release gives back the buffer of a request that is written: an endpoint that
// takes long to answer should cost little.
func (c *Client) release(s *sending) {
	out := s.out
	s.out = nil
	if out == nil || cap(out.head) > maxKeptBuffer {
		return
	}
	out.rest = nil
	c.outgoing.Put(out)
}

// sending is a request on its way.
type sending struct {
	req      *Request
	method   string
	key      connKey
	out      *outgoing
	deadline time.Time
}

// send uses kept connections until one works, and then a new one. Another try
// follows only where nothing was sent.
func (c *Client) send(ctx context.Context, s *sending, result *Result) error {
	for cn := c.pool.take(s.key); cn != nil; cn = c.pool.take(s.key) {
		stop := cn.fit(ctx, s.deadline)
		if stop == nil {
			cn.close()
			continue
		}
		unsent, err := c.over(cn, s, stop, result)
		if !unsent || ctx.Err() != nil || isTimeout(err) {
			return err
		}
	}
	if s.key.https && s.key.id.h2.has(s.key.host) {
		err := c.overHTTP2(ctx, s, nil, result)
		if !errors.Is(err, errNotHTTP2) {
			return err
		}
		s.key.id.h2.remove(s.key.host)
	}
	cn, h2, err := c.dialer.dial(ctx, s.key, s.req.URL, s.deadline)
	if err != nil {
		return err
	}
	if h2 != nil {
		s.key.id.h2.add(s.key.host)
		return c.overHTTP2(ctx, s, h2, result)
	}
	stop, err := cn.begin(ctx, s.deadline)
	if err != nil {
		cn.close()
		return err
	}
	_, err = c.over(cn, s, stop, result)
	return err
}

// over sends the request over a connection, which then is kept or closed. unsent
// says that no byte of it was sent.
func (c *Client) over(cn *conn, s *sending, stop func() bool, result *Result) (unsent bool, err error) {
	result.RemoteAddr = cn.sock.remote.text
	keep, unsent, err := c.roundTrip(cn, s, result)
	if stop() && keep && err == nil {
		c.pool.put(cn)
	} else {
		cn.close()
	}
	return unsent, err
}

// readBody keeps the start of the body and drains a bounded part of the rest.
// What is left then costs the connection. length is -1 where nobody knows it.
func (c *Client) readBody(r io.Reader, length int64, result *Result) error {
	if length == 0 {
		return nil
	}
	if length > 0 && length <= c.cfg.MaxResponse {
		body := make([]byte, length)
		n, err := fill(r, body)
		result.Body = body[:n:n]
		return untilEnd(err)
	}
	buffer := c.buffers.Get().(*[]byte)
	defer c.buffers.Put(buffer)
	n, err := fill(r, *buffer)
	if n > 0 {
		result.Body = bytes.Clone((*buffer)[:n])
	}
	if err != nil {
		return untilEnd(err)
	}
	if length > int64(n)+c.cfg.MaxDrain {
		result.Truncated = true
		return nil
	}
	for left := c.cfg.MaxDrain; left > 0; {
		m, err := r.Read((*buffer)[:min(left, int64(len(*buffer)))])
		left -= int64(m)
		result.Truncated = result.Truncated || m > 0
		if err != nil {
			return untilEnd(err)
		}
	}
	return nil
}

// untilEnd takes the end of a body for what it is, no error.
func untilEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// fill reads until the buffer is full (nil), the body ends (io.EOF) or it breaks
// off. io.ReadFull would give the last two the same error.
func fill(r io.Reader, buffer []byte) (n int, err error) {
	for n < len(buffer) && err == nil {
		var m int
		m, err = r.Read(buffer[n:])
		n += m
	}
	return n, err
}
