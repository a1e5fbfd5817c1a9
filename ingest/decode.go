package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"mime"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"github.com/postrider/postrider/internal/httpd"
	"github.com/postrider/postrider/schemas"
)

// form is how a body carries events.
type form int

const (
	formBinary     form = iota // CloudEvents HTTP binding, section 3.1
	formStructured             // section 3.2
	formBatch                  // section 3.3
	formLines                  // newline-delimited JSON
	formPlain                  // one plain JSON event
)

// accepted lists the media types of a body that is no binary CloudEvent.
const accepted = "application/json, application/cloudevents+json, application/cloudevents-batch+json, " +
	"application/x-ndjson, application/jsonl"

// attributePrefix begins the headers of a binary CloudEvent, as fasthttp
// writes them.
const attributePrefix = "Ce-"

// item is one event of a request and what becomes of it.
type item struct {
	event schemas.Event
	// pointer is where the event stands in the body: "" or "/3".
	pointer string
	// plain says that the event came as plain JSON.
	plain bool
	// problem is why the event is not, or perhaps not, accepted.
	problem *httpd.Problem
	// id is the event id, set when the envelope is valid.
	id       string
	position schemas.Position
	record   *kgo.Record
	// span is the event's own, where its producer's trace is another than the
	// request's; else nil.
	span trace.Span
}

// formOf tells the form by the headers. A binary CloudEvent may have any
// content type but those of the other CloudEvents forms.
func formOf(c *fiber.Ctx) (form, error) {
	header := c.Get(fiber.HeaderContentType)
	media, params, err := mime.ParseMediaType(header)
	if err != nil {
		media, _, _ = strings.Cut(header, ";")
		media = strings.ToLower(strings.TrimSpace(media))
	}
	cloud := strings.HasPrefix(media, "application/cloudevents")
	if !cloud && hasAttributes(c) {
		return formBinary, nil
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return 0, problem(fiber.StatusUnsupportedMediaType, CodeUnsupportedType, "charset %q is not supported, want utf-8", clip(charset, 32))
	}
	switch media {
	case "application/cloudevents+json":
		return formStructured, nil
	case "application/cloudevents-batch+json":
		return formBatch, nil
	case "application/x-ndjson", "application/jsonl":
		return formLines, nil
	case "application/json":
		return formPlain, nil
	}
	c.Set("Accept-Post", accepted)
	return 0, problem(fiber.StatusUnsupportedMediaType, CodeUnsupportedType,
		"content type %q is not supported; send one of %s, or a CloudEvent in binary mode (ce-* headers)", clip(media, 64), accepted)
}

func hasAttributes(c *fiber.Ctx) bool {
	for name := range c.Request().Header.All() {
		if isAttribute(name) {
			return true
		}
	}
	return false
}

func isAttribute(name []byte) bool {
	return len(name) > len(attributePrefix) && bytes.EqualFold(name[:len(attributePrefix)], []byte(attributePrefix))
}

// decode returns the events of the body, those that can't be read with their
// problem. An error refuses the whole request.
func (s *Server) decode(c *fiber.Ctx, f form, body []byte) ([]item, error) {
	switch f {
	case formBinary:
		return []item{binaryItem(c, body)}, nil
	case formBatch:
		return s.decodeBatch(body)
	case formLines:
		return s.decodeLines(body)
	case formStructured, formPlain:
	}
	if detail := checkJSON(body); detail != "" {
		return nil, at(fiber.StatusBadRequest, CodeMalformedJSON, "", detail)
	}
	items := make([]item, 1)
	items[0].read(body, f == formStructured)
	return items, nil
}

func (s *Server) decodeBatch(body []byte) ([]item, error) {
	if detail := checkJSON(body); detail != "" {
		return nil, at(fiber.StatusBadRequest, CodeMalformedJSON, "", detail)
	}
	items := make([]item, 0, 16)
	full := false
	array := elements(body, func(value []byte) bool {
		if full = len(items) == s.cfg.MaxBatchEvents; full {
			return false
		}
		items = append(items, item{pointer: "/" + itoa(len(items))})
		items[len(items)-1].read(value, true)
		return true
	})
	switch {
	case !array:
		return nil, at(fiber.StatusUnprocessableEntity, CodeInvalidEvent, "", "want a JSON array of events")
	case full:
		return nil, s.tooMany()
	}
	return items, nil
}

