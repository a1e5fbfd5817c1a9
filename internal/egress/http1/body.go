package http1

import (
	"bytes"
	"io"
	"math"
)

const (
	maxChunkLine = 4 << 10
	maxTrailer   = 4 << 10
	// What a chunked body may have in chunk lines and extensions: some bytes for
	// each chunk, twice its data, and this much for all.
	maxOverhead   = 16 << 10
	chunkOverhead = 16
)

// kind is how a body ends.
type kind int

const (
	ended    kind = iota // it has ended, or there is none
	counted              // after so many bytes
	chunked              // with an empty chunk and the trailer
	untilEOF             // with the connection
)

type body struct {
	kind     kind
	left     int64 // bytes left of the body, or of the chunk
	open     bool  // a chunk has begun
	overhead int64
}

// Read reads the decoded body. io.EOF says that it is complete; a connection
// that ends earlier is io.ErrUnexpectedEOF, broken chunks are a MalformedError.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	switch r.body.kind {
	case counted:
		return r.readCounted(p)
	case chunked:
		return r.readChunked(p)
	case untilEOF:
		return r.take(p)
	case ended:
	}
	return 0, io.EOF
}

// Complete reports whether the whole body was read.
func (r *Reader) Complete() bool {
	return r.body.kind == ended || r.body.kind == counted && r.body.left == 0
}

func (r *Reader) readCounted(p []byte) (int, error) {
	if r.body.left == 0 {
		return 0, io.EOF
	}
	return r.takeLeft(p)
}

func (r *Reader) readChunked(p []byte) (int, error) {
	if r.body.left == 0 {
		if err := r.nextChunk(); err != nil {
			return 0, cut(err)
		}
		if r.body.kind == ended {
			return 0, io.EOF
		}
	}
	return r.takeLeft(p)
}

// takeLeft reads bytes of the body or chunk of which the length is known.
func (r *Reader) takeLeft(p []byte) (int, error) {
	if int64(len(p)) > r.body.left {
		p = p[:r.body.left]
	}
	n, err := r.take(p)
	r.body.left -= int64(n)
	return n, cut(err)
}

// take returns bytes of the buffer, or of the connection when that is empty.
func (r *Reader) take(p []byte) (int, error) {
	if r.r < r.w {
		n := copy(p, r.buf[r.r:r.w])
		r.r += n
		return n, nil
	}
	if len(p) >= len(r.buf) {
		return r.fetch(p)
	}
	if err := r.more(); err != nil {
		return 0, err
	}
	n := copy(p, r.buf[r.r:r.w])
	r.r += n
	return n, nil
}

// nextChunk reads the end of the chunk before and the line of the next one, and
// the trailer after the last.
func (r *Reader) nextChunk() error {
	if r.body.open {
		r.budget = 2
		line, err := r.strictLine()
		if err != nil {
			return err
		}
		if len(line) > 0 {
			return MalformedError("chunk longer than its length")
		}
	}
	r.budget = maxChunkLine
	line, err := r.strictLine()
	if err != nil {
		return err
	}
	size, err := chunkSize(line)
	if err != nil {
		return err
	}
	b := &r.body
	b.open, b.left = true, size
	b.overhead = max(b.overhead+int64(len(line))+2-chunkOverhead-2*min(size, 1<<40), 0)
	if b.overhead > maxOverhead {
		return MalformedError("more chunk lines than data")
	}
	if size > 0 {
		return nil
	}
	if err := r.trailer(); err != nil {
		return err
	}
	b.kind = ended
	return nil
}

// strictLine returns a line that ends with CR LF. Readers that disagree about a
// bare LF inside the framing have been played off against each other.
func (r *Reader) strictLine() ([]byte, error) {
	limit := r.budget
	line, err := r.line()
	if err == ErrTooLarge { //nolint:errorlint // it is never wrapped
		return nil, MalformedError("chunk line too long, or no end of a chunk")
	}
	if err != nil {
		return nil, cut(err)
	}
	if limit-r.budget != len(line)+2 || bytes.IndexByte(line, '\r') >= 0 {
		return nil, MalformedError("chunk line without CR LF")
	}
	return line, nil
}

func chunkSize(line []byte) (int64, error) {
	digits, _, _ := bytes.Cut(bytes.TrimRight(line, " \t"), []byte(";"))
	if len(digits) == 0 || len(digits) > 16 {
		return 0, MalformedError("bad chunk length")
	}
	var size int64
	for _, c := range digits {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, MalformedError("bad chunk length")
		}
		if size > math.MaxInt64>>4 {
			return 0, MalformedError("bad chunk length")
		}
		size = size<<4 | int64(c)
	}
	return size, nil
}

// trailer reads and drops the fields after the last chunk.
func (r *Reader) trailer() error {
	r.budget = maxTrailer
	for {
		line, err := r.strictLine()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return nil
		}
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found || !isFieldName(name) || !isFieldValue(value) {
			return MalformedError("bad trailer field")
		}
	}
}
