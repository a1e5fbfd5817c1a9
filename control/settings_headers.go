package control

import (
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/signature"
)

// Bounds of an endpoint's own headers; sizes are bytes.
const (
	maxHeaders     = 20
	maxHeaderName  = 128
	maxHeaderValue = 4096
	maxHeaderSize  = 8 << 10 // of all names and values given at once
)

const codeInvalidHeader = "invalid_header"

type headerSettings struct {
	Value  string `json:"value" maxLength:"4096" doc:"Of a secret header, never shown again."`
	Secret bool   `json:"secret,omitempty" doc:"Keep the value sealed and show it to nobody."`
}

type headerPatch struct {
	Value  string `json:"value,omitempty" maxLength:"4096"`
	Secret bool   `json:"secret,omitempty" nullable:"true"`
}

// headersPatch is a merge patch of headers.
type headersPatch map[string]*headerPatch

// Schema implements huma.SchemaProvider: an entry may be null.
func (headersPatch) Schema(r huma.Registry) *huma.Schema {
	entry := huma.SchemaFromType(r, reflect.TypeFor[headerPatch]())
	entry.Nullable = true
	entry.PrecomputeMessages()
	s := &huma.Schema{Type: huma.TypeObject, AdditionalProperties: entry}
	s.PrecomputeMessages()
	return s
}

// headers takes up the endpoint's own headers.
func (k *keeper) headers(set ReceiverSettings) map[string]registry.Header {
	if len(set.Headers) > maxHeaders {
		k.badHeader("", "has %d headers, at most %d are allowed", len(set.Headers), maxHeaders)
	}
	out := make(map[string]registry.Header, len(set.Headers))
	known := make(map[string]string, len(set.Headers))
	signing := signingHeaders(k.e)
	size := 0
	for _, name := range slices.Sorted(maps.Keys(set.Headers)) {
		h, canonical := set.Headers[name], http.CanonicalHeaderKey(name)
		size += len(name) + len(h.Value)
		if wrong := headerFault(name, set.Auth != nil); wrong != "" {
			k.badHeader(name, "%s", wrong)
			continue
		}
		if slices.Contains(signing, canonical) {
			k.badHeader(name, "is what signing sets")
			continue
		}
		if twin, twice := known[canonical]; twice {
			k.badHeader(name, "is the same header as %s", twin)
			continue
		}
		known[canonical] = name
		out[name] = k.header(name, h)
	}
	if size > maxHeaderSize {
		k.badHeader("", "have %d bytes together, at most %d are allowed", size, maxHeaderSize)
	}
	return out
}

// signingHeaders returns the canonical names of the headers that the endpoint's
// scheme writes over. Those for the id and the type give way to headers.
func signingHeaders(e *registry.Endpoint) []string {
	scheme, err := signature.New(signature.Spec(e.Signing))
	if err != nil {
		return nil // applySigning says what is wrong
	}
	return scheme.Headers()
}

func (k *keeper) header(name string, h headerSettings) registry.Header {
	at := place{pointer: "/headers/" + escape(name) + "/value", field: registry.HeaderField(name), kept: k.e.Headers[name].Sealed}
	if h.Secret {
		return registry.Header{Sealed: k.secret(at, h.Value, headerValue)}
	}
	if h.Value == redactedText && at.kept != "" {
		k.fault(at.pointer, "a secret value is not made visible: give the value, too")
	}
	return registry.Header{Value: k.plain(at.pointer, h.Value, headerValue)}
}

// badHeader is a fault of a header, or of all of them if the name is empty.
func (k *keeper) badHeader(name, format string, args ...any) {
	pointer := "/headers"
	if name != "" {
		pointer += "/" + escape(name)
	}
	k.faults = append(k.faults, fault{pointer, fmt.Sprintf(format, args...), codeInvalidHeader})
}

// headerValue is the rule of a header's value (RFC 9110, section 5.5), without
// what is obsolete there.
func headerValue(value string) string {
	if wrong := length(1, maxHeaderValue, func(r rune) bool { return printable(r) || r == '\t' }, "printable ASCII characters and tabs")(value); wrong != "" {
		return wrong
	}
	if strings.Trim(value, " \t") != value {
		return "must not begin or end with white space"
	}
	return ""
}

// headerFault says why a header may not be set, "" if it may.
func headerFault(name string, auth bool) string {
	if len(name) == 0 || len(name) > maxHeaderName {
		return fmt.Sprintf("a name has 1 to %d bytes", maxHeaderName)
	}
	for i := range len(name) {
		c := name[i] | 0x20
		if (c < 'a' || c > 'z') && (name[i] < '0' || name[i] > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(name[i])) {
			return "the name is not one of a header (RFC 9110, section 5.1)"
		}
	}
	lower := strings.ToLower(name)
	switch {
	case lower == "authorization" && auth:
		return "is what auth sets"
	case slices.Contains(reservedHeaders(), lower):
		return "is set by the gateway or by HTTP itself"
	}
	for _, prefix := range []string{"webhook-", "postrider-", "ce-", "proxy-", "sec-", ":"} {
		if strings.HasPrefix(lower, prefix) {
			return "names that begin with " + prefix + " are the gateway's or HTTP's own"
		}
	}
	return ""
}

// reservedHeaders are those of the message, of the connection and of the trace,
// and those that make net/http send a request twice.
func reservedHeaders() []string {
	return []string{
		"host", "content-length", "content-type", "content-encoding", "transfer-encoding", "te", "trailer", "connection", "keep-alive",
		"upgrade", "http2-settings", "expect", "date", "accept-encoding", "traceparent", "tracestate", "idempotency-key", "x-idempotency-key",
	}
}
