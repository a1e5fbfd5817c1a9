package egress

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/postrider/postrider/internal/egress/http1"
)

// firstWrite is how much of head and body is written by the goroutine that then
// reads the answer: what an empty send buffer takes without waiting.
const firstWrite = 16 << 10

// maxKeptBuffer is the largest buffer that is used again.
const maxKeptBuffer = 64 << 10

// invalidError says what about a request can't be sent. It quotes no value.
type invalidError string

func (e invalidError) Error() string { return string(e) }

const errRequest = invalidError("request has no http or https URL with a host")

// outgoing is a request as bytes. It is used again for the next one.
type outgoing struct {
	head  []byte // the head and the start of the body
	rest  []byte // what is left of the body
	agent bool   // the request names a User-Agent
}

// Field is one header field of a request.
type Field struct {
	Name, Value string
}

// checkTarget refuses a URL that no request can be sent to.
func checkTarget(u *url.URL) error {
	if u == nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errRequest
	}
	for i := range len(u.Host) {
		if c := u.Host[i]; c <= ' ' || c >= 0x7f || c == '%' {
			return invalidError("the host of the URL is not plain ASCII, or an address with a zone")
		}
	}
	return nil
}

// encode writes the request in the form of HTTP/1.1 (RFC 9112). The fields that
// are about the connection or the length of the body are not the caller's: they
// are left out.
func (o *outgoing) encode(req *Request, method, agent string) error {
	u := req.URL
	o.agent = false
	b := append(o.head[:0], method...)
	b = append(b, ' ')
	target := len(b)
	if path := u.EscapedPath(); path == "" || path[0] != '/' {
		b = append(b, '/')
		b = append(b, path...)
	} else {
		b = append(b, path...)
	}
	if u.RawQuery != "" || u.ForceQuery {
		b = append(b, '?')
		b = append(b, u.RawQuery...)
	}
	for _, c := range b[target:] {
		if c <= ' ' || c == 0x7f {
			return invalidError("the URL has a blank or a control character")
		}
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, u.Host...)
	b = append(b, "\r\n"...)
	for _, f := range req.Fields {
		var err error
		if b, err = o.field(b, f.Name, f.Value); err != nil {
			return err
		}
	}
	if !o.agent {
		b = appendField(b, "User-Agent", agent)
	}
	if len(req.Body) > 0 || method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(req.Body)), 10)
		b = append(b, "\r\n"...)
	}
	b = append(b, "\r\n"...)
	n := min(len(req.Body), max(firstWrite-len(b), 0))
	o.head, o.rest = append(b, req.Body[:n]...), req.Body[n:]
	return nil
}

func (o *outgoing) field(b []byte, name, value string) ([]byte, error) {
	if err := checkField(name, value); err != nil {
		return b, err
	}
	if isFraming(name) {
		return b, nil
	}
	if isAgent(name) {
		o.agent = true
		if value == "" {
			return b, nil
		}
	}
	return appendField(b, name, value), nil
}

func checkField(name, value string) error {
	if !http1.IsToken(name) {
		return invalidError("invalid name of a header field")
	}
	if !http1.IsValue(value) {
		return invalidError("invalid value of the header field " + name)
	}
	return nil
}

func isAgent(name string) bool {
	return len(name) == len("User-Agent") && strings.EqualFold(name, "User-Agent")
}

// isFraming reports whether a field is about the connection or the framing of
// the message. One that a request brought along would make a second request out
// of its body.
func isFraming(name string) bool {
	switch len(name) {
	case len("TE"), len("Host"), len("Expect"), len("Trailer"), len("Connection"), len("Content-Length"),
		len("Proxy-Connection"), len("Transfer-Encoding"):
	default:
		return false
	}
	for _, framing := range [...]string{
		"TE", "Host", "Expect", "Trailer", "Upgrade", "Connection", "Keep-Alive", "Content-Length",
		"Proxy-Connection", "Transfer-Encoding",
	} {
		if len(name) == len(framing) && strings.EqualFold(name, framing) {
			return true
		}
	}
	return false
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}
