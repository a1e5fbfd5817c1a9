package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gofiber/fiber/v2"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"github.com/postrider/postrider/internal/auth"
)

// Path is where events are sent to.
const Path = "/v1/events"

const scope = "github.com/postrider/postrider/ingest"

// Server answers POST /v1/events.
type Server struct {
	cfg      Config
	deps     Deps
	tracer   trace.Tracer
	metrics  *instruments
	unpack   *decompressor
	budget   *budget
	quotas   *quotas
	complain rate.Sometimes
}

// New returns a server; it starts nothing.
func New(cfg Config, deps Deps) (*Server, error) {
	cfg, deps = cfg.withDefaults(), deps.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	if deps.Producer == nil || deps.Keys == nil {
		return nil, errors.New("ingest: producer and keys are required")
	}
	metrics, err := newInstruments(deps.Meters.Meter(scope))
	if err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	return &Server{
		cfg: cfg, deps: deps, metrics: metrics,
		tracer:   deps.Tracers.Tracer(scope),
		unpack:   newDecompressor(cfg.Decompressors, cfg.MaxBodyBytes),
		budget:   &budget{maxEvents: int64(cfg.MaxInFlightEvents), maxBytes: int64(cfg.MaxInFlightBytes)},
		quotas:   newQuotas(cfg),
		complain: rate.Sometimes{Interval: 10 * time.Second},
	}, nil
}

// Register adds the route to an app made by httpd.
func (s *Server) Register(router fiber.Router) {
	router.Post(Path, s.handle)
}

// intake is one request on its way through.
type intake struct {
	// started is when the request came, moved by the time that its body took.
	started time.Time
	who     auth.Identity
	hops    int
	parent  trace.SpanContext
	body    []byte
	items   []item
	// many says that the body can carry more than one event, so that the answer
	// is a list.
	many bool
}

// handle takes one request. Nothing of c's buffers outlives it: the body has
// memory of its own, every string is copied in decode.
func (s *Server) handle(c *fiber.Ctx) error {
	in := intake{started: s.cfg.Clock()}
	if err := s.receive(c, &in); err != nil {
		s.metrics.refused(c.UserContext(), err, s.cfg.Clock().Sub(in.started))
		return err
	}
	ctx, span := s.startSpan(c.UserContext(), &in)
	s.admit(ctx, &in)
	s.publish(ctx, &in)
	s.endSpan(span, &in)
	s.metrics.answered(ctx, &in, s.cfg.Clock().Sub(in.started))
	return answer(c, &in)
}

// receive reads the request as far as it can be refused whole.
func (s *Server) receive(c *fiber.Ctx, in *intake) (err error) {
	if in.who, err = s.identify(c); err != nil {
		return err
	}
	if in.hops, err = readHops(c.Get(HeaderHops)); err != nil {
		return err
	}
	in.parent = requestTrace(c)
	form, err := formOf(c)
	if err != nil {
		return err
	}
	if in.body, err = s.readBody(c, in); err != nil {
		return err
	}
	in.many = form == formBatch || form == formLines
	in.items, err = s.decode(c, form, in.body)
	return err
}

func (s *Server) identify(c *fiber.Ctx) (auth.Identity, error) {
	token, ok := auth.Bearer(c.Get(fiber.HeaderAuthorization))
	if !ok {
		return auth.Identity{}, problem(fiber.StatusUnauthorized, CodeMissingKey,
			"send an API key as Authorization: Bearer <key>")
	}
	who, err := s.deps.Keys.Lookup(c.UserContext(), token)
	switch {
	case errors.Is(err, auth.ErrUnknown):
		return auth.Identity{}, problem(fiber.StatusUnauthorized, CodeInvalidKey, "the API key is not valid")
	case err != nil:
		return auth.Identity{}, s.unavailable(CodeRegistryUnavailable, "the API key can't be checked now")
	case !who.MaySend():
		return auth.Identity{}, problem(fiber.StatusForbidden, CodeForbidden, "the API key may not send events")
	}
	return who, nil
}

// publish produces what was admitted and waits for Kafka.
func (s *Server) publish(ctx context.Context, in *intake) {
	sent, headers := s.records(ctx, in)
	if len(sent) == 0 {
		return
	}
	size := len(in.body) + headers
	if !s.budget.take(len(sent), size) {
		for _, i := range sent {
			in.items[i].problem = s.unavailable(CodeOverloaded, "too many events wait for Kafka")
		}
		return
	}
	// The events are on their way whatever becomes of the request.
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.AckTimeout)
	defer cancel()
	p := newPublication(in.items, sent, func() { s.budget.give(len(sent), size) })
	p.send(wait, s.deps.Producer)
	for n, ack := range p.wait(wait) {
		s.settle(ctx, &in.items[sent[n]], ack)
	}
}
