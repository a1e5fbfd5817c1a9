package control

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"
	"github.com/gofiber/fiber/v2"

	"github.com/postrider/postrider/internal/auth"
	"github.com/postrider/postrider/internal/httpd"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// access says whose keys an operation is open to.
type access int

const (
	// anyAdmin: the tenant's own admin keys, and the platform's. It is what an
	// operation has that says nothing.
	anyAdmin access = iota
	// platformAdmin: the admin key and admin keys of registry.Platform.
	platformAdmin
	// anyone: no key is asked for.
	anyone
	// byTicket: anyone; the operation itself checks the token that it is called with.
	byTicket
)

// accessKey is the key of an operation's access in its metadata.
const accessKey = "access"

// call is who makes a request.
type call struct {
	who       auth.Identity
	requestID string
}

// actor names the caller in the audit: the id of the key, or "admin".
func (c call) actor() string {
	if c.who.KeyID != "" {
		return c.who.KeyID
	}
	return "admin"
}

func (c call) platform() bool {
	return c.who.Platform() && c.who.MayManage(registry.Platform)
}

type callKey struct{}

func callOf(ctx context.Context) call {
	c, _ := ctx.Value(callKey{}).(call)
	return c
}

// admit is the middleware of all operations: the key, then what the key may do,
// then the body, which is not read for anybody else.
func (s *Server) admit(ctx huma.Context, next func(huma.Context)) {
	ctx = copied{ctx}
	c := humafiber.Unwrap(ctx)
	var who auth.Identity
	var f *failure
	if access := ctx.Operation().Metadata[accessKey]; access != anyone && access != byTicket {
		if who, f = s.identify(ctx); f == nil {
			f = permit(who, ctx)
		}
	}
	switch {
	case f != nil:
	case ctx.Method() != http.MethodPut && !possibleTenant(ctx):
		f = notFound("tenant")
	case ctx.Header("Content-Encoding") != "":
		f = refuse(http.StatusUnsupportedMediaType, codeEncoding, "send the body without Content-Encoding")
	case ctx.Operation().RequestBody != nil:
		f = readBody(c)
	}
	if f != nil {
		s.logFailure(ctx.Context(), ctx.Operation().OperationID, f)
		if err := httpd.WriteProblem(c, f.problem()); err != nil {
			s.log.ErrorContext(ctx.Context(), "could not write a problem", slog.Any("error", err))
		}
	} else {
		next(huma.WithValue(ctx, callKey{}, call{who: who, requestID: httpd.RequestID(c)}))
	}
	s.metrics.request(ctx.Context(), ctx.Operation().OperationID, c.Response().StatusCode())
}

// readBody has the body read, for those who may send one.
func readBody(c *fiber.Ctx) *failure {
	_, err := httpd.Body(c, MaxBody)
	if p, ok := errors.AsType[*httpd.Problem](err); ok {
		return &failure{status: p.Status, code: p.Code, detail: p.Detail, retryAfter: p.RetryAfter}
	}
	if err != nil {
		return failureOf(err)
	}
	return nil
}

// bodyOf returns the body that readBody read, if it did.
func bodyOf(c *fiber.Ctx) []byte {
	if c.Request().IsBodyStream() {
		return nil
	}
	return c.BodyRaw()
}

func (s *Server) identify(ctx huma.Context) (auth.Identity, *failure) {
	token, ok := auth.Bearer(ctx.Header("Authorization"))
	if !ok {
		return auth.Identity{}, refuse(http.StatusUnauthorized, codeMissingKey, "send the header Authorization: Bearer <token>")
	}
	who, err := s.deps.Auth.Lookup(ctx.Context(), token)
	switch {
	case errors.Is(err, auth.ErrUnknown):
		return who, refuse(http.StatusUnauthorized, codeInvalidKey, "the token is not known")
	case err != nil:
		return who, unavailable(err)
	}
	return who, nil
}

// permit decides whether the caller may use the operation on the tenant in its
// path. What is another tenant's does not exist for a tenant's key.
func permit(who auth.Identity, ctx huma.Context) *failure {
	if (call{who: who}).platform() {
		return nil
	}
	tenant, onTenant := ctx.Param("tenant"), strings.Contains(ctx.Operation().Path, "{tenant}")
	if onTenant && tenant != who.Tenant {
		return notFound("tenant")
	}
	if who.Role != registry.RoleAdmin {
		return refuse(http.StatusForbidden, codeForbidden, "a key with the role %s may not manage anything", who.Role)
	}
	if ctx.Operation().Metadata[accessKey] != anyAdmin {
		return refuse(http.StatusForbidden, codeForbidden, "only the platform's administrators may do this")
	}
	return nil
}

// possibleTenant reports whether the tenant in the path, if any, has the form of
// one. (A PUT says what is wrong with it.)
func possibleTenant(ctx huma.Context) bool {
	id := ctx.Param("tenant")
	return !strings.Contains(ctx.Operation().Path, "{tenant}") || id == registry.Platform || schemas.CheckTenant(id) == nil
}

// logFailure logs what went wrong here; what the client did wrong is its own. A 503
// is no error of the process: a part that it needs is away or begins again, and the
// client is told to repeat.
func (s *Server) logFailure(ctx context.Context, operation string, f *failure) {
	if f.status < http.StatusInternalServerError || f.cause == nil {
		return
	}
	about := []any{slog.String("operation", operation), slog.String("code", f.code), slog.Any("error", f.cause), slog.String("request_id", callOf(ctx).requestID)}
	if f.status == http.StatusServiceUnavailable {
		s.log.WarnContext(ctx, "request refused for now", about...)
		return
	}
	s.log.ErrorContext(ctx, "request failed", about...)
}
