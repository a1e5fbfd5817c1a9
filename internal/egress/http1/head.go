package http1

import (
	"bytes"
	"strconv"
)

const (
	// MaxHead bounds the head of a response together with the interim responses
	// before it, in bytes.
	MaxHead = 64 << 10
	// MaxInterim is how many interim responses (1xx) may come before the final one.
	MaxInterim = 5
	// MaxRetryAfter bounds the value that Head keeps; an HTTP date has 29 bytes.
	MaxRetryAfter = 64
)

const switchingProtocols = 101

// Head is what is kept of a response's head.
type Head struct {
	// Status is the status code, 100 to 999. Of the interim ones only 101 is returned.
	Status int
	// KeepAlive reports whether the connection may be used again after the body.
	KeepAlive bool
	// Length is the length of the body in bytes, -1 if the head does not tell.
	Length int64
	// RetryAfter is the first value of that field, empty if absent or over 64 bytes.
	RetryAfter string
}

// fields are the values that decide how a response is read.
type fields struct {
	minor      byte
	close      bool
	keepAlive  bool
	codings    int // how many Transfer-Encoding fields there were
	chunked    bool
	lengths    int
	length     int64
	retryAfter string
	retries    int
}

// ReadHead reads the head of the final response, after at most five interim
// ones, and makes Read return its body. noBody says that the response has none
// whatever its head says: the request was HEAD, or CONNECT. The error is
// ErrTooLarge, a MalformedError, or what the connection said; io.EOF only if it
// ended before the first byte.
func (r *Reader) ReadHead(noBody bool) (Head, error) {
	r.budget = MaxHead
	for interim := 0; ; interim++ {
		head, err := r.readHead(noBody)
		if err != nil {
			if interim > 0 {
				err = cut(err)
			}
			return Head{}, err
		}
		if head.Status >= 200 || head.Status == switchingProtocols {
			return head, nil
		}
		if interim == MaxInterim {
			return Head{}, ErrTooLarge
		}
	}
}

func (r *Reader) readHead(noBody bool) (Head, error) {
	line, err := r.line()
	if err != nil {
		return Head{}, err
	}
	var f fields
	status, err := f.statusLine(line)
	if err != nil {
		return Head{}, err
	}
	if err := r.readFields(&f); err != nil {
		return Head{}, cut(err)
	}
	return r.frame(&f, status, noBody)
}

// statusLine reads "HTTP/1.1 200 OK"; the reason may be missing.
func (f *fields) statusLine(line []byte) (int, error) {
	const version = "HTTP/1."
	if len(line) < len(version)+2 || string(line[:len(version)]) != version || line[len(version)+1] != ' ' {
		return 0, MalformedError("not HTTP/1")
	}
	f.minor = line[len(version)] - '0'
	code, _, _ := bytes.Cut(bytes.TrimLeft(line[len(version)+2:], " "), []byte(" "))
	if f.minor > 9 || len(code) != 3 || code[0] < '1' {
		return 0, MalformedError("bad status line")
	}
	status := 0
	for _, c := range code {
		if c < '0' || c > '9' {
			return 0, MalformedError("bad status line")
		}
		status = status*10 + int(c-'0')
	}
	return status, nil
}

// readFields reads field lines up to the empty line. A field that is continued
// on a second line is accepted only where its value does not matter.
func (r *Reader) readFields(f *fields) error {
	matters := false // the value of the field before
	for first := true; ; first = false {
		line, err := r.line()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return nil
		}
		if line[0] == ' ' || line[0] == '\t' {
			if first || matters || !isFieldValue(line) {
				return MalformedError("bad continuation of a header field")
			}
			continue
		}
		if matters, err = f.field(line); err != nil {
			return err
		}
	}
}

// field reads one line and reports whether its value matters.
func (f *fields) field(line []byte) (matters bool, err error) {
	name, value, found := bytes.Cut(line, []byte(":"))
	if !found || !isFieldName(name) || !isFieldValue(value) {
		return false, MalformedError("bad header field")
	}
	value = bytes.Trim(value, " \t")
	switch len(name) {
	case len("Connection"):
		if is(name, "connection") {
			f.connection(value)
			return true, nil
		}
	case len("Retry-After"):
		if is(name, "retry-after") {
			f.retry(value)
			return true, nil
		}
	case len("Content-Length"):
		if is(name, "content-length") {
			return true, f.contentLength(value)
		}
	case len("Transfer-Encoding"):
		if is(name, "transfer-encoding") {
			f.codings++
			f.chunked = is(value, "chunked")
			return true, nil
		}
	}
	return false, nil
}

func (f *fields) connection(value []byte) {
	for option := range bytes.SplitSeq(value, []byte(",")) {
		option = bytes.Trim(option, " \t")
		f.close = f.close || is(option, "close")
		f.keepAlive = f.keepAlive || is(option, "keep-alive")
	}
}

func (f *fields) retry(value []byte) {
	if f.retries++; f.retries == 1 && len(value) <= MaxRetryAfter {
		f.retryAfter = string(value)
	}
}

// contentLength reads a length; a second field must say the same.
func (f *fields) contentLength(value []byte) error {
	n, err := strconv.ParseUint(string(value), 10, 63)
	if err != nil {
		return MalformedError("bad Content-Length")
	}
	if f.lengths++; f.lengths > 1 && f.length != int64(n) {
		return MalformedError("different Content-Lengths")
	}
	f.length = int64(n)
	return nil
}

// frame decides how the body is delimited (RFC 9112, section 6.3).
func (r *Reader) frame(f *fields, status int, noBody bool) (Head, error) {
	head := Head{Status: status, RetryAfter: f.retryAfter, KeepAlive: !f.close && (f.minor >= 1 || f.keepAlive)}
	if f.minor == 0 {
		if f.codings > 0 {
			head.KeepAlive = false // its framing is faulty
		}
		f.codings = 0
	}
	if f.codings > 1 || f.codings == 1 && !f.chunked {
		return Head{}, MalformedError("unknown Transfer-Encoding")
	}
	switch {
	case noBody || status < 200 || status == 204 || status == 304:
		r.body = body{kind: ended}
		// A 204 has no body. Who announces one may send it, too, and later: what then
		// arrives must not be taken for the next answer.
		head.KeepAlive = head.KeepAlive && (status != 204 || f.codings == 0 && f.length == 0)
	case f.codings == 1:
		r.body = body{kind: chunked}
		head.Length = -1
		head.KeepAlive = head.KeepAlive && f.lengths == 0 // both: someone may be smuggling
	case f.lengths > 0:
		r.body = body{kind: counted, left: f.length}
		head.Length = f.length
	default:
		r.body = body{kind: untilEOF}
		head.Length = -1
		head.KeepAlive = false
	}
	return head, nil
}

// is reports whether s is the given text, which is in lower case, in any case.
func is(s []byte, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i, c := range s {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
