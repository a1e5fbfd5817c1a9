package control

import (
	"fmt"
	"strings"

	"github.com/postrider/postrider/internal/registry"
)

// redactedText stands for a secret in what the API shows. Where it comes back, the
// secret stays as it is.
const redactedText = "(redacted)"

// ReceiverSettings is what can be set of how an endpoint's requests look and what
// they authenticate with.
type ReceiverSettings struct {
	Method      string                    `json:"method,omitempty" enum:"POST,PUT" doc:"Default POST."`
	Format      string                    `json:"format,omitempty" enum:"standard,cloudevents_structured,cloudevents_binary,raw,thin" doc:"The form of the body: standard ({type, timestamp, data}; the default), a CloudEvent in structured or binary mode, raw (the payload as it came), or thin ({type, id, url}: the receiver fetches the event from the url)."`
	Compression string                    `json:"compression,omitempty" enum:"gzip" doc:"Compress the body. Default: not."`
	Auth        *authSettings             `json:"auth,omitempty" doc:"Exactly one kind of credentials."`
	Headers     map[string]headerSettings `json:"headers,omitempty" maxProperties:"20" doc:"Headers of every request, by name; 8 KiB together at most."`
	TLS         *tlsSettings              `json:"tls,omitempty" doc:"A client certificate, and authorities to trust instead of the system's. For https only."`
}

// ReceiverPatch is a merge patch of ReceiverSettings.
type ReceiverPatch struct {
	Method      string       `json:"method,omitempty" enum:"POST,PUT" nullable:"true"`
	Format      string       `json:"format,omitempty" enum:"standard,cloudevents_structured,cloudevents_binary,raw,thin" nullable:"true"`
	Compression string       `json:"compression,omitempty" enum:"gzip" nullable:"true"`
	Auth        *authPatch   `json:"auth,omitempty"`
	Headers     headersPatch `json:"headers,omitempty" doc:"null for a name removes it."`
	TLS         *tlsPatch    `json:"tls,omitempty"`
}

// receiverNames are the members of a ReceiverPatch, for endpointNames.
func receiverNames(into names) names {
	into["method"], into["format"], into["compression"] = nil, nil, nil
	into["auth"] = names{
		"bearer": {"token": nil}, "basic": {"username": nil, "password": nil},
		"oauth2": {"token_url": nil, "client_id": nil, "client_secret": nil, "scopes": nil, "audience": nil, "style": nil},
	}
	into["headers"] = names{anyName: {"value": nil, "secret": nil}}
	into["tls"] = names{"client_certificate": nil, "client_key": nil, "ca": nil}
	return into
}

// receiverOf is the inverse of applyReceiver, but for what is secret.
func receiverOf(e *registry.Endpoint) ReceiverSettings {
	r := e.Redacted(redactedText)
	set := ReceiverSettings{Method: r.Method, Format: string(r.Format), Compression: r.Compression, Auth: authOf(r.Auth)}
	if r.TLS != nil {
		set.TLS = &tlsSettings{Certificate: r.TLS.Certificate, Key: r.TLS.Key, CA: r.TLS.CA}
	}
	for name, h := range r.Headers {
		if set.Headers == nil {
			set.Headers = map[string]headerSettings{}
		}
		set.Headers[name] = headerSettings{Value: h.Value + h.Sealed, Secret: h.Sealed != ""}
	}
	return set
}

// applyReceiver sets the settings on the endpoint, whose URL is set already, or
// says what is wrong with them.
func (s *Server) applyReceiver(set ReceiverSettings, e *registry.Endpoint) []fault {
	k := &keeper{s: s, e: e}
	next := registry.Receiver{Method: set.Method, Format: registry.Format(set.Format), Compression: set.Compression}
	if next.Format == registry.FormatThin && s.cfg.PublicURL == "" {
		k.fault("/format", "thin needs the gateway's setting public-url, which is not set")
	}
	if set.Auth != nil {
		next.Auth = k.auth(*set.Auth)
	}
	if len(set.Headers) > 0 {
		next.Headers = k.headers(set)
	}
	if set.TLS != nil {
		next.TLS = k.tls(*set.TLS)
	}
	e.Receiver = next
	return k.faults
}

// keeper makes the settings of an endpoint of those that it has and those that
// come: secrets that come are sealed, those that were shown as redacted are kept.
type keeper struct {
	s      *Server
	e      *registry.Endpoint
	faults []fault
}

func (k *keeper) fault(pointer, format string, args ...any) {
	k.faults = append(k.faults, fault{pointer: pointer, detail: fmt.Sprintf(format, args...)})
}

// place is where a secret stands in the request and under which field it is
// sealed; kept is the one that the endpoint has, sealed, or empty.
type place struct{ pointer, field, kept string }

// secret returns the text sealed, after rule found nothing wrong with it, or the
// secret that the endpoint has. The text is never part of a fault.
func (k *keeper) secret(at place, text string, rule func(string) string) string {
	if text == redactedText {
		if at.kept == "" {
			k.fault(at.pointer, "%s stands for a secret that is not shown, and there is none: give it", redactedText)
		}
		return at.kept
	}
	if wrong := rule(text); wrong != "" {
		k.fault(at.pointer, "%s", wrong)
		return ""
	}
	sealed, err := k.s.deps.Sealer.Seal([]byte(text), k.e.Tenant, k.e.ID, at.field)
	if err != nil {
		k.fault(at.pointer, "can't be sealed")
	}
	return sealed
}

// plain checks a text that is no secret.
func (k *keeper) plain(pointer, text string, rule func(string) string) string {
	if wrong := rule(text); wrong != "" {
		k.fault(pointer, "%s", wrong)
	}
	return text
}

// length is a rule of how long a text may be, and of what it may be made.
func length(least, most int, allowed func(rune) bool, what string) func(string) string {
	return func(s string) string {
		switch {
		case s == "" && least > 0:
			return "is required"
		case len(s) < least || len(s) > most:
			return fmt.Sprintf("has %d bytes, %d to %d are allowed", len(s), least, most)
		case strings.ContainsFunc(s, func(r rune) bool { return !allowed(r) }):
			return "only " + what + " are allowed"
		}
		return ""
	}
}

func visible(r rune) bool   { return r > ' ' && r < 0x7f }
func printable(r rune) bool { return r >= ' ' && r < 0x7f }
func noControl(r rune) bool { return r >= ' ' && r != 0x7f && r != '�' }
