package http1

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

const (
	bufferSize = 4 << 10
	// keepSize is the largest buffer that is kept for the next response.
	keepSize = 16 << 10
	// maxEmptyReads is how often a connection may give nothing and no error.
	maxEmptyReads = 100
)

// ErrTooLarge is returned for a head that exceeds its bounds.
var ErrTooLarge = errors.New("response head too large")

// MalformedError says what about a response breaks the rules of HTTP/1.1. It
// quotes nothing of it.
type MalformedError string

// Error names the part that is wrong.
func (e MalformedError) Error() string { return "malformed response: " + string(e) }

// Reader reads the response to one request. Not safe for concurrent use.
type Reader struct {
	src    io.Reader
	buf    []byte
	r, w   int // buf[r:w] is read and not used yet
	budget int // bytes that the head, or the trailer, may still have
	body   body
}

//nolint:gochecknoglobals // a pool is of use only where all share it
var readers = sync.Pool{New: func() any { return &Reader{buf: make([]byte, bufferSize)} }}

// New returns a Reader for the next response on src.
func New(src io.Reader) *Reader {
	r := readers.Get().(*Reader)
	r.src = src
	return r
}

// Release gives the buffer back. The Reader and what ReadHead returned must not
// be used after it.
func (r *Reader) Release() {
	buf := r.buf
	if cap(buf) > keepSize {
		buf = make([]byte, bufferSize)
	}
	*r = Reader{buf: buf}
	readers.Put(r)
}

// Buffered returns how many bytes were received beyond what was read. After the
// whole response it must be 0: nobody asked for more.
func (r *Reader) Buffered() int { return r.w - r.r }

// line returns the next line without its end, CR LF or a bare LF. It is valid
// until the next read. The end of the connection is io.EOF only before a line.
func (r *Reader) line() ([]byte, error) {
	for scanned := 0; ; {
		if i := bytes.IndexByte(r.buf[r.r+scanned:r.w], '\n'); i >= 0 {
			line := r.buf[r.r : r.r+scanned+i]
			if r.budget -= len(line) + 1; r.budget < 0 {
				return nil, ErrTooLarge
			}
			r.r += len(line) + 1
			if n := len(line); n > 0 && line[n-1] == '\r' {
				line = line[:n-1]
			}
			return line, nil
		}
		if scanned = r.w - r.r; scanned >= r.budget {
			return nil, ErrTooLarge
		}
		if err := r.more(); err != nil {
			if scanned > 0 {
				err = cut(err)
			}
			return nil, err
		}
	}
}

// more reads at least one byte more into the buffer, which grows when full.
func (r *Reader) more() error {
	switch {
	case r.r == r.w:
		r.r, r.w = 0, 0
	case r.w < len(r.buf):
	case r.r > 0:
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	default:
		r.buf = append(r.buf, make([]byte, len(r.buf))...)
	}
	n, err := r.fetch(r.buf[r.w:])
	r.w += n
	return err
}

// fetch reads from the connection until there is something: bytes or an error,
// not both.
func (r *Reader) fetch(p []byte) (int, error) {
	for range maxEmptyReads {
		n, err := r.src.Read(p)
		if n > 0 {
			return n, nil // an error will come again
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, io.ErrNoProgress
}

// cut returns the error for a connection that ends inside something.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
