package schemas

import (
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Event is a CloudEvent 1.0 with the extension attributes tenant and
// partitionkey (CloudEvents Partitioning extension).
type Event struct {
	// ID is the CloudEvents id, unique within the source.
	ID string
	// Source is the CloudEvents source, a URI reference.
	Source string
	// Type is the event type, such as "order.paid".
	Type string
	// Subject, DataSchema and Time are optional; Time is RFC 3339 as it came.
	Subject    string
	DataSchema string
	Time       string
	// DataContentType is the media type of Data; empty means JSON.
	DataContentType string
	// Tenant owns the endpoints that the event may reach.
	Tenant string
	// PartitionKey, if any, keeps events together and in order.
	PartitionKey string
	// TraceParent and TraceState are the W3C trace context of the event.
	TraceParent string
	TraceState  string
	// Extensions holds all further extension attributes.
	Extensions map[string]string
	// Hops is the number of gateways that the event has passed.
	Hops int
	// Data is the payload, carried untouched.
	Data []byte
}

// Names of the Kafka headers of an event besides the ce_ attributes.
const (
	headerContentType = "content-type"
	headerTraceParent = "traceparent"
	headerTraceState  = "tracestate"
	headerHops        = "pr_hops"
	attributePrefix   = "ce_"
)

// EventID returns the event's id in Postrider, see the function EventID.
func (e *Event) EventID() string { return EventID(e.Tenant, e.Source, e.ID) }

// RecordKey returns the Kafka key of the event in the topic events: tenant and
// partition key where one is given, else the event id.
func (e *Event) RecordKey() []byte {
	if e.PartitionKey != "" {
		return []byte(e.Tenant + "/" + e.PartitionKey)
	}
	return []byte(e.EventID())
}

// IsJSON reports whether the data's media type is JSON (or absent, which
// CloudEvents reads as JSON).
func (e *Event) IsJSON() bool { return IsJSON(e.DataContentType) }

// IsJSON reports whether a media type is JSON: empty, application/json,
// text/json or any type with the suffix +json.
func IsJSON(mediaType string) bool {
	base, _, _ := strings.Cut(mediaType, ";")
	base = strings.ToLower(strings.TrimSpace(base))
	return base == "" || base == "application/json" || base == "text/json" || strings.HasSuffix(base, "+json")
}

// Validate checks the envelope: required attributes, their form and limits.
// The first fault is returned as a *FieldError.
func (e *Event) Validate() error {
	if err := CheckTenant(e.Tenant); err != nil {
		return err
	}
	required := []struct {
		name, value string
		limit       int
	}{{"id", e.ID, MaxEventID}, {"source", e.Source, MaxSource}, {"type", e.Type, MaxType}}
	for _, a := range required {
		if a.value == "" {
			return fieldError(a.name, "is required")
		}
		if err := checkText(a.name, a.value, a.limit); err != nil {
			return err
		}
	}
	if err := CheckType(e.Type); err != nil {
		return err
	}
	if e.Hops > MaxHops {
		return fieldError("hops", "the event passed %d gateways, at most %d are allowed", e.Hops, MaxHops)
	}
	return e.validateOptional()
}

func (e *Event) validateOptional() error {
	optional := []struct {
		name, value string
		limit       int
	}{
		{"subject", e.Subject, MaxSubject},
		{"dataschema", e.DataSchema, MaxSource},
		{"datacontenttype", e.DataContentType, 255},
		{"partitionkey", e.PartitionKey, MaxPartitionKey},
	}
	for _, a := range optional {
		if err := checkText(a.name, a.value, a.limit); err != nil {
			return err
		}
	}
	if isEventMedia(e.DataContentType) {
		return fieldError("datacontenttype", "%q is the media type of events themselves: on Kafka the data would be read as the event", clip(e.DataContentType, 64))
	}
	if e.Time != "" {
		if _, err := time.Parse(time.RFC3339, e.Time); err != nil {
			return fieldError("time", "not an RFC 3339 timestamp: %q", clip(e.Time, 64))
		}
	}
	if len(e.Extensions) > MaxExtensions {
		return fieldError("extensions", "%d extension attributes, at most %d are allowed", len(e.Extensions), MaxExtensions)
	}
	if err := e.validateExtensions(); err != nil {
		return err
	}
	if n := e.attributesSize(); n > MaxAttributes {
		return fieldError("attributes", "all attributes together take %d bytes, at most %d are allowed", n, MaxAttributes)
	}
	return nil
}

func (e *Event) validateExtensions() error {
	if len(e.Extensions) == 0 {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(e.Extensions)) {
		if err := checkAttributeName(name); err != nil {
			return err
		}
		if err := checkText(name, e.Extensions[name], MaxAttributes); err != nil {
			return err
		}
	}
	return nil
}

func (e *Event) attributesSize() int {
	n := len(e.ID) + len(e.Source) + len(e.Type) + len(e.Subject) + len(e.DataSchema) + len(e.Time) +
		len(e.DataContentType) + len(e.Tenant) + len(e.PartitionKey) + len(e.TraceParent) + len(e.TraceState)
	for k, v := range e.Extensions {
		n += len(k) + len(v)
	}
	return n
}

// CheckTenant checks the form of a tenant's id: 1 to 64 letters, digits, '.',
// '_' and '-', beginning with a letter or digit.
func CheckTenant(id string) error {
	if id == "" {
		return fieldError("tenant", "is required")
	}
	if len(id) > MaxTenant {
		return fieldError("tenant", "is %d bytes long, at most %d are allowed", len(id), MaxTenant)
	}
	for i := range len(id) {
		c := id[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '_' && c != '-') {
			return fieldError("tenant", "%q: letters, digits, '.', '_' and '-' are allowed, a letter or digit first", clip(id, 64))
		}
	}
	return nil
}

// CheckType checks the form of an event type: printable ASCII without white
// space, '*' and ','.
func CheckType(s string) error {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '*' || c == ',' {
			return fieldError("type", "character %q is not allowed", c)
		}
	}
	return nil
}

