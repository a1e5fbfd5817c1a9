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
	// writeTimeout is how long a connection may take no byte. Without it an endpoint
	// that sends frames but reads none would hold requests whose time is over.
	writeTimeout = 20 * time.Second
	// maxStale is how many connections may turn out closed for one exchange before
	// anything of it was sent, or came to be processed.
	maxStale = 8
	// maxRefused is how often a request is sent again whose stream was refused.
	maxRefused = 2
	// maxDials is how many connections are opened for one exchange: the transport
	// would go on as long as there is time with an endpoint that takes no requests.
	maxDials = 32
)

// errNotHTTP2 says that a host has stopped to speak HTTP/2. Nothing was sent.
var errNotHTTP2 = errors.New("endpoint does not speak HTTP/2 any more")

// errGoesAway says that no connection to the endpoint takes a request.
var errGoesAway = errors.New("endpoint answers each connection with GOAWAY")

// What net/http says when it does not send a request again, having no second body:
// of a stream that failed, with the cause, and of a connection that was gone.
const (
	noResend = "http2: Transport: cannot retry err "
	noRewind = "net/http: cannot rewind body after connection loss"
)

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
	for stale, refused := 0, 0; ; ready = nil {
		unsent, err := c.tryHTTP2(ctx, s, ready, result)
		switch {
		case err == nil:
			return nil
		case unsent || isGone(err.Error()):
			stale++
		case isRefused(err.Error()):
			refused++
		default:
			return err
		}
		if stale > maxStale || refused > maxRefused {
			return err
		}
	}
}

// isGone reports whether a connection ended, or was announced to, before the
// endpoint came to the request.
func isGone(text string) bool {
	return text == noRewind || strings.HasPrefix(text, noResend) && strings.Contains(text, "graceful shutdown GOAWAY")
}

// isRefused reports whether the endpoint said that it did not process the stream.
// A reset with PROTOCOL_ERROR, after which net/http would send the request again,
// too, does not say so.
func isRefused(text string) bool {
	return strings.HasPrefix(text, noResend) && strings.Contains(text, "; REFUSED_STREAM;")
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

// buildHTTP2 makes the request. It has no GetBody, and a body even where that is
// empty: the transport then sends nothing again of which it has sent something, so
// that overHTTP2 can decide about that.
func (c *Client) buildHTTP2(ctx context.Context, s *sending) *http.Request {
	out := http.Request{
		Method: s.method, URL: s.req.URL, Host: s.req.URL.Host, Header: headerOf(s.req),
		Body: &body{left: s.req.Body}, ContentLength: int64(len(s.req.Body)), Proto: "HTTP/2.0", ProtoMajor: 2,
	}
	if _, found := out.Header["User-Agent"]; !found {
		out.Header["User-Agent"] = []string{c.cfg.UserAgent}
	}
	hideIdempotencyKey(out.Header)
	return out.WithContext(ctx)
}

func headerOf(req *Request) http.Header {
	header := make(http.Header, len(req.Fields)+1)
	for _, f := range req.Fields {
		if !isFraming(f.Name) {
			header.Add(f.Name, f.Value)
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
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: writeTimeout},
	}
}

// body is a request body over bytes that nobody changes. The transport may still
// be reading one for a stream that was given up when the request is sent again:
// once closed, it gives nothing more. One of which nothing was read can be read
// all the same: the transport closes it for a connection that takes no request,
// and goes on with it over another.
type body struct {
	mu     sync.Mutex
	left   []byte
	begun  bool
	closed bool
}

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
	b.begun = true
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}

// Close ends reading.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = b.begun
	return nil
}
