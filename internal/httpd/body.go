package httpd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

const (
	// firstChunked is the first buffer of a body that does not say its length.
	firstChunked = 4 << 10
	// growth is by how much a full buffer grows: a body takes no more than so
	// many times what has arrived of it, whatever it announced.
	growth = 4
	// fullRetry is what a client is told when there is no memory for its body.
	fullRetry = 2 * time.Second
)

// errUnasked is what a read of a body gets that no handler has asked for.
var errUnasked = errors.New("nobody asked for the body")

// Body returns the request's body as it was sent, in memory that is the
// caller's: nothing writes to it afterwards. It is read now, as it arrives, so
// that a handler can first look at the headers and refuse what it does not want;
// a second call returns the same. Errors are a *Problem: 413 above limit, in
// bytes (if the length was announced, before anything is read), 503 if the
// bodies of all requests together take too much, 408 and 400 for a body that
// does not arrive in time, ends too early or is not valid.
func Body(c *fiber.Ctx, limit int) ([]byte, error) {
	r, ok := c.Locals(requestKey{}).(*request)
	if !ok {
		return nil, errors.New("read a body: the request did not come through httpd")
	}
	if !r.taken {
		r.taken = true
		r.body, r.err = r.take(&c.Context().Request, limit)
	}
	return r.body, r.err
}

// Hold charges n further bytes of memory that the request takes, such as its
// body decompressed, until the handler has returned. The error is a *Problem, 503.
func Hold(c *fiber.Ctx, n int) error {
	r, ok := c.Locals(requestKey{}).(*request)
	if !ok {
		return errors.New("hold memory: the request did not come through httpd")
	}
	return r.hold(n)
}

type requestKey struct{}

// request is what a request holds until its handler has returned.
type request struct {
	bodies *budget
	conn   *conn // nil for one of another listener
	length int   // announced, in bytes; -1: chunked
	held   int   // charged to bodies
	whole  bool  // nothing of the body is left on the connection
	broken bool  // where it ends can't be known

	taken bool
	body  []byte
	err   error
}

// bounded runs next with no more of the body in memory than fasthttp's first
// 8 KiB, until the handler asks for it. What nobody asked for is not read:
// unless it has arrived already, the connection ends with the answer.
func (s *Server) bounded(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		r := &request{bodies: s.bodies, length: ctx.Request.Header.ContentLength()}
		r.whole = !ctx.Request.IsBodyStream() || r.length == 0
		r.conn, _ = ctx.Conn().(*conn)
		r.shut(true)
		ctx.SetUserValue(requestKey{}, r)
		defer r.end(ctx)
		next(ctx)
	}
}

func (r *request) end(ctx *fasthttp.RequestCtx) {
	if !r.whole && !r.broken && ctx.Request.IsBodyStream() {
		_, err := io.Copy(io.Discard, ctx.Request.BodyStream()) // what has arrived: the connection is shut
		r.whole = err == nil && !r.cut()
	}
	if !r.whole {
		ctx.SetConnectionClose()
		if r.conn != nil {
			r.conn.unread.Store(true)
		}
	}
	r.shut(false)
	r.body = nil
	ctx.Request.ResetBody()
	r.bodies.give(r.held)
}

// shut says whether reads from the connection are refused.
func (r *request) shut(shut bool) {
	if r.conn != nil {
		r.conn.shut = shut
	}
}

// cut reports whether the connection failed or was ended by the client, which
// fasthttp's stream may take for the end of a body.
func (r *request) cut() bool { return r.conn != nil && r.conn.failed != nil }

// take reads the body and leaves it as the request's, for BodyRaw.
func (r *request) take(req *fasthttp.Request, limit int) ([]byte, error) {
	switch {
	case r.whole:
		return []byte{}, nil
	case r.length > limit:
		return nil, tooLarge(limit)
	case !req.IsBodyStream():
		return nil, errors.New("read a body: it was read by other means")
	}
	r.shut(false)
	body, err := r.read(req.BodyStream(), limit)
	r.shut(true)
	if err != nil {
		return nil, err
	}
	r.whole = true
	req.SetBodyRaw(body)
	return body, nil
}

func (r *request) read(src io.Reader, limit int) (body []byte, err error) {
	for {
		if len(body) == cap(body) {
			if body, err = r.grow(body, limit); err != nil {
				return nil, err
			}
		}
		n, err := src.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case len(body) == r.length:
			return body, nil
		case len(body) > limit:
			return nil, tooLarge(limit)
		case errors.Is(err, io.EOF) && r.length < 0 && !r.cut():
			return body, nil
		case err != nil:
			r.broken = true
			return nil, r.arrival()
		}
	}
}

// grow returns body with room for more of it.
func (r *request) grow(body []byte, limit int) ([]byte, error) {
	size, most := max(growth*cap(body), firstChunked), limit+1
	if r.length >= 0 {
		size, most = max(growth*cap(body), smallBody), r.length
	}
	size = min(size, most)
	if err := r.hold(size); err != nil {
		return nil, err
	}
	bigger := make([]byte, len(body), size)
	copy(bigger, body)
	r.bodies.give(cap(body))
	r.held -= cap(body)
	return bigger, nil
}

func (r *request) hold(n int) error {
	if !r.bodies.take(n, r.held+n > smallBody) {
		return &Problem{
			Status: fiber.StatusServiceUnavailable, Code: CodeOverloaded, RetryAfter: fullRetry,
			Detail: "too many bodies are being read",
		}
	}
	r.held += n
	return nil
}

// arrival words why a body did not arrive. The connection knows best: fasthttp
// hides some of its errors.
func (r *request) arrival() error {
	p := Problem{
		Status: fiber.StatusBadRequest, Code: CodeMalformedRequest,
		Detail: "the body does not keep to its transfer encoding",
	}
	if r.cut() {
		p = transportProblem(fiber.StatusBadGateway)
		if ne, ok := errors.AsType[net.Error](r.conn.failed); ok && ne.Timeout() {
			p = transportProblem(fiber.StatusRequestTimeout)
		}
	}
	return &p
}

func tooLarge(limit int) error {
	return &Problem{
		Status: fiber.StatusRequestEntityTooLarge, Code: CodeTooLarge,
		Detail: fmt.Sprintf("the body has more than %d bytes", limit),
	}
}
