package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postrider/postrider/internal/httpd"
	"github.com/postrider/postrider/internal/registry"
)

// Codes of problems: a closed set that clients may branch on.
const (
	codeMalformedJSON       = "malformed_json"
	codeBodyRequired        = "body_required"
	codeTooLarge            = httpd.CodeTooLarge
	codeMediaType           = httpd.CodeUnsupportedMediaType
	codeEncoding            = httpd.CodeUnsupportedEncoding
	codeNotAcceptable       = "not_acceptable"
	codeValidation          = "validation_failed"
	codeInvalidCursor       = "invalid_cursor"
	codeInvalidURL          = "invalid_url"
	codeCredentials         = "url_credentials"
	codeBlockedAddress      = "blocked_address"
	codeInvalidFilter       = "invalid_filter"
	codeInvalidType         = "invalid_type_pattern"
	codeInvalidRetry        = "invalid_retry"
	codeInvalidSecret       = "invalid_secret"
	codeInvalidSigning      = "invalid_signing"
	codeMissingKey          = httpd.CodeMissingKey
	codeInvalidKey          = httpd.CodeInvalidKey
	codeForbidden           = "forbidden"
	codeNotFound            = httpd.CodeNotFound
	codeInvalidState        = "invalid_state"
	codeTenantDeleting      = "tenant_deleting"
	codeTooManySecrets      = "too_many_secrets"
	codeQuota               = "quota_exceeded"
	codePrecondition        = "precondition_failed"
	codeIdempotencyConflict = "idempotency_conflict"
	codeOutcomeUnknown      = "outcome_unknown"
	codeUnavailable         = "unavailable"
	codeBusy                = "busy"
	codeTooManyStreams      = "too_many_streams"
	codeInternal            = httpd.CodeInternal
)

// maxFaults bounds the faults that an answer lists: to find the place of one may
// mean to walk the whole body.
const maxFaults = 20

// fault is one thing that is wrong with a request's body: where (a JSON pointer),
// what, and which code says so if it is the only one.
type fault struct {
	pointer, detail, code string
}

// failure is a request that is refused, or that failed here. Its text goes to
// the client; cause, if any, only to the log.
type failure struct {
	status     int
	code       string
	detail     string
	faults     []fault
	retryAfter time.Duration
	cause      error
}

// Error implements error.
func (f *failure) Error() string { return f.code + ": " + f.detail }

// Unwrap returns what led to the failure.
func (f *failure) Unwrap() error { return f.cause }

// GetStatus implements huma.StatusError.
func (f *failure) GetStatus() int { return f.status }

// ContentType implements huma.ContentTypeFilter.
func (*failure) ContentType(string) string { return "application/problem+json" }

// GetHeaders implements huma.HeadersError.
func (f *failure) GetHeaders() http.Header {
	h := http.Header{}
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((f.retryAfter+time.Second-1)/time.Second)))
	}
	return h
}

func (f *failure) problem() httpd.Problem {
	p := httpd.Problem{Status: f.status, Detail: f.detail, Code: f.code, RetryAfter: f.retryAfter}
	for _, e := range f.faults {
		p.Errors = append(p.Errors, httpd.FieldError{Pointer: e.pointer, Detail: e.detail})
	}
	return p
}

func refuse(status int, code, format string, args ...any) *failure {
	return &failure{status: status, code: code, detail: fmt.Sprintf(format, args...)}
}

// invalid refuses a body for its faults, of which it lists maxFaults; with a single
// code among them, that is the problem's.
func invalid(faults ...fault) *failure {
	code := faults[0].code
	for _, f := range faults {
		if f.code != code {
			code = codeValidation
		}
	}
	if code == "" {
		code = codeValidation
	}
	return &failure{
		status: http.StatusUnprocessableEntity, code: code, faults: faults[:min(len(faults), maxFaults)],
		detail: "the request breaks a rule, see errors",
	}
}

func notFound(what string) *failure {
	return refuse(http.StatusNotFound, codeNotFound, "%s not found", what)
}

func unavailable(cause error) *failure {
	f := refuse(http.StatusServiceUnavailable, codeUnavailable, "the registry's view is not available or not complete")
	f.retryAfter, f.cause = 2*time.Second, cause
	return f
}

// failureOf turns any error of a handler into what the client may see.
func failureOf(err error) *failure {
	var f *failure
	switch {
	case errors.As(err, &f):
	case errors.Is(err, registry.ErrBusy):
		f = refuse(http.StatusServiceUnavailable, codeBusy, "another write to this tenant is under way")
		f.retryAfter = time.Second
	case errors.Is(err, registry.ErrOutcomeUnknown):
		f = refuse(http.StatusServiceUnavailable, codeOutcomeUnknown,
			"it is not known whether the change was written: repeat it, a POST with the same Idempotency-Key")
		f.retryAfter = time.Second
	case errors.Is(err, registry.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		f = unavailable(err)
	default:
		f = refuse(http.StatusInternalServerError, codeInternal, "something went wrong here, see the log for the request id")
	}
	if f.cause == nil {
		if full := error(f); full != err { //nolint:errorlint // identity, not kind
			f.cause = err
		}
	}
	return f
}

// problemOf turns what huma refused by itself into a problem: body is the
// request's. Where huma read the body and found faults, check, if any, adds those
// that only we can find.
func problemOf(e *huma.ErrorModel, body []byte, check bodyCheck) httpd.Problem {
	f := &failure{status: e.Status, code: codeInternal, detail: e.Detail}
	switch e.Status {
	case http.StatusBadRequest:
		f.code = codeMalformedJSON
		if len(body) == 0 {
			f.code = codeBodyRequired
		}
	case http.StatusRequestEntityTooLarge:
		f.code = codeTooLarge
	case http.StatusUnsupportedMediaType:
		f.code, f.detail = codeMediaType, "send the body as application/json"
	case http.StatusNotAcceptable:
		f.code, f.detail = codeNotAcceptable, "answers are application/json"
	case http.StatusUnprocessableEntity:
		f.code, f.detail = codeValidation, "the request breaks a rule, see errors"
	}
	if f.status < http.StatusInternalServerError {
		where := newLocator(body)
		for _, d := range e.Errors[:min(len(e.Errors), maxFaults)] {
			f.faults = append(f.faults, where.fault(d))
		}
		if check != nil && e.Status == http.StatusUnprocessableEntity {
			f.addFaults(check(body))
		}
		slices.SortStableFunc(f.faults, func(a, b fault) int { return strings.Compare(a.pointer, b.pointer) })
	}
	return f.problem()
}

// bodyCheck finds what is wrong with a body that huma has refused: some of it may
// be of the wrong types.
type bodyCheck func(body []byte) []fault

// addFaults adds further faults up to maxFaults, but for those of a place that has
// one already: what was found there may follow from that.
func (f *failure) addFaults(more []fault) {
	for _, m := range more {
		known := slices.ContainsFunc(f.faults, func(had fault) bool {
			return within(m.pointer, had.pointer) || within(had.pointer, m.pointer)
		})
		if !known && len(f.faults) < maxFaults {
			f.faults = append(f.faults, m)
		}
	}
}

// within reports whether a pointer leads to a place or into it.
func within(pointer, place string) bool {
	rest, ok := strings.CutPrefix(pointer, place)
	return ok && (rest == "" || rest[0] == '/')
}
