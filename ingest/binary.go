package ingest

import (
	"bytes"
	"strings"

	"github.com/gofiber/fiber/v2"

	"github.com/postrider/postrider/internal/httpd"
	"github.com/postrider/postrider/schemas"
)

// binaryItem reads a CloudEvent in binary mode: attributes from the headers
// (copied), the payload is the body untouched.
func binaryItem(c *fiber.Ctx, body []byte) item {
	var it item
	headers := make([]schemas.Header, 0, 12)
	for name, value := range c.Request().Header.All() {
		if !isAttribute(name) {
			continue
		}
		attribute := strings.ToLower(string(name[len(attributePrefix):]))
		if it.problem = it.checkAttribute(attribute, headers); it.problem != nil {
			return it
		}
		headers = append(headers, schemas.Header{Key: "ce_" + attribute, Value: decodeHeader(value)})
	}
	if media := c.Request().Header.ContentType(); len(media) > 0 {
		headers = append(headers, schemas.Header{Key: "content-type", Value: media})
	}
	event, err := schemas.DecodeEvent(body, headers)
	if err != nil {
		it.problem = it.invalid(err)
		return it
	}
	it.event = event
	return it
}

func (it *item) checkAttribute(name string, before []schemas.Header) *httpd.Problem {
	switch name {
	case "data", "datacontenttype":
		return it.invalid(&schemas.FieldError{
			Pointer: name, Detail: "has no header of its own in binary mode: it is the body or its Content-Type",
		})
	}
	if len(before) == maxMembers {
		return it.invalid(tooManyMembers())
	}
	for i := range before {
		if before[i].Key[len("ce_"):] == name {
			return it.invalid(&schemas.FieldError{Pointer: name, Detail: "is given twice"})
		}
	}
	return nil
}

// decodeHeader returns the value of an attribute's header as a copy
// (CloudEvents HTTP binding, section 3.1.3.2): a quoted string is unquoted, then
// one round of percent-decoding is done. What is not valid percent-encoding
// stays as it is: not every sender encodes.
func decodeHeader(value []byte) []byte {
	value = bytes.TrimSpace(value)
	if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
		value = unquote(value[1 : n-1])
	}
	out := make([]byte, 0, len(value))
	for i := 0; i < len(value); i++ {
		if value[i] == '%' && i+2 < len(value) {
			hi, lo := unhex(value[i+1]), unhex(value[i+2])
			if hi < 16 && lo < 16 {
				out = append(out, hi<<4|lo)
				i += 2
				continue
			}
		}
		out = append(out, value[i])
	}
	return out
}

// unquote resolves the backslashes of a quoted string (RFC 9110, section 5.6.4).
func unquote(inner []byte) []byte {
	out := make([]byte, 0, len(inner))
	for i := 0; i < len(inner); i++ {
		if inner[i] == '\\' && i+1 < len(inner) {
			i++
		}
		out = append(out, inner[i])
	}
	return out
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}
