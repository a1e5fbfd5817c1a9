package registry

// Receiver says how an endpoint wants its requests: method, body, credentials.
// The zero value is POST, the standard body, and nothing else.
type Receiver struct {
	// Method is POST or PUT; empty means POST.
	Method string `json:"method,omitempty"`
	// Format is the form of the body; empty means [FormatStandard].
	Format Format `json:"format,omitempty"`
	// Compression is "gzip", or empty for none.
	Compression string `json:"compression,omitempty"`
	// Auth is how requests are authenticated beside their signature; nil: not.
	Auth *Auth `json:"auth,omitempty"`
	// Headers are sent with every request, by name.
	Headers map[string]Header `json:"headers,omitempty"`
	// TLS has what the connection needs beyond the defaults; nil: nothing.
	TLS *TLS `json:"tls,omitempty"`
}

// CompressionGzip has bodies sent with Content-Encoding: gzip.
const CompressionGzip = "gzip"

// Format is the form of the body that an endpoint gets.
type Format string

// The formats.
const (
	// FormatStandard is {"type", "timestamp", "data"} for JSON data and the
	// payload as it came for anything else.
	FormatStandard Format = "standard"
	// FormatStructured is a CloudEvent in structured mode: one JSON document.
	FormatStructured Format = "cloudevents_structured"
	// FormatBinary is a CloudEvent in binary mode: attributes in ce-* headers.
	FormatBinary Format = "cloudevents_binary"
	// FormatRaw is the payload as it came.
	FormatRaw Format = "raw"
	// FormatThin is {"type", "id", "url"}: the receiver fetches the event.
	FormatThin Format = "thin"
)

// Auth holds one kind of credentials; the others are nil.
type Auth struct {
	Bearer *Bearer `json:"bearer,omitempty"`
	Basic  *Basic  `json:"basic,omitempty"`
	OAuth2 *OAuth2 `json:"oauth2,omitempty"`
}

// Bearer is a fixed token (RFC 6750), sealed under [FieldBearer].
type Bearer struct {
	Token string `json:"token"`
}

// Basic is a name and a password (RFC 7617), the latter sealed under
// [FieldBasic].
type Basic struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// OAuth2 are the client credentials (RFC 6749, section 4.4) with which tokens
// are fetched; the secret is sealed under [FieldOAuth2].
type OAuth2 struct {
	TokenURL     string   `json:"token_url"`
	ClientID     string   `json:"client_id"`
	ClientSecret string   `json:"client_secret"`
	Scopes       []string `json:"scopes,omitempty"`
	Audience     string   `json:"audience,omitempty"`
	// Style says where the credentials stand: "header" (the default) or "body".
	Style string `json:"style,omitempty"`
}

// OAuthBody is the style that puts client credentials into the body.
const OAuthBody = "body"

// Header is the value of a header of every request: plain, or sealed under
// [HeaderField].
type Header struct {
	Value  string `json:"value,omitempty"`
	Sealed string `json:"sealed,omitempty"`
}

// TLS is a client certificate, with its key sealed under [FieldTLSKey], and the
// authorities trusted instead of the system's. All are PEM.
type TLS struct {
	Certificate string `json:"client_certificate,omitempty"`
	Key         string `json:"client_key,omitempty"`
	CA          string `json:"ca,omitempty"`
}

// Names of the sealed fields of a Receiver for [Sealer].
const (
	FieldBearer = "auth.bearer.token" //nolint:gosec // a field's name
	FieldBasic  = "auth.basic.password"
	FieldOAuth2 = "auth.oauth2.client_secret"
	FieldTLSKey = "tls.client_key"
)

// HeaderField names the sealed value of a header for [Sealer].
func HeaderField(name string) string { return "headers." + name }

// Redacted returns the settings with what is secret replaced by the text.
func (r Receiver) Redacted(text string) Receiver {
	if r.Auth != nil {
		r.Auth = r.Auth.redacted(text)
	}
	if r.TLS != nil && r.TLS.Key != "" {
		hidden := *r.TLS
		hidden.Key = text
		r.TLS = &hidden
	}
	if r.Headers != nil {
		headers := make(map[string]Header, len(r.Headers))
		for name, h := range r.Headers {
			if h.Sealed != "" {
				h.Sealed = text
			}
			headers[name] = h
		}
		r.Headers = headers
	}
	return r
}

func (a Auth) redacted(text string) *Auth {
	if a.Bearer != nil {
		a.Bearer = &Bearer{Token: text}
	}
	if a.Basic != nil {
		a.Basic = &Basic{Username: a.Basic.Username, Password: text}
	}
	if a.OAuth2 != nil {
		hidden := *a.OAuth2
		hidden.ClientSecret = text
		a.OAuth2 = &hidden
	}
	return &a
}
