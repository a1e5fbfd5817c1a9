package deliver

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
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
	header := http.Header{
		"Content-Type": {contentType},
		HeaderHops:     {strconv.Itoa(d.Event.Hops + 1)},
		headerAttempt:  {strconv.Itoa(d.Attempt)},
	}
	if t.endpoint.TraceContext && traceparent != "" {
		header[headerTrace] = []string{traceparent}
	}
	t.decorate(header, d)
	t.signer.sign(header, d, body, now)
	return &egress.Request{Method: cmp.Or(t.method, http.MethodPost), URL: t.url, Header: header, Body: body, Timeout: t.timeout, TLS: t.tls}
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
