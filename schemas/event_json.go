package schemas

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
)

// ParseStructured reads one event of the CloudEvents JSON format 1.0, section
// 3: attributes as members, the payload in data or data_base64. String data
// under a media type that is not JSON is taken as text. The returned data is a
// copy of nothing: for JSON it is the exact bytes of the member. The event is
// not validated.
func ParseStructured(doc []byte) (Event, error) {
	var members map[string]json.RawMessage
	if err := unmarshalStrict(doc, &members); err != nil {
		return Event{}, err
	}
	if members == nil {
		return Event{}, fieldError("", "want a JSON object")
	}
	var version string
	if raw, ok := members["specversion"]; ok {
		if err := json.Unmarshal(raw, &version); err != nil {
			return Event{}, fieldError("specversion", "want a string")
		}
	}
	if version != "1.0" {
		return Event{}, fieldError("specversion", "%q is not supported, want 1.0", clip(version, 16))
	}
	return EventFromMembers(members)
}

// EventFromMembers builds an event from the members of a JSON object, see
// ParseStructured; specversion is not looked at.
func EventFromMembers(members map[string]json.RawMessage) (Event, error) {
	var e Event
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if name == "data" || name == "data_base64" || name == "specversion" {
			continue
		}
		if err := checkAttributeName(name); err != nil {
			return Event{}, err
		}
		value, set, err := attributeText(name, members[name])
		if err != nil {
			return Event{}, err
		}
		if set {
			e.setAttribute(name, value)
		}
	}
	return e, e.setData(members["data"], members["data_base64"])
}

func (e *Event) setData(data, encoded json.RawMessage) error {
	if data != nil && encoded != nil {
		return fieldError("data", "data and data_base64 exclude each other")
	}
	if encoded != nil {
		var s string
		if err := json.Unmarshal(encoded, &s); err != nil {
			return fieldError("data_base64", "want a string")
		}
		raw, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return fieldError("data_base64", "not valid base64: %v", err)
		}
		e.Data = raw
		return nil
	}
	if e.IsJSON() {
		e.Data = data
		return nil
	}
	var s string
	if len(data) > 0 && data[0] == '"' && json.Unmarshal(data, &s) == nil {
		e.Data = []byte(s)
		return nil
	}
	e.Data = data
	return nil
}

// attributeText returns the canonical string of an attribute's JSON value
// (CloudEvents JSON format, section 2.2). A null is an absent attribute.
func attributeText(name string, raw json.RawMessage) (text string, set bool, err error) {
	switch raw = bytes.TrimSpace(raw); {
	case len(raw) == 0 || string(raw) == "null":
		return "", false, nil
	case raw[0] == '"':
		if err := json.Unmarshal(raw, &text); err != nil {
			return "", false, fieldError(name, "not a valid string")
		}
		return text, true, nil
	case string(raw) == "true" || string(raw) == "false":
		return string(raw), true, nil
	case raw[0] == '{' || raw[0] == '[':
		return "", false, fieldError(name, "want a string, boolean or integer")
	}
	if _, err := strconv.ParseInt(string(raw), 10, 32); err != nil {
		return "", false, fieldError(name, "want a string, boolean or 32-bit integer")
	}
	return string(raw), true, nil
}

// unmarshalStrict decodes exactly one JSON document.
func unmarshalStrict(doc []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(doc))
	if err := dec.Decode(into); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return fieldError("", "malformed JSON at byte %d: %v", syntax.Offset, err)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fieldError("", "malformed JSON: the document ends too early")
		}
		return fieldError("", "want a JSON object: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fieldError("", "malformed JSON: data after the document at byte %d", dec.InputOffset())
	}
	return nil
}

// AppendStructured appends the event in the CloudEvents JSON format: JSON data
// as it is, all else in data_base64.
func AppendStructured(dst []byte, e *Event) ([]byte, error) {
	doc := map[string]any{"specversion": "1.0", "id": e.ID, "source": e.Source, "type": e.Type}
	for name, value := range map[string]string{
		"subject": e.Subject, "dataschema": e.DataSchema, "time": e.Time, "datacontenttype": e.DataContentType,
		"tenant": e.Tenant, "partitionkey": e.PartitionKey, "traceparent": e.TraceParent, "tracestate": e.TraceState,
	} {
		if value != "" {
			doc[name] = value
		}
	}
	for name, value := range e.Extensions {
		doc[name] = value
	}
	switch {
	case len(e.Data) == 0:
	case e.IsJSON() && json.Valid(e.Data):
		doc["data"] = json.RawMessage(e.Data)
	default:
		doc["data_base64"] = base64.StdEncoding.EncodeToString(e.Data)
	}
	out, err := json.Marshal(doc)
	return append(dst, out...), err
}
