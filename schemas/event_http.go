package schemas

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"
)

// ContentTypeStructured is the media type of a CloudEvent in JSON.
const ContentTypeStructured = "application/cloudevents+json"

// publicAttributes returns the event's attributes but for datacontenttype, as a
// receiver gets them: without the tenant, which is ours, and with the trace
// context only if asked for. Those of the core come first, then all others by
// name.
func (e *Event) publicAttributes(trace bool) [][2]string {
	out := make([][2]string, 0, 10+len(e.Extensions))
	out = append(out, [2]string{"specversion", "1.0"}, [2]string{"id", e.ID}, [2]string{"source", e.Source}, [2]string{"type", e.Type})
	optional := [...][2]string{
		{"subject", e.Subject},
		{"time", e.Time},
		{"dataschema", e.DataSchema},
		{"partitionkey", e.PartitionKey},
		{"traceparent", e.TraceParent},
		{"tracestate", e.TraceState},
	}
	given := optional[:4]
	if trace {
		given = optional[:]
	}
	for _, a := range given {
		if a[1] != "" {
			out = append(out, a)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Extensions)) {
		out = append(out, [2]string{name, e.Extensions[name]})
	}
	return out
}

// HTTPHeaders calls set for each attribute of the event in the binary mode of the
// CloudEvents HTTP binding 1.0 (section 3.1.3): names in lower case with the
// prefix ce-, values percent-encoded. datacontenttype is the Content-Type, which
// is the caller's; so is the tenant, which no receiver is told.
func (e *Event) HTTPHeaders(trace bool, set func(name, value string)) {
	for _, a := range e.publicAttributes(trace) {
		set("ce-"+a[0], encodeHeader(a[1]))
	}
}

// encodeHeader percent-encodes what a header can't hold (section 3.1.3.2).
func encodeHeader(s string) string {
	plain := func(c rune) bool { return c > ' ' && c < 0x7f && c != '"' && c != '%' }
	if !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	const hex = "0123456789ABCDEF"
	out := make([]byte, 0, len(s)+16)
	for i := range len(s) {
		if c := s[i]; plain(rune(c)) {
			out = append(out, c)
		} else {
			out = append(out, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(out)
}

// AppendPublic appends the event in the CloudEvents JSON format 1.0 as a receiver
// gets it: JSON data byte for byte, text as a string, all else in data_base64,
// without the tenant, and with the trace context only if asked for. The same
// event always gives the same bytes.
func AppendPublic(dst []byte, e *Event, trace bool) []byte {
	for i, a := range e.publicAttributes(trace) {
		dst = append(dst, "{,"[min(i, 1)])
		dst = appendMember(dst, a[0], a[1])
	}
	if e.DataContentType != "" {
		dst = appendMember(append(dst, ','), "datacontenttype", e.DataContentType)
	}
	switch {
	case len(e.Data) == 0:
	case e.IsJSON() && json.Valid(e.Data):
		dst = append(append(dst, `,"data":`...), e.Data...)
	case isText(e.DataContentType) && utf8.Valid(e.Data):
		dst = appendMember(append(dst, ','), "data", string(e.Data))
	default:
		dst = append(dst, `,"data_base64":"`...)
		dst = append(base64.StdEncoding.AppendEncode(dst, e.Data), '"')
	}
	return append(dst, '}')
}

func appendMember(dst []byte, name, value string) []byte {
	quoted, _ := json.Marshal(value) // a string always marshals
	dst = append(append(append(dst, '"'), name...), '"', ':')
	return append(dst, quoted...)
}

// isText reports whether a media type is that of text which is not JSON.
func isText(mediaType string) bool {
	base, _, err := mime.ParseMediaType(mediaType)
	return err == nil && (strings.HasPrefix(base, "text/") && !IsJSON(base) || base == "application/xml" || strings.HasSuffix(base, "+xml"))
}
