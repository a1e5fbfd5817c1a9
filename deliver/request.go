package deliver

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/jsonscan"
	"github.com/postrider/postrider/schemas"
)

// Headers of a delivery beside those of Standard Webhooks. HeaderHops lets
// loops of gateways end.
const (
	HeaderHops    = "Postrider-Hops"
	headerAttempt = "Postrider-Attempt"
	headerTrace   = "Traceparent"
)

// newRequest returns the signed request of one attempt. The signed bytes are the
// bytes that are sent.
func newRequest(t *target, d *schemas.Delivery, traceparent string, now time.Time) *egress.Request {
	body, contentType := t.content.body(d)
	r := &request{Method: t.httpMethod(), URL: t.url, Body: body, Timeout: t.timeout, TLS: t.tls}
	r.Fields = make([]egress.Field, 0, usualFields+len(t.fields))
	if contentType != "" {
		r.add("Content-Type", contentType)
	}
	r.add(HeaderHops, strconv.Itoa(d.Event.Hops+1))
	r.add(headerAttempt, strconv.Itoa(d.Attempt))
	if t.endpoint.TraceContext && traceparent != "" {
		r.add(headerTrace, traceparent)
	}
	t.decorate(r, d)
	t.signer.sign(r, d, now)
	return (*egress.Request)(r)
}

// usualFields is how many headers a request has that is signed after Standard
// Webhooks, with all that the gateway adds and a token.
const usualFields = 9

// request is a request whose headers are being made.
type request egress.Request

// Set gives the only value to a header.
func (r *request) Set(name, value string) {
	if f := r.field(name); f != nil {
		f.Value = value
		return
	}
	r.add(name, value)
}

// Get returns the value of a header, "" if it is not there.
func (r *request) Get(name string) string {
	if f := r.field(name); f != nil {
		return f.Value
	}
	return ""
}

// add adds a header that is not there yet.
func (r *request) add(name, value string) {
	r.Fields = append(r.Fields, egress.Field{Name: name, Value: value})
}

func (r *request) field(name string) *egress.Field {
	for i := range r.Fields {
		if f := &r.Fields[i]; len(f.Name) == len(name) && strings.EqualFold(f.Name, name) {
			return f
		}
	}
	return nil
}

// newBody returns the body of the default format: {"type", "timestamp",
// "data"} for JSON data, the untouched bytes for anything else. It is the same
// for every attempt.
func newBody(e *schemas.Event) (body []byte, contentType string) {
	data := e.Data
	if len(data) == 0 {
		data = []byte("null")
	}
	if !e.IsJSON() || !jsonscan.Valid(data) {
		contentType = e.DataContentType
		if contentType == "" {
			contentType = "application/octet-stream"
		}
		return e.Data, contentType
	}
	body = make([]byte, 0, len(data)+len(e.Type)+len(e.Time)+48)
	body = append(body, `{"type":`...)
	body = appendString(body, e.Type)
	body = append(body, `,"timestamp":`...)
	body = appendString(body, e.Time)
	body = append(body, `,"data":`...)
	body = append(body, data...)
	return append(body, '}'), "application/json"
}

// appendString appends s as a JSON string.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			quoted, _ := json.Marshal(s) // a string always marshals
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}
