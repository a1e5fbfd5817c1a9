package schemas

import (
	"maps"
	"slices"
	"strings"
)

// AppendEventHeaders appends the event in the binary mode of the CloudEvents
// Kafka protocol binding 1.0 (section 3.2): one ce_ header per attribute,
// content-type, and the W3C trace context. Extensions come in sorted order.
func AppendEventHeaders[H RecordHeader](dst []H, e *Event) []H {
	in := make(values, 0, e.attributesSize()+len("1.0")+2)
	return appendEventHeaders(dst, &in, e)
}

func appendEventHeaders[H RecordHeader](dst []H, in *values, e *Event) []H {
	dst = appendHeader(dst, in, "ce_specversion", "1.0")
	dst = appendHeader(dst, in, "ce_id", e.ID)
	dst = appendHeader(dst, in, "ce_source", e.Source)
	dst = appendHeader(dst, in, "ce_type", e.Type)
	dst = appendHeader(dst, in, "ce_tenant", e.Tenant)
	optional := [...]struct{ key, value string }{
		{"ce_subject", e.Subject},
		{"ce_dataschema", e.DataSchema},
		{"ce_time", e.Time},
		{"ce_partitionkey", e.PartitionKey},
		{headerContentType, e.DataContentType},
		{headerTraceParent, e.TraceParent},
		{headerTraceState, e.TraceState},
	}
	for _, h := range optional {
		if h.value != "" {
			dst = appendHeader(dst, in, h.key, h.value)
		}
	}
	if e.Hops > 0 {
		dst = appendInt(dst, in, headerHops, int64(e.Hops))
	}
	if len(e.Extensions) > 0 {
		for _, name := range slices.Sorted(maps.Keys(e.Extensions)) {
			dst = appendHeader(dst, in, attributePrefix+name, e.Extensions[name])
		}
	}
	return dst
}

// DecodeEvent reads a record of the topic events: binary mode, or structured
// mode if the content type is application/cloudevents+json. Data is the
// record's value, not a copy. The event is not validated.
func DecodeEvent[H RecordHeader](value []byte, headers []H) (Event, error) {
	for i := range headers {
		h := Header(headers[i])
		if strings.EqualFold(h.Key, headerContentType) && isStructured(string(h.Value)) {
			return decodeStructured(value, headers)
		}
	}
	var e Event
	binary := false
	rest := texts(headers)
	for i := range headers {
		h := Header(headers[i])
		text := rest[:len(h.Value)]
		rest = rest[len(h.Value):]
		if err := e.readHeader(h.Key, text); err != nil {
			return Event{}, err
		}
		if h.Key == "ce_specversion" {
			binary = true
			if text != "1.0" {
				return Event{}, fieldError("specversion", "%q is not supported, want 1.0", clip(text, 16))
			}
		}
	}
	if !binary {
		return Event{}, fieldError("specversion", "is required: the record is neither a binary nor a structured CloudEvent")
	}
	e.Data = value
	return e, nil
}

func isStructured(contentType string) bool {
	base, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(base), ContentTypeStructured)
}

// isEventMedia reports whether a record of this content type is in structured
// mode, in whatever format (Kafka protocol binding, section 3: a prefix, in any
// case). Who hands in an event must not choose such a type for its data: the data
// would take the event's place, with a tenant that nobody checked.
func isEventMedia(contentType string) bool {
	const prefix = "application/cloudevents"
	text := strings.TrimSpace(contentType)
	return len(text) >= len(prefix) && strings.EqualFold(text[:len(prefix)], prefix)
}

// readHeader takes up one header of a binary mode record. Headers that are no
// attributes are left to the caller.
func (e *Event) readHeader(key, value string) error {
	switch {
	case len(key) > len(attributePrefix) && key[:len(attributePrefix)] == attributePrefix:
		e.setAttribute(key[len(attributePrefix):], value)
	case key == headerTraceParent:
		e.TraceParent = value
	case key == headerTraceState:
		e.TraceState = value
	case key == headerHops:
		n, err := parseInt("hops", value)
		if err != nil {
			return err
		}
		if n < 0 || n > 1<<20 {
			return fieldError("hops", "%d is out of range", n)
		}
		e.Hops = int(n)
	case strings.EqualFold(key, headerContentType):
		e.DataContentType = value
	}
	return nil
}

// decodeStructured reads a structured record; the trace context and hops may
// still stand in headers.
func decodeStructured[H RecordHeader](value []byte, headers []H) (Event, error) {
	e, err := ParseStructured(value)
	if err != nil {
		return Event{}, err
	}
	for i := range headers {
		h := Header(headers[i])
		if h.Key == headerTraceParent || h.Key == headerTraceState || h.Key == headerHops {
			if err := e.readHeader(h.Key, string(h.Value)); err != nil {
				return Event{}, err
			}
		}
	}
	return e, nil
}
