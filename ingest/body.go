package ingest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/postrider/postrider/internal/httpd"
)

// maxWindow bounds the window of a zstd frame, in bytes: RFC 8878 asks decoders
// to take at least 8 MiB.
const maxWindow = 8 << 20

// errTooLarge is a body that decompresses to more than the limit.
var errTooLarge = errors.New("the decompressed body is too large")

// readBody returns the body, decompressed, in memory of its own: records keep
// pieces of it. The time in which the client sends it is not the request's.
func (s *Server) readBody(c *fiber.Ctx, in *intake) ([]byte, error) {
	coding, err := contentCoding(c)
	if err != nil {
		return nil, err
	}
	asked := s.cfg.Clock()
	raw, err := httpd.Body(c, s.cfg.MaxBodyBytes)
	in.started = in.started.Add(s.cfg.Clock().Sub(asked))
	if err != nil || coding == "" {
		return raw, err
	}
	wait, cancel := context.WithTimeout(c.UserContext(), s.cfg.AckTimeout)
	defer cancel()
	body, err := s.unpack.run(wait, coding, raw)
	switch {
	case err == nil:
		return body, httpd.Hold(c, len(body))
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		return nil, s.unavailable(CodeOverloaded, "too many bodies wait to be decompressed")
	case errors.Is(err, errTooLarge):
		return nil, s.bodyTooLarge()
	}
	return nil, problem(fiber.StatusBadRequest, CodeMalformedEncoding, "the body is not valid %s", coding)
}

// contentCoding returns how the body is compressed, "" if it is not.
func contentCoding(c *fiber.Ctx) (string, error) {
	codings := c.Request().Header.PeekAll(fiber.HeaderContentEncoding)
	coding := strings.ToLower(strings.TrimSpace(string(bytes.Join(codings, []byte{','}))))
	switch coding {
	case "", "identity":
		return "", nil
	case "gzip", "x-gzip", "zstd":
		return coding, nil
	}
	c.Set(fiber.HeaderAcceptEncoding, "gzip, zstd")
	return "", problem(fiber.StatusUnsupportedMediaType, CodeUnsupportedEncoding,
		"Content-Encoding %q is not supported, want gzip or zstd", clip(coding, 64))
}

func (s *Server) bodyTooLarge() error {
	return problem(fiber.StatusRequestEntityTooLarge, httpd.CodeTooLarge,
		"the body has more than %d bytes, decompressed where it is compressed", s.cfg.MaxBodyBytes)
}

// decompressor owns a fixed number of decoders, so that their memory is bounded
// whatever clients send.
type decompressor struct {
	limit int
	free  chan *decoders
}

type decoders struct {
	gzip *gzip.Reader
	zstd *zstd.Decoder
}

func newDecompressor(n, limit int) *decompressor {
	d := &decompressor{limit: limit, free: make(chan *decoders, n)}
	for range n {
		d.free <- &decoders{}
	}
	return d
}

// run returns body decompressed. It waits for a free decoder until ctx ends.
func (d *decompressor) run(ctx context.Context, coding string, body []byte) ([]byte, error) {
	var dec *decoders
	select {
	case dec = <-d.free:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { d.free <- dec }()
	src, err := dec.open(coding, body, d.limit)
	if err != nil {
		return nil, sizeError(err)
	}
	out := bytes.NewBuffer(make([]byte, 0, min(4*len(body)+bytes.MinRead, d.limit+bytes.MinRead)))
	if _, err := out.ReadFrom(io.LimitReader(src, int64(d.limit)+1)); err != nil {
		return nil, sizeError(err)
	}
	if out.Len() > d.limit {
		return nil, errTooLarge
	}
	return out.Bytes(), nil
}

func (d *decoders) open(coding string, body []byte, limit int) (io.Reader, error) {
	src := bytes.NewReader(body)
	if coding != "zstd" {
		if d.gzip == nil {
			d.gzip = new(gzip.Reader)
		}
		return d.gzip, d.gzip.Reset(src)
	}
	if d.zstd == nil {
		var err error
		d.zstd, err = zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(1), // in the caller, no goroutines
			zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow),
			zstd.WithDecoderMaxMemory(uint64(max(limit, maxWindow))))
		if err != nil {
			return nil, err
		}
	}
	return d.zstd, d.zstd.Reset(src)
}

// sizeError tells a body that claims too much from one that is broken.
func sizeError(err error) error {
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
		return errTooLarge
	}
	return err
}

// clip cuts s to at most n bytes for use in an answer.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
