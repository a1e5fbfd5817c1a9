package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/postrider/postrider/internal/egress/http1"
)

const (
	pingAfter   = 15 * time.Second
	pingTimeout = 5 * time.Second
	// maxStale is how many kept connections may turn out closed for one exchange.
	maxStale = 8
)

// errNotHTTP2 says that a host has stopped to speak HTTP/2. Nothing was sent.
var errNotHTTP2 = errors.New("endpoint does not speak HTTP/2 any more")

// h2Hosts remembers who chose HTTP/2, so that the next request need not dial to
// find out.
type h2Hosts struct {
	mu    sync.Mutex
	known *lru[string, struct{}]
}

func newH2Hosts(size int) *h2Hosts { return &h2Hosts{known: newLRU[string, struct{}](size)} }

func (h *h2Hosts) has(host string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, found := h.known.get(host)
	return found
}

func (h *h2Hosts) add(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known.put(host, struct{}{})
}

func (h *h2Hosts) remove(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known.remove(host)
}

// overHTTP2 sends the request through the transport of its identity, over the
// given connection if the transport has no other. A request is sent again only
// where the endpoint is known not to have processed it: it refused the stream,
// said with GOAWAY that it had not come to it, or no byte of it was written to a
// kept connection, which then is gone.
func (c *Client) overHTTP2(ctx context.Context, s *sending, ready *tls.Conn, result *Result) error {
	for tries := 0; ; tries++ {
		unsent, err := c.tryHTTP2(ctx, s, ready, result)
		if !unsent || tries == maxStale {
			return err
		}
		ready = nil
	}
}

func (c *Client) tryHTTP2(ctx context.Context, s *sending, ready *tls.Conn, result *Result) (unsent bool, err error) {
	x := &exchange{}
	x.ready.Store(ready)
	x.opened.Store(ready)
	defer func() {
		if unused := x.take(); unused != nil {
			_ = unused.Close()
		}
		x.leave()
		if x.sock != nil {
			result.RemoteAddr = x.sock.remote.text
		}
	}()
	ctx, cancel := context.WithDeadline(ctx, s.deadline)
	defer cancel()
	err = c.exchangeHTTP2(x.trace(ctx), s, result)
	if err == nil {
		return false, nil
	}
	if ctx.Err() == nil && x.unsent(err) {
		return true, err
	}
	if strings.Contains(err.Error(), "client conn could not be established") {
		err = x.lost(err)
	}
	if x.sock == nil && isTimeout(err) {
		if _, staged := errors.AsType[*stageError](err); !staged {
			return false, &stageError{phase(x.phase.Load()), err}
		}
	}
	return false, err
}

func (c *Client) exchangeHTTP2(ctx context.Context, s *sending, result *Result) error {
	resp, err := s.key.id.transport.RoundTrip(c.buildHTTP2(ctx, s))
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // nothing depends on how it closes
	result.Status = resp.StatusCode
	if after := resp.Header.Get("Retry-After"); len(after) <= http1.MaxRetryAfter {
		result.RetryAfter = after
	}
	length := resp.ContentLength
	if s.method == http.MethodHead {
		length = 0
	}
	return c.readBody(resp.Body, length, result)
}

// buildHTTP2 makes the request. GetBody lets the transport send it again.
func (c *Client) buildHTTP2(ctx context.Context, s *sending) *http.Request {
	out := http.Request{
		Method: s.method, URL: s.req.URL, Host: s.req.URL.Host, Header: headerOf(s.req), Body: http.NoBody,
		Proto: "HTTP/2.0", ProtoMajor: 2,
	}
	if _, found := out.Header["User-Agent"]; !found {
		out.Header["User-Agent"] = []string{c.cfg.UserAgent}
	}
	hideIdempotencyKey(out.Header)
	if body := s.req.Body; len(body) > 0 {
		out.ContentLength = int64(len(body))
		out.GetBody = func() (io.ReadCloser, error) { return newBody(body), nil }
		out.Body = newBody(body)
	}
	return out.WithContext(ctx)
}

func headerOf(req *Request) http.Header {
	header := make(http.Header, len(req.Fields)+len(req.Header)+1)
	for _, f := range req.Fields {
		if !isFraming(f.Name) {
			header.Add(f.Name, f.Value)
		}
	}
	for name, values := range req.Header {
		if isFraming(name) {
			continue
		}
		for _, value := range values {
			header.Add(name, value)
		}
	}
	return header
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

// newTransport speaks HTTP/2 for one identity. It has no limit on connections per
// host: it would let one tenant's hanging endpoint hold up another's.
func newTransport(cfg *Config, d *dialer, config *tls.Config, idle int) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(true) // or a custom dialler is not asked
	protocols.SetHTTP2(true)
	return &http.Transport{
		Proxy: nil,
		DialTLSContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return d.dialHTTP2(ctx, address, config)
		},
		DisableCompression:     true,
		MaxIdleConns:           idle,
		MaxIdleConnsPerHost:    cfg.MaxIdlePerHost,
		IdleConnTimeout:        cfg.IdleTimeout,
		MaxResponseHeaderBytes: http1.MaxHead,
		Protocols:              &protocols,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
}

// body is a request body over bytes that nobody changes. The transport may still
// be reading one for a stream that was given up when it begins to send the
// request again: once closed, it gives nothing more, so that the two never share it.
type body struct {
	mu     sync.Mutex
	left   []byte
	closed bool
}

func newBody(b []byte) *body { return &body{left: b} }

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return 0, net.ErrClosed
	case len(b.left) == 0:
		return 0, io.EOF
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}

// Close ends reading.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}
