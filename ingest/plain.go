package ingest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/gofiber/fiber/v2"

	"github.com/postrider/postrider/internal/httpd"
	"github.com/postrider/postrider/schemas"
)

func itoa[N int | int64](n N) string { return strconv.FormatInt(int64(n), 10) }

// plainMembers names what a plain JSON event may have.
const plainMembers = "type, data, id, source, subject, time, tenant, partitionkey, datacontenttype, dataschema and extensions"

// field returns where a member of a plain JSON event goes, nil for one that is
// not an attribute with a text.
func field(e *schemas.Event, name string) *string {
	switch name {
	case "type":
		return &e.Type
	case "id":
		return &e.ID
	case "source":
		return &e.Source
	case "subject":
		return &e.Subject
	case "time":
		return &e.Time
	case "tenant":
		return &e.Tenant
	case "partitionkey":
		return &e.PartitionKey
	case "datacontenttype":
		return &e.DataContentType
	case "dataschema":
		return &e.DataSchema
	}
	return nil
}

func isPlainMember(name string) bool {
	var e schemas.Event
	return name == "data" || name == "extensions" || field(&e, name) != nil
}

// plainEvent reads a plain JSON event from valid JSON: the attributes of a
// CloudEvent as members, all optional but type, and further extension
// attributes under "extensions". A member that is not known is refused by name:
// a misspelt one would otherwise be lost in silence.
func (it *item) plainEvent(doc []byte) *httpd.Problem {
	var data, extensions []byte
	var few [12]string // as many members as are known: an unknown one ends the walk
	seen := few[:0]
	object, err := members(doc, func(name string, value []byte) error {
		if slices.Contains(seen, name) {
			return &schemas.FieldError{Pointer: name, Detail: "is given twice"}
		}
		seen = append(seen, name)
		switch name {
		case "data":
			data = value
			return nil
		case "extensions":
			extensions = value
			return nil
		}
		into := field(&it.event, name)
		if into == nil {
			return &unknownMemberError{name: name}
		}
		return setText(into, name, value)
	})
	if err == nil && !object {
		err = &schemas.FieldError{Detail: "want a JSON object"}
	}
	if err == nil {
		err = it.setExtensions(extensions)
	}
	if err != nil {
		return it.plainProblem(err)
	}
	it.event.Data = plainData(it.event.DataContentType, data)
	return nil
}

// unknownMemberError is a member that a plain JSON event must not have.
type unknownMemberError struct{ name string }

func (e *unknownMemberError) Error() string {
	return fmt.Sprintf("unknown member %q: a plain JSON event has %s", clip(e.name, 64), plainMembers)
}

func (it *item) plainProblem(err error) *httpd.Problem {
	if unknown, ok := err.(*unknownMemberError); ok { //nolint:errorlint // made above, never wrapped
		return at(fiber.StatusUnprocessableEntity, CodeInvalidEvent,
			it.pointer+"/"+escapePointer(clip(unknown.name, 64)), unknown.Error())
	}
	return it.invalid(err)
}

// setText stores a string member; null is an absent one.
func setText(into *string, name string, value []byte) error {
	switch {
	case string(value) == "null":
	case value[0] == '"':
		*into = text(value)
	default:
		return &schemas.FieldError{Pointer: name, Detail: "want a string"}
	}
	return nil
}

func (it *item) setExtensions(raw []byte) error {
	if raw == nil || string(raw) == "null" {
		return nil
	}
	object, err := members(raw, it.setExtension)
	if err == nil && !object {
		err = &schemas.FieldError{Pointer: "extensions", Detail: "want an object"}
	}
	return err
}

func (it *item) setExtension(name string, value []byte) error {
	fault := func(detail string) error {
		return &schemas.FieldError{Pointer: "extensions", Detail: fmt.Sprintf("%q %s", clip(name, 64), detail)}
	}
	if _, twice := it.event.Extensions[name]; twice {
		return fault("is given twice")
	}
	if len(it.event.Extensions) == schemas.MaxExtensions {
		return tooManyMembers()
	}
	if isPlainMember(name) || name == "specversion" || name == "traceparent" || name == "tracestate" {
		return fault("is no extension attribute")
	}
	into := string(value)
	switch value[0] {
	case '"':
		into = text(value)
	case 't', 'f':
	default: // a number, or what an attribute can't be
		if _, err := strconv.ParseInt(into, 10, 32); err != nil {
			return fault("must be a string, boolean or 32-bit integer")
		}
	}
	if it.event.Extensions == nil {
		it.event.Extensions = make(map[string]string, 4)
	}
	it.event.Extensions[name] = into
	return nil
}

// plainData returns the payload: JSON as its exact bytes, a string under
// another media type as its text (CloudEvents JSON format, section 3.1).
func plainData(mediaType string, data []byte) []byte {
	if len(data) == 0 || data[0] != '"' || schemas.IsJSON(mediaType) {
		return data
	}
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return data
	}
	return []byte(s)
}
