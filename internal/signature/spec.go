package signature

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// The schemes.
const (
	// SchemeStandard is Standard Webhooks, the default.
	SchemeStandard = "standard"
	// SchemeCustom is an HMAC in the form that the other fields of a Spec say.
	SchemeCustom = "custom"
	// SchemeStripe is the form of Stripe: Stripe-Signature.
	SchemeStripe = "stripe"
	// SchemeGitHub is the form of GitHub: X-Hub-Signature-256 and X-Hub-Signature.
	SchemeGitHub = "github"
	// SchemeShopify is the form of Shopify: X-Shopify-Hmac-Sha256.
	SchemeShopify = "shopify"
	// SchemeSlack is the form of Slack: X-Slack-Signature.
	SchemeSlack = "slack"
)

// Bounds of the fields of a Spec, in bytes.
const (
	maxName      = 64
	maxPrefix    = 64
	maxStart     = 128
	maxSeparator = 8
	maxTemplate  = 256
)

// Spec says how requests are signed. The zero Spec is Standard Webhooks. All
// fields but Scheme belong to SchemeCustom: a preset sets them itself, and the
// standard scheme has none.
type Spec struct {
	// Scheme is one of the schemes above; "" means SchemeStandard.
	Scheme string
	// Header is the name of the header with the signatures. Required.
	Header string
	// Algorithm is the hash of the HMAC: sha256 (the default), sha1 or sha512.
	Algorithm string
	// Encoding is how a signature is written: hex (lower case, the default),
	// base64 (with padding) or base64url (without).
	Encoding string
	// Prefix stands before each signature.
	Prefix string
	// Start stands once, before the first prefix. In it, {id} and {timestamp} are
	// replaced.
	Start string
	// Separator stands between the signatures of several live secrets. Without
	// one, the newest secret alone signs.
	Separator string
	// Template is what is signed, with {body} exactly once; "" means the
	// template of Standard Webhooks, {id}.{timestamp}.{body}.
	Template string
	// TimestampHeader names a header for the time in Unix seconds, beside
	// webhook-timestamp; "" is none.
	TimestampHeader string
	// IDHeader names a header for the webhook id, beside webhook-id; "" is none.
	IDHeader string
	// TypeHeader names a header for the event's type; "" is none.
	TypeHeader string
}

// Fault is one thing that is wrong with a Spec: the field, in snake case, and
// what.
type Fault struct{ Field, Detail string }

// SpecError says all that is wrong with a Spec.
type SpecError struct{ Faults []Fault }

// Error implements error.
func (e *SpecError) Error() string {
	texts := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		texts[i] = f.Field + " " + f.Detail
	}
	return "signing: " + strings.Join(texts, "; ")
}

// preset returns what a preset stands for, and false if the name is none.
func preset(name string) (specs []Spec, ok bool) {
	switch name {
	case SchemeStripe:
		return []Spec{{Header: "Stripe-Signature", Start: "t={timestamp},", Prefix: "v1=", Separator: ",", Template: "{timestamp}.{body}"}}, true
	case SchemeGitHub:
		return []Spec{
			{Header: "X-Hub-Signature-256", Prefix: "sha256=", Template: "{body}", IDHeader: "X-GitHub-Delivery", TypeHeader: "X-GitHub-Event"},
			{Header: "X-Hub-Signature", Algorithm: "sha1", Prefix: "sha1=", Template: "{body}"},
		}, true
	case SchemeShopify:
		return []Spec{{
			Header: "X-Shopify-Hmac-Sha256", Encoding: "base64", Template: "{body}",
			IDHeader: "X-Shopify-Webhook-Id", TypeHeader: "X-Shopify-Topic",
		}}, true
	case SchemeSlack:
		return []Spec{{Header: "X-Slack-Signature", Prefix: "v0=", Template: "v0:{timestamp}:{body}", TimestampHeader: "X-Slack-Request-Timestamp"}}, true
	}
	return nil, false
}

// strays are the fields that are set although the scheme sets them itself.
func (s Spec) strays() (faults []Fault) {
	why := "is not for the scheme " + s.Scheme + ": leave it out (in a patch: null), or use the scheme " + SchemeCustom
	for _, f := range []struct{ name, value string }{
		{"header", s.Header},
		{"algorithm", s.Algorithm},
		{"encoding", s.Encoding},
		{"prefix", s.Prefix},
		{"start", s.Start},
		{"separator", s.Separator},
		{"template", s.Template},
		{"timestamp_header", s.TimestampHeader},
		{"id_header", s.IDHeader},
		{"type_header", s.TypeHeader},
	} {
		if f.value != "" {
			faults = append(faults, Fault{f.name, why})
		}
	}
	return faults
}

