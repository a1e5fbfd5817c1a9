package httpd

import (
	"bytes"

	"github.com/gofiber/fiber/v2"
)

// checkFraming refuses headers that two servers may read in two ways (RFC 9112,
// section 6.3 and 5.1): Transfer-Encoding beside Content-Length, and a blank
// before the colon. fasthttp would take the first and drop the other.
func checkFraming(raw []byte) error {
	length, transfer := false, false
	for len(raw) > 0 {
		line, rest, _ := bytes.Cut(raw, []byte{'\n'})
		raw = rest
		name, _, ok := bytes.Cut(line, []byte{':'})
		if !ok || len(name) == 0 {
			continue
		}
		if c := name[len(name)-1]; c == ' ' || c == '\t' {
			return &Problem{
				Status: fiber.StatusBadRequest, Code: CodeFraming,
				Detail: "a header name is followed by a blank",
			}
		}
		switch len(name) {
		case len(fiber.HeaderContentLength):
			length = length || bytes.EqualFold(name, []byte(fiber.HeaderContentLength))
		case len(fiber.HeaderTransferEncoding):
			transfer = transfer || bytes.EqualFold(name, []byte(fiber.HeaderTransferEncoding))
		}
	}
	if length && transfer {
		return &Problem{
			Status: fiber.StatusBadRequest, Code: CodeFraming,
			Detail: "Transfer-Encoding and Content-Length exclude each other",
		}
	}
	return nil
}
