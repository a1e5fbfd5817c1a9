package signature

import (
	"fmt"
	"net/http"
	"strings"
)

// headerFaults checks the names of a custom scheme's headers.
func (s Spec) headerFaults() (faults []Fault) {
	seen := map[string]string{}
	for _, h := range []struct {
		field, name string
		required    bool
	}{
		{"header", s.Header, true},
		{"timestamp_header", s.TimestampHeader, false},
		{"id_header", s.IDHeader, false},
		{"type_header", s.TypeHeader, false},
	} {
		if h.name == "" {
			if h.required {
				faults = append(faults, Fault{h.field, "is required for the scheme " + SchemeCustom})
			}
			continue
		}
		canonical := http.CanonicalHeaderKey(h.name)
		switch other := seen[canonical]; {
		case len(h.name) > maxName:
			faults = append(faults, Fault{h.field, fmt.Sprintf("has %d bytes, at most %d are allowed", len(h.name), maxName)})
		case !isToken(h.name):
			faults = append(faults, Fault{h.field, "is no name of a header: letters, digits and - are"})
		case Reserved(h.name):
			faults = append(faults, Fault{h.field, "names a header that is reserved: " + canonical})
		case other != "":
			faults = append(faults, Fault{h.field, "is the same header as " + other})
		}
		seen[canonical] = h.field
	}
	return faults
}

// Reserved reports whether a header is set by HTTP, by the gateway or by other
// settings, so that a signature can't stand in it.
func Reserved(name string) bool {
	name = strings.ToLower(name)
	for _, prefix := range []string{"webhook-", "postrider-", "proxy-", "ce-", "content-", "access-control-", "sec-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	switch name {
	case "accept", "accept-encoding", "authorization", "connection", "cookie", "date", "expect", "forwarded", "host",
		"keep-alive", "te", "trailer", "transfer-encoding", "traceparent", "tracestate", "upgrade", "user-agent", "via":
		return true
	}
	return false
}

// isToken reports whether a name is a token (RFC 9110, section 5.6.2).
func isToken(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool {
		letterOrDigit := r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		return !letterOrDigit && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}
