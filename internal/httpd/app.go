package httpd

import (
	"errors"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"github.com/postrider/postrider/schemas"
)

// HeaderRequestID is the response header that names the request in the logs.
const HeaderRequestID = "Postrider-Request-Id"

// requestIDKey is the key of the request id in the locals of a fiber.Ctx.
type requestIDKey struct{}

// Config bounds what a client may make the server hold. The zero value of a
// field means its default.
type Config struct {
	// BodyBudget bounds the memory of all bodies that are being read or handled,
	// in bytes; 0 means 128 MiB. What does not fit is answered 503. It must be at
	// least twice the largest body that a handler asks for.
	BodyBudget int
	// HeaderLimit bounds request line and headers together, in bytes; 0 means
	// 64 KiB, which holds the 32 KiB of CloudEvents attributes that an event may
	// have, percent-encoded. Larger ones are answered 431.
	HeaderLimit int
	// ReadTimeout bounds the time from a request's first byte to its last; 0
	// means 30 s.
	ReadTimeout time.Duration
	// WriteTimeout bounds each single write of an answer, so that a stream may
	// last but not stand still; 0 means 30 s.
	WriteTimeout time.Duration
	// IdleTimeout is how long a connection may wait for its next request; 0
	// means 60 s.
	IdleTimeout time.Duration
	// DrainTimeout is how long Serve waits at the end for requests under way; 0
	// means 20 s.
	DrainTimeout time.Duration
	// MaxConnections bounds the open connections; 0 means 16,384. Each holds a
	// buffer of HeaderLimit, and up to 8 KiB of a body that nobody has asked for
	// yet. One more is answered 503 and closed.
	MaxConnections int
	// Logger gets panics and answers 500; nil means silence.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	setDefault(&c.BodyBudget, 128<<20)
	setDefault(&c.HeaderLimit, 64<<10)
	setDefault(&c.ReadTimeout, 30*time.Second)
	setDefault(&c.WriteTimeout, 30*time.Second)
	setDefault(&c.IdleTimeout, 60*time.Second)
	setDefault(&c.DrainTimeout, 20*time.Second)
	setDefault(&c.MaxConnections, 1<<14)
	setDefault(&c.Logger, slog.New(slog.DiscardHandler))
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Server is a fiber app with its limits. It is served once.
type Server struct {
	app    *fiber.App
	cfg    Config
	bodies *budget
}

// New returns a server without routes. The roles register theirs on App.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg.withDefaults()}
	s.bodies = &budget{max: s.cfg.BodyBudget}
	s.app = fiber.New(fiber.Config{
		StreamRequestBody:            true, // by Body, when a handler asks for it
		ReadBufferSize:               s.cfg.HeaderLimit,
		ReadTimeout:                  s.cfg.ReadTimeout,
		IdleTimeout:                  s.cfg.IdleTimeout,
		Concurrency:                  s.cfg.MaxConnections,
		DisableStartupMessage:        true,
		DisablePreParseMultipartForm: true, // a body is an event's payload, whatever its type
		StrictRouting:                false,
		CaseSensitive:                true,
		ErrorHandler:                 s.answerError,
	})
	s.app.Server().CloseOnShutdown = true
	s.app.Server().Handler = s.bounded(s.knownMethods(s.app.Server().Handler))
	s.app.Use(s.guard)
	return s
}

// App returns the app for routes to be registered on, before Serve.
func (s *Server) App() *fiber.App { return s.app }

// RequestID returns the id of the request, also where the guard never ran.
func RequestID(c *fiber.Ctx) string {
	if id, ok := c.Locals(requestIDKey{}).(string); ok {
		return id
	}
	id := schemas.NewID(schemas.PrefixRequest)
	c.Locals(requestIDKey{}, id)
	c.Set(HeaderRequestID, id)
	return id
}

// guard runs before every route.
func (s *Server) guard(c *fiber.Ctx) (err error) {
	id := RequestID(c)
	c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	c.Set(fiber.HeaderContentSecurityPolicy, "default-src 'none'; frame-ancestors 'none'")
	c.Set(fiber.HeaderReferrerPolicy, "no-referrer")
	c.Set(fiber.HeaderCacheControl, "no-store")
	if err := checkFraming(c.Request().Header.RawHeaders()); err != nil {
		c.Context().SetConnectionClose() // where the next request begins is in doubt
		return err
	}
	defer func() {
		if v := recover(); v != nil {
			s.cfg.Logger.ErrorContext(c.UserContext(), "handler panicked",
				slog.Any("panic", v), slog.String("request_id", id), slog.String("stack", string(debug.Stack())))
			err = &Problem{Status: fiber.StatusInternalServerError, Code: CodeInternal}
		}
	}()
	return c.Next()
}

// answerError is the app's error handler: the one place where an error becomes
// an answer.
func (s *Server) answerError(c *fiber.Ctx, err error) error {
	if p, ok := errors.AsType[*Problem](err); ok {
		return WriteProblem(c, *p)
	}
	if fe, ok := errors.AsType[*fiber.Error](err); ok {
		if fe.Code == fiber.StatusRequestHeaderFieldsTooLarge {
			if nc, ok := c.Context().Conn().(*conn); ok {
				nc.unread.Store(true)
			}
		}
		return WriteProblem(c, transportProblem(fe.Code))
	}
	s.cfg.Logger.ErrorContext(c.UserContext(), "request failed",
		slog.Any("error", err), slog.String("request_id", RequestID(c)))
	return WriteProblem(c, Problem{Status: fiber.StatusInternalServerError, Code: CodeInternal})
}

// transportProblem words what fiber and fasthttp found. Their own texts repeat
// what the client sent, headers included, so they are not passed on.
func transportProblem(status int) Problem {
	p := Problem{Status: status, Code: CodeMalformedRequest}
	switch status {
	case fiber.StatusNotFound:
		p.Code, p.Detail = CodeNotFound, "there is no such resource"
	case fiber.StatusMethodNotAllowed:
		p.Code, p.Detail = CodeMethodNotAllowed, "the resource does not take this method, see the header Allow"
	case fiber.StatusRequestTimeout:
		p.Code, p.Detail = CodeTimeout, "the request did not arrive in time"
	case fiber.StatusRequestHeaderFieldsTooLarge:
		p.Code, p.Detail = CodeHeadersTooLarge, "the headers are larger than this server takes"
	case fiber.StatusBadGateway: // fasthttp's word for a connection that broke while reading
		p.Status, p.Detail = fiber.StatusBadRequest, "the request ended too early"
	case fiber.StatusBadRequest:
		p.Detail = "the request is not valid HTTP/1.1"
	default:
		if status >= fiber.StatusInternalServerError {
			p.Code = CodeInternal
		}
	}
	return p
}

// knownMethods answers a method that fiber has no routes for: fiber itself
// would answer in plain text, without a request id.
func (s *Server) knownMethods(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		switch string(ctx.Method()) {
		case fiber.MethodGet, fiber.MethodHead, fiber.MethodPost, fiber.MethodPut, fiber.MethodDelete,
			fiber.MethodConnect, fiber.MethodOptions, fiber.MethodTrace, fiber.MethodPatch:
			next(ctx)
			return
		}
		c := s.app.AcquireCtx(ctx)
		defer s.app.ReleaseCtx(c)
		p := Problem{
			Status: fiber.StatusNotImplemented, Code: CodeMethodNotAllowed,
			Detail: "the method is not known here",
		}
		if err := WriteProblem(c, p); err != nil {
			ctx.SetStatusCode(fiber.StatusInternalServerError)
		}
	}
}