// decodeLines reads one JSON document a line. Blank lines count for nothing.
func (s *Server) decodeLines(body []byte) ([]item, error) {
	items := make([]item, 0, 16)
	line := 0
	for len(body) > 0 {
		doc, rest, _ := bytes.Cut(body, []byte{'\n'})
		body = rest
		line++
		if doc = bytes.TrimSpace(doc); len(doc) == 0 {
			continue
		}
		if len(items) == s.cfg.MaxBatchEvents {
			return nil, s.tooMany()
		}
		items = append(items, item{pointer: "/" + itoa(len(items))})
		it := &items[len(items)-1]
		if detail := checkJSON(doc); detail != "" {
			it.problem = at(fiber.StatusBadRequest, CodeMalformedJSON, it.pointer, "line "+itoa(line)+": "+detail)
			continue
		}
		it.read(doc, false)
	}
	if len(items) == 0 {
		return nil, problem(fiber.StatusBadRequest, CodeEmptyBody, "the body has no event")
	}
	return items, nil
}

func (s *Server) tooMany() error {
	return problem(fiber.StatusRequestEntityTooLarge, CodeBatchTooLarge,
		"at most %d events can be sent at once", s.cfg.MaxBatchEvents)
}

// read takes up one event from valid JSON: a structured CloudEvent, or, where
// that is not demanded and the event has no specversion, plain JSON.
func (it *item) read(doc []byte, structured bool) {
	if !structured {
		// Plain JSON is the usual case, and specversion is no member of it: only
		// what is not valid as such can be a CloudEvent.
		it.plain = true
		it.problem = it.plainEvent(doc)
		if it.problem == nil || !hasSpecVersion(doc) {
			return
		}
		it.event, it.problem, it.plain = schemas.Event{}, nil, false
	}
	if err := it.structuredEvent(doc); err != nil {
		it.problem = it.invalid(err)
	}
}

// maxMembers bounds the members of one event: the extension attributes, and the
// names that CloudEvents, and its extensions that are known here, give a meaning
// to. More are not even looked at.
const maxMembers = schemas.MaxExtensions + 14

// tooManyMembers is what Validate would say of them.
func tooManyMembers() error {
	return &schemas.FieldError{
		Pointer: "extensions", Detail: "at most " + itoa(schemas.MaxExtensions) + " extension attributes are allowed",
	}
}

// These end a walk early.
var (
	errFound  = errors.New("found")
	errEnough = errors.New("enough")
)

func hasSpecVersion(doc []byte) bool {
	n := 0
	_, err := members(doc, func(name string, _ []byte) error {
		if n++; name == "specversion" {
			return errFound
		} else if n == maxMembers {
			return errEnough
		}
		return nil
	})
	return errors.Is(err, errFound)
}

// structuredEvent reads the CloudEvents JSON format with the rules that
// schemas has for Kafka, and refuses members that are given twice, of which two
// readers may take different ones.
func (it *item) structuredEvent(doc []byte) error {
	all := make(map[string]json.RawMessage, 12)
	object, err := members(doc, func(name string, value []byte) error {
		if _, twice := all[name]; twice {
			return &schemas.FieldError{Pointer: clip(name, 64), Detail: "is given twice"}
		}
		if len(all) == maxMembers {
			return tooManyMembers()
		}
		all[name] = value
		return nil
	})
	switch {
	case err != nil:
		return err
	case !object:
		return &schemas.FieldError{Detail: "want a JSON object"}
	}
	switch version := string(all["specversion"]); version {
	case `"1.0"`:
	case "":
		return &schemas.FieldError{Pointer: "specversion", Detail: "is required"}
	default:
		return &schemas.FieldError{Pointer: "specversion", Detail: clip(version, 32) + ` is not supported, want "1.0"`}
	}
	it.event, err = schemas.EventFromMembers(all)
	return err
}
