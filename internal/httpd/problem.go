package httpd

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"
)

// ContentTypeProblem is the media type of a Problem (RFC 9457, section 6.1).
const ContentTypeProblem = "application/problem+json"

// typePrefix stands before the code in the type of a Problem.
const typePrefix = "urn:postrider:problem:"

// Codes of problems that belong to no role: ingest and control answer the same
// fault by the same code.
const (
	CodeMalformedRequest     = "malformed_request"
	CodeMissingKey           = "missing_key" // no key at all
	CodeInvalidKey           = "invalid_key" // a key that is not known
	CodeNotFound             = "not_found"
	CodeMethodNotAllowed     = "method_not_allowed"
	CodeTimeout              = "request_timeout"
	CodeTooLarge             = "body_too_large"
	CodeUnsupportedMediaType = "unsupported_media_type"
	CodeUnsupportedEncoding  = "unsupported_content_encoding"
	CodeHeadersTooLarge      = "headers_too_large"
	CodeFraming              = "ambiguous_framing"
	CodeOverloaded           = "overloaded" // too much waits here
	CodeInternal             = "internal"
)

// Problem is an error answer in the form of RFC 9457. As an error it can be
// returned by a handler: the app answers it.
type Problem struct { //nolint:errname // the word of RFC 9457
	// Type is "urn:postrider:problem:" and the code; WriteProblem fills it in.
	Type string `json:"type"`
	// Title is the same for every problem of a status; WriteProblem fills it in.
	Title string `json:"title"`
	// Status is the HTTP status; 0 is answered as 500.
	Status int `json:"status"`
	// Detail says to a person what is wrong with this request.
	Detail string `json:"detail,omitempty"`
	// Code names the kind of problem to a program; it does not change between
	// versions. Lower case, words joined by "_".
	Code string `json:"code"`
	// Errors point at what is wrong in the body, if that can be said.
	Errors []FieldError `json:"errors,omitempty"`
	// RequestID names the request in the logs; WriteProblem fills it in.
	RequestID string `json:"request_id,omitempty"`
	// EventID and CloudEventsID name the event that was not, or perhaps not,
	// accepted, so that it can be sent again under the same id.
	EventID       string `json:"id,omitempty"`
	CloudEventsID string `json:"cloudevents_id,omitempty"`
	// RetryAfter, if positive, is sent as the header Retry-After, in whole
	// seconds rounded up.
	RetryAfter time.Duration `json:"-"`
}

// FieldError is one fault of a request.
type FieldError struct {
	// Pointer is a JSON pointer (RFC 6901) into the body; "" is all of it.
	Pointer string `json:"pointer"`
	// Detail says what is wrong there.
	Detail string `json:"detail"`
}

// Error implements error.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Code
	}
	return p.Code + ": " + p.Detail
}

// GetStatus returns the HTTP status. It makes Problem a huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType returns the media type of the answer; huma asks for it.
func (*Problem) ContentType(string) string { return ContentTypeProblem }

// Complete returns p with type, title, status and code filled in.
func (p Problem) Complete() Problem {
	if p.Status == 0 {
		p.Status = fiber.StatusInternalServerError
	}
	if p.Code == "" {
		p.Code = CodeInternal
	}
	if p.Type == "" {
		p.Type = typePrefix + p.Code
	}
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	return p
}

// WriteProblem answers the request with p, with the headers that belong to it:
// Retry-After, and WWW-Authenticate for 401.
func WriteProblem(c *fiber.Ctx, p Problem) error {
	p = p.Complete()
	p.RequestID = RequestID(c)
	body, err := EncodeJSON(&p)
	if err != nil {
		return err
	}
	return SendProblem(c, &p, body)
}

// EncodeJSON returns v as the body of an answer: one line of JSON with its line
// feed. What is for people to read stays readable: <, > and & are not escaped.
func EncodeJSON(v any) ([]byte, error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return body.Bytes(), nil
}

// SendProblem answers with a body that the caller made: p, completed, and more
// members. It sets the status and headers that WriteProblem sets.
func SendProblem(c *fiber.Ctx, p *Problem, body []byte) error {
	if p.RetryAfter > 0 {
		c.Set(fiber.HeaderRetryAfter, strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds()))))
	}
	if p.Status == fiber.StatusUnauthorized {
		c.Set(fiber.HeaderWWWAuthenticate, "Bearer")
	}
	c.Status(p.Status)
	c.Set(fiber.HeaderContentType, ContentTypeProblem)
	return c.Send(body)
}
