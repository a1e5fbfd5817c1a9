package deliver

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/postrider/postrider/internal/jsonscan"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// content is how the body of an endpoint's requests is made. It never changes,
// and the same delivery always gives the same bytes.
type content struct {
	format registry.Format
	gzip   bool
	trace  bool // CloudEvents carry the event's trace context
	thin   *thinConfig
}

// thinConfig is what the format thin needs of the process.
type thinConfig struct {
	seal      tokenSealer
	publicURL string
	keep      time.Duration // retention of events
}

// tokenSealer makes the tokens with which receivers fetch events.
type tokenSealer interface {
	SealToken(plain []byte) (string, error)
}

func newContent(e *registry.Endpoint, thin *thinConfig) (content, error) {
	c := content{format: e.Format, gzip: e.Compression == registry.CompressionGzip, trace: e.TraceContext}
	switch e.Format {
	case "", registry.FormatStandard, registry.FormatStructured, registry.FormatBinary, registry.FormatRaw:
	case registry.FormatThin:
		if thin.publicURL == "" {
			return c, fmt.Errorf("endpoint %s: the format thin needs the setting public-url", e.ID)
		}
		c.thin = thin
	default:
		return c, fmt.Errorf("endpoint %s: its format %q is not known", e.ID, e.Format)
	}
	return c, nil
}

// body returns the bytes to sign and send, and their media type; "" is none.
func (c *content) body(d *schemas.Delivery) (body []byte, contentType string) {
	switch c.format {
	case registry.FormatStructured:
		body, contentType = schemas.AppendPublic(nil, &d.Event, c.trace), schemas.ContentTypeStructured
	case registry.FormatBinary:
		// An event without a media type is JSON; where its data is not, the
		// receiver is told nothing.
		body, contentType = d.Event.Data, d.Event.DataContentType
		if contentType == "" && jsonscan.Valid(body) {
			contentType = "application/json"
		}
	case registry.FormatRaw:
		body, contentType = d.Event.Data, ownType(&d.Event)
	case registry.FormatThin:
		body, contentType = c.thin.body(d), "application/json"
	default:
		body, contentType = newBody(&d.Event)
	}
	if c.gzip {
		body = compress(body)
	}
	return body, contentType
}

// describe adds the headers that belong to the body, but for its media type.
func (c *content) describe(r *request, d *schemas.Delivery) {
	if c.gzip {
		r.add("Content-Encoding", "gzip")
	}
	if c.format == registry.FormatBinary {
		d.Event.HTTPHeaders(c.trace, r.add)
	}
}

// ownType returns the media type of the payload.
func ownType(e *schemas.Event) string {
	switch {
	case e.DataContentType != "":
		return e.DataContentType
	case jsonscan.Valid(e.Data):
		return "application/json"
	}
	return "application/octet-stream"
}

// body returns {"type", "id", "url"}. The token in the URL ends when Kafka may
// have deleted the event, counted from when the delivery was made: it does not
// change from one attempt to the next.
func (t *thinConfig) body(d *schemas.Delivery) []byte {
	ticket := schemas.Ticket{
		Tenant: d.Event.Tenant, Event: d.EventID, Position: d.Position, ExpiresAt: d.MadeAt.Add(t.keep).Unix(),
	}
	if d.Unlogged() {
		ticket.Inline = schemas.AppendPublic(nil, &d.Event, false)
	}
	token, err := t.seal.SealToken(ticket.Encode())
	if err != nil { // AES-SIV fails only above 64 GiB
		panic(err)
	}
	address := strings.TrimSuffix(t.publicURL, "/") + "/v1/events/" + d.EventID + "?" + url.Values{"token": {token}}.Encode()
	body := appendString([]byte(`{"type":`), d.Event.Type)
	body = appendString(append(body, `,"id":`...), d.EventID)
	body = appendString(append(body, `,"url":`...), address)
	return append(body, '}')
}

// writers are gzip writers to use again: one takes 800 KiB.
var writers = sync.Pool{New: func() any { return gzip.NewWriter(nil) }} //nolint:gochecknoglobals // a pool has no other place

// compress returns the body in gzip (RFC 1952) without a time or a name: the same
// bytes each time.
func compress(body []byte) []byte {
	out := &appender{bytes: make([]byte, 0, len(body)/2+64)}
	w, _ := writers.Get().(*gzip.Writer)
	w.Reset(out)
	_, _ = w.Write(body) // an appender never fails
	_ = w.Close()
	writers.Put(w)
	return out.bytes
}

type appender struct{ bytes []byte }

// Write implements io.Writer.
func (a *appender) Write(p []byte) (int, error) {
	a.bytes = append(a.bytes, p...)
	return len(p), nil
}