func checkText(name, value string, limit int) error {
	if len(value) > limit {
		return fieldError(name, "is %d bytes long, at most %d are allowed", len(value), limit)
	}
	if !utf8.ValidString(value) {
		return fieldError(name, "is not valid UTF-8")
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' || c == 0x7f {
			return fieldError(name, "has a control character at byte %d", i)
		}
	}
	return nil
}

// checkAttributeName keeps CloudEvents 1.0, section "Naming conventions".
func checkAttributeName(name string) error {
	if name == "" || len(name) > 64 {
		return fieldError("extensions", "attribute name %q must have 1 to 64 characters", clip(name, 64))
	}
	if name == "data" { // an event in JSON would have that member twice
		return fieldError("extensions", "attribute name %q is reserved for the payload", name)
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return fieldError("extensions", "attribute name %q: only a-z and 0-9 are allowed", clip(name, 64))
		}
	}
	return nil
}

// setAttribute stores one attribute by its CloudEvents name. A name that is
// not of the core or ours is an extension.
func (e *Event) setAttribute(name, value string) {
	switch name {
	case "id":
		e.ID = value
	case "source":
		e.Source = value
	case "type":
		e.Type = value
	case "subject":
		e.Subject = value
	case "dataschema":
		e.DataSchema = value
	case "time":
		e.Time = value
	case "datacontenttype":
		e.DataContentType = value
	case "tenant":
		e.Tenant = value
	case "partitionkey":
		e.PartitionKey = value
	case "traceparent":
		if e.TraceParent == "" {
			e.TraceParent = value
		}
	case "tracestate":
		if e.TraceState == "" {
			e.TraceState = value
		}
	case "specversion":
	default:
		if e.Extensions == nil {
			e.Extensions = make(map[string]string, 4)
		}
		e.Extensions[name] = value
	}
}