// New prepares a Spec for signing. Its error is a *SpecError.
func New(spec Spec) (*Scheme, error) {
	if spec.Scheme == SchemeCustom {
		f, faults := spec.compile()
		faults = append(faults, spec.headerFaults()...)
		if len(faults) > 0 {
			return nil, &SpecError{faults}
		}
		return newScheme(spec, f), nil
	}
	strays := spec.strays()
	s := shared().presets[spec.Scheme]
	switch spec.Scheme {
	case "":
		if len(strays) > 0 {
			return nil, &SpecError{[]Fault{{"scheme", "is required beside other fields: " + SchemeCustom + " takes them"}}}
		}
		s = shared().standard
	case SchemeStandard:
		s = shared().standard
	}
	switch {
	case s == nil:
		return nil, &SpecError{[]Fault{{"scheme", "want one of " + strings.Join(Schemes(), ", ")}}}
	case len(strays) > 0:
		return nil, &SpecError{strays}
	}
	return s, nil
}

// Schemes returns the names of the schemes, the default first.
func Schemes() []string {
	return []string{SchemeStandard, SchemeCustom, SchemeStripe, SchemeGitHub, SchemeShopify, SchemeSlack}
}

// compile prepares the fields of a custom scheme, or says what is wrong with them.
func (s Spec) compile() (f form, faults []Fault) {
	fault := func(name string, err error) {
		if err != nil {
			faults = append(faults, Fault{name, err.Error()})
		}
	}
	var err error
	f.algorithm, err = algorithmOf(s.Algorithm)
	fault("algorithm", err)
	f.encoding, err = encodingOf(s.Encoding)
	fault("encoding", err)
	f.header, f.prefix, f.separator = http.CanonicalHeaderKey(s.Header), s.Prefix, s.Separator
	fault("prefix", checkText(s.Prefix, maxPrefix, s.Start == ""))
	fault("separator", checkSeparator(s.Separator))
	if s.Separator != "" && strings.Contains(s.Prefix, s.Separator) {
		faults = append(faults, Fault{"prefix", "contains the separator"})
	}
	f.start, err = parseStart(s.Start)
	fault("start", err)
	f.before, f.after, err = parseSigned(s.Template)
	fault("template", err)
	return f, faults
}

// parseSigned reads what is signed: the pieces before and after the body.
func parseSigned(text string) (before, after []piece, err error) {
	if text == "" {
		text = standardTemplate
	}
	if len(text) > maxTemplate {
		return nil, nil, fmt.Errorf("has %d bytes, at most %d are allowed", len(text), maxTemplate)
	}
	if !printable(strings.ReplaceAll(text, "\n", " ")) {
		return nil, nil, errors.New("has characters that are neither printable ASCII nor line feeds")
	}
	pieces, err := parseTemplate(text)
	if err != nil {
		return nil, nil, err
	}
	isBody := func(p piece) bool { return p.field == fieldBody }
	at := slices.IndexFunc(pieces, isBody)
	if at < 0 || slices.ContainsFunc(pieces[at+1:], isBody) {
		return nil, nil, errors.New("must contain {body}, once")
	}
	return pieces[:at], pieces[at+1:], nil
}

func parseStart(text string) ([]piece, error) {
	if err := checkText(text, maxStart, true); err != nil {
		return nil, err
	}
	pieces, err := parseTemplate(text)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(pieces, func(p piece) bool { return p.field == fieldBody }) {
		return nil, errors.New("can't contain {body}: it is a header")
	}
	return pieces, nil
}

// checkText checks a part of a header's value; what begins the value must not
// begin with a blank, which would be lost on the way.
func checkText(text string, limit int, begins bool) error {
	switch {
	case len(text) > limit:
		return fmt.Errorf("has %d bytes, at most %d are allowed", len(text), limit)
	case !printable(text):
		return errors.New("has characters that are not printable ASCII")
	case begins && strings.HasPrefix(text, " "):
		return errors.New("begins with a blank")
	}
	return nil
}

// checkSeparator keeps what may stand in a signature out of what separates two.
func checkSeparator(text string) error {
	if err := checkText(text, maxSeparator, false); err != nil {
		return err
	}
	inSignature := func(r rune) bool {
		return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("+/=-_", r)
	}
	if strings.ContainsFunc(text, inSignature) {
		return errors.New("has characters that may stand in a signature")
	}
	return nil
}

func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}
