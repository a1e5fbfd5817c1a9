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
	dst = appendHeader(dst, "ce_specversion", "1.0")
	dst = appendHeader(dst, "ce_id", e.ID)
	dst = appendHeader(dst, "ce_source", e.Source)
	dst = appendHeader(dst, "ce_type", e.Type)
	dst = appendHeader(dst, "ce_tenant", e.Tenant)
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
			dst = appendHeader(dst, h.key, h.value)
		}
	}
	if e.Hops > 0 {
		dst = appendInt(dst, headerHops, int64(e.Hops))
	}
	if len(e.Extensions) > 0 {
		for _, name := range slices.Sorted(maps.Keys(e.Extensions)) {
			dst = appendHeader(dst, attributePrefix+name, e.Extensions[name])
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
	for i := range headers {
		h := Header(headers[i])
		if err := e.readHeader(h); err != nil {
			return Event{}, err
		}
		if h.Key == "ce_specversion" {
			binary = true
			if string(h.Value) != "1.0" {
				return Event{}, fieldError("specversion", "%q is not supported, want 1.0", clip(string(h.Value), 16))
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
	return strings.EqualFold(strings.TrimSpace(base), "application/cloudevents+json")
}

// readHeader takes up one header of a binary mode record. Headers that are no
// attributes are left to the caller.
func (e *Event) readHeader(h Header) error {
	switch {
	case len(h.Key) > len(attributePrefix) && h.Key[:len(attributePrefix)] == attributePrefix:
		e.setAttribute(h.Key[len(attributePrefix):], string(h.Value))
	case h.Key == headerTraceParent:
		e.TraceParent = string(h.Value)
	case h.Key == headerTraceState:
		e.TraceState = string(h.Value)
	case h.Key == headerHops:
		n, err := parseInt("hops", h.Value)
		if err != nil {
			return err
		}
		if n < 0 || n > 1<<20 {
			return fieldError("hops", "%d is out of range", n)
		}
		e.Hops = int(n)
	case strings.EqualFold(h.Key, headerContentType):
		e.DataContentType = string(h.Value)
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
			if err := e.readHeader(h); err != nil {
				return Event{}, err
			}
		}
	}
	return e, nil
}
