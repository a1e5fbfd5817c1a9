package egress

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

// maxRetryAfter bounds the Retry-After value that is handed on; an HTTP date has 29 bytes.
const maxRetryAfter = 64

// Request is one request to send.
type Request struct {
	// Method is the HTTP method; empty means POST.
	Method string
	// URL is where to send it, best a kept result of CheckURL. It is only read.
	// User info and fragment are not sent.
	URL *url.URL
	// Header belongs to Do from the call on, which may add to it: a new map for
	// every request. Nil is allowed.
	Header http.Header
	// Body is sent as it is. It must never change after the call: after a timeout
	// the transport may still be reading it.
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

// phase is how far opening a connection for an exchange has come.
type phase int32

const (
	phaseNone phase = iota
	phaseResolve
	phaseConnect
	phaseHandshake
)

// exchange is the state of one Do. A dial that it started may outlive it and
// still writes its phase, so it is never used again.
type exchange struct {
	phase  atomic.Int32
	got    atomic.Bool
	remote atomic.Pointer[remoteAddr]
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

func (x *exchange) gotConn(info httptrace.GotConnInfo) {
	if remote, ok := info.Conn.RemoteAddr().(*remoteAddr); ok {
		x.remote.Store(remote)
	}
	x.got.Store(true)
}

func (x *exchange) remoteText() string {
	if remote := x.remote.Load(); remote != nil {
		return remote.text
	}
	return ""
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
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	x := &exchange{}
	bounded = context.WithValue(bounded, exchangeKey{}, x)
	bounded = httptrace.WithClientTrace(bounded, &httptrace.ClientTrace{GotConn: x.gotConn})

	var result Result
	if err := c.exchange(bounded, req, &result); err != nil {
		result.Err = classify(ctx, x, err)
	}
	result.RemoteAddr = x.remoteText()
	result.Duration = time.Since(start)
	return result
}

func (c *Client) exchange(ctx context.Context, req *Request, result *Result) error {
	out, err := c.build(ctx, req)
	if err != nil {
		return err
	}
	resp, err := c.ids.of(req.TLS).transport.RoundTrip(out)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // nothing depends on how it closes
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return errSwitched // the body would be the bare connection
	}
	result.Status = resp.StatusCode
	if after := resp.Header.Get("Retry-After"); len(after) <= maxRetryAfter {
		result.RetryAfter = after
	}
	return c.read(resp, result)
}

// build makes the request. GetBody lets the transport send it again where that
// is safe; see the package doc.
func (c *Client) build(ctx context.Context, req *Request) (*http.Request, error) {
	u := req.URL
	if u == nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errRequest
	}
	out := http.Request{
		Method: req.Method, URL: u, Host: u.Host, Header: req.Header, Body: http.NoBody,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if out.Method == "" {
		out.Method = http.MethodPost
	}
	if out.Header == nil {
		out.Header = make(http.Header, 1)
	}
	if _, found := out.Header["User-Agent"]; !found {
		out.Header["User-Agent"] = []string{c.cfg.UserAgent}
	}
	hideIdempotencyKey(out.Header)
	if len(req.Body) > 0 {
		body := req.Body
		out.ContentLength = int64(len(body))
		out.GetBody = func() (io.ReadCloser, error) { return newBody(body), nil }
		out.Body = newBody(body)
	}
	return out.WithContext(ctx), nil
}

// hideIdempotencyKey keeps the transport from seeing a key that an endpoint's
// own headers may hold: net/http takes it as leave to send a POST twice. Header
// names are case-insensitive, so the receiver sees the same.
func hideIdempotencyKey(h http.Header) {
	for _, name := range [...]struct{ seen, hidden string }{
		{"Idempotency-Key", "idempotency-key"},
		{"X-Idempotency-Key", "x-idempotency-key"},
	} {
		if value, found := h[name.seen]; found {
			delete(h, name.seen)
			h[name.hidden] = value
		}
	}
}

// read keeps the start of the body and drains a bounded part of the rest. What
// is left then costs the connection, when the body is closed.
func (c *Client) read(resp *http.Response, result *Result) error {
	if resp.ContentLength == 0 || resp.Body == http.NoBody {
		return nil
	}
	buffer := c.buffers.Get().(*[]byte)
	defer c.buffers.Put(buffer)
	n, err := fill(resp.Body, *buffer)
	result.Body = bytes.Clone((*buffer)[:n])
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	if resp.ContentLength > int64(n)+c.cfg.MaxDrain {
		result.Truncated = true
		return nil
	}
	for left := c.cfg.MaxDrain; left > 0; {
		m, err := resp.Body.Read((*buffer)[:min(left, int64(len(*buffer)))])
		left -= int64(m)
		result.Truncated = result.Truncated || m > 0
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
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

// body is a request body over bytes that nobody changes.
type body struct{ bytes.Reader }

func newBody(b []byte) *body {
	r := &body{}
	r.Reset(b)
	return r
}

// Close does nothing: there is nothing to free.
func (*body) Close() error { return nil }
