package ingest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/gofiber/fiber/v2"

	"github.com/postrider/postrider/internal/httpd"
	"github.com/postrider/postrider/schemas"
)

// Codes of the problems that ingest answers. They are metric labels, too.
const (
	CodeMissingKey          = httpd.CodeMissingKey           // 401
	CodeInvalidKey          = httpd.CodeInvalidKey           // 401
	CodeForbidden           = "forbidden"                    // 403: the key's role
	CodeTenantMismatch      = "tenant_mismatch"              // 403: the event names another tenant
	CodeTenantDeleted       = "tenant_deleted"               // 403
	CodeUnknownTenant       = "unknown_tenant"               // 422
	CodeInvalidEvent        = "invalid_event"                // 422
	CodeMalformedJSON       = "malformed_json"               // 400
	CodeMalformedEncoding   = "malformed_encoding"           // 400: not the gzip or zstd it claims to be
	CodeMalformedHops       = "malformed_hops"               // 400
	CodeEmptyBody           = "empty_body"                   // 400
	CodeUnsupportedType     = httpd.CodeUnsupportedMediaType // 415
	CodeUnsupportedEncoding = httpd.CodeUnsupportedEncoding  // 415
	CodeEventTooLarge       = "event_too_large"              // 413
	CodeBatchTooLarge       = "batch_too_large"              // 413: too many events
	CodeLoop                = "loop_detected"                // 508
	CodeQuota               = "quota_exceeded"               // 429
	CodeOverloaded          = httpd.CodeOverloaded           // 503: too much waits here
	CodeKafkaUnavailable    = "kafka_unavailable"            // 503: not written
	CodeOutcomeUnknown      = "outcome_unknown"              // 503: perhaps written
	CodeRegistryUnavailable = "registry_unavailable"         // 503
)

// codeAccepted is the metric label of an accepted event.
const codeAccepted = "accepted"

func problem(status int, code, format string, args ...any) *httpd.Problem {
	return &httpd.Problem{Status: status, Code: code, Detail: fmt.Sprintf(format, args...)}
}

// at returns a problem that points into the body.
func at(status int, code, pointer, detail string) *httpd.Problem {
	return &httpd.Problem{
		Status: status, Code: code, Detail: detail,
		Errors: []httpd.FieldError{{Pointer: pointer, Detail: detail}},
	}
}

func (s *Server) unavailable(code, detail string) *httpd.Problem {
	return &httpd.Problem{
		Status: fiber.StatusServiceUnavailable, Code: code, Detail: detail, RetryAfter: s.cfg.RetryAfter,
	}
}

// invalid words a fault that schemas found in an event.
func (it *item) invalid(err error) *httpd.Problem {
	var fault *schemas.FieldError
	if !errors.As(err, &fault) {
		return at(fiber.StatusUnprocessableEntity, CodeInvalidEvent, it.pointer, err.Error())
	}
	p := at(fiber.StatusUnprocessableEntity, CodeInvalidEvent, it.pointerTo(fault.Pointer), fault.Detail)
	p.Detail = fault.Error()
	if fault.Pointer == "" {
		p.Detail = fault.Detail
	}
	return p
}

// pointerTo returns the JSON pointer of an attribute in the request's body.
func (it *item) pointerTo(name string) string {
	switch {
	case name == "" || name == "attributes":
		return it.pointer
	case name == "extensions" && !it.plain:
		return it.pointer // there they stand beside the other attributes
	case it.plain && name != "extensions" && !isPlainMember(name):
		return it.pointer + "/extensions/" + escapePointer(name)
	}
	return it.pointer + "/" + escapePointer(name)
}

// escapePointer keeps RFC 6901, section 3.
func escapePointer(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
