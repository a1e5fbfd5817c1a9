package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxSettings bounds what is read from a file of settings or of PEM, in bytes.
const maxSettings = 1 << 20

// receiverFlags are an endpoint's settings of how requests look and what they
// authenticate with; nil is "not given".
type receiverFlags struct {
	Settings          string            `placeholder:"FILE" help:"JSON file with settings as the API takes them; - is standard input. Flags win over it."`
	Method            *string           `placeholder:"POST" help:"POST or PUT."`
	Format            *string           `placeholder:"standard" help:"standard, cloudevents_structured, cloudevents_binary, raw or thin."`
	Compression       *string           `placeholder:"gzip" help:"Compress bodies: gzip."`
	Bearer            *string           `placeholder:"TOKEN" help:"Authenticate with this token. (What is secret is better in --settings.)"`
	Basic             *string           `placeholder:"NAME:PASSWORD" help:"Authenticate with a name and a password."`
	OAuthTokenURL     *string           `name:"oauth-token-url" placeholder:"URL" help:"Authenticate with tokens from there (OAuth 2.0 client credentials)."`
	OAuthClientID     *string           `name:"oauth-client-id" placeholder:"ID" help:"The client's id."`
	OAuthClientSecret *string           `name:"oauth-client-secret" placeholder:"SECRET" help:"The client's secret."`
	OAuthScopes       []string          `name:"oauth-scopes" placeholder:"SCOPE" help:"Scopes to ask for."`
	OAuthAudience     *string           `name:"oauth-audience" placeholder:"TEXT" help:"Audience to ask for."`
	OAuthStyle        *string           `name:"oauth-style" placeholder:"header" help:"Where the client's credentials stand: header or body."`
	Header            map[string]string `mapsep:"none" placeholder:"NAME=VALUE" help:"Header of every request; once for each."`
	SecretHeader      map[string]string `mapsep:"none" placeholder:"NAME=VALUE" help:"The same, never shown again."`
	TLSCert           *string           `name:"tls-cert" placeholder:"FILE" help:"PEM file of the client certificate."`
	TLSKey            *string           `name:"tls-key" placeholder:"FILE" help:"PEM file of its key."`
	TLSCA             *string           `name:"tls-ca" placeholder:"FILE" help:"PEM file of the authorities to trust instead of the system's."`
}

// add puts what was given into a body: first the flags, then what the file has
// beside them. A kind of credentials takes the place of the others in a patch.
func (f *receiverFlags) add(body settings, patch bool, std streams) error {
	body.set("method", f.Method, f.Method != nil)
	body.set("format", f.Format, f.Format != nil)
	body.set("compression", f.Compression, f.Compression != nil)
	auth, err := f.auth()
	if err != nil {
		return err
	}
	for _, kind := range []string{"bearer", "basic", "oauth2"} {
		if _, given := auth[kind]; len(auth) > 0 && !given && patch {
			auth[kind] = nil
		}
	}
	body.set("auth", auth, len(auth) > 0)
	headers := settings{}
	for name, value := range f.Header {
		headers[name] = settings{"value": value}
	}
	for name, value := range f.SecretHeader {
		headers[name] = settings{"value": value, "secret": true}
	}
	body.set("headers", headers, len(headers) > 0)
	files := settings{}
	for name, path := range map[string]*string{"client_certificate": f.TLSCert, "client_key": f.TLSKey, "ca": f.TLSCA} {
		if path == nil {
			continue
		}
		text, err := readBounded(*path, nil)
		if err != nil {
			return err
		}
		files[name] = string(text)
	}
	body.set("tls", files, len(files) > 0)
	return f.addFile(body, std)
}

func (f *receiverFlags) auth() (settings, error) {
	auth, oauth := settings{}, settings{}
	if f.Bearer != nil {
		auth["bearer"] = settings{"token": *f.Bearer}
	}
	if f.Basic != nil {
		name, password, ok := strings.Cut(*f.Basic, ":")
		if !ok {
			return nil, errors.New("--basic: want NAME:PASSWORD")
		}
		auth["basic"] = settings{"username": name, "password": password}
	}
	oauth.set("token_url", f.OAuthTokenURL, f.OAuthTokenURL != nil)
	oauth.set("client_id", f.OAuthClientID, f.OAuthClientID != nil)
	oauth.set("client_secret", f.OAuthClientSecret, f.OAuthClientSecret != nil)
	oauth.set("scopes", f.OAuthScopes, len(f.OAuthScopes) > 0)
	oauth.set("audience", f.OAuthAudience, f.OAuthAudience != nil)
	oauth.set("style", f.OAuthStyle, f.OAuthStyle != nil)
	auth.set("oauth2", oauth, len(oauth) > 0)
	if len(auth) > 1 {
		return nil, errors.New("--bearer, --basic and --oauth-… exclude each other")
	}
	return auth, nil
}

// addFile adds the members of the file of settings that the body lacks.
func (f *receiverFlags) addFile(body settings, std streams) error {
	if f.Settings == "" {
		return nil
	}
	text, err := readBounded(f.Settings, std.in)
	if err != nil {
		return err
	}
	var more map[string]json.RawMessage
	if err := json.Unmarshal(text, &more); err != nil || more == nil {
		return fmt.Errorf("--settings %s: want a JSON object", f.Settings)
	}
	for name, value := range more {
		if _, given := body[name]; !given {
			body[name] = value
		}
	}
	return nil
}

// unsetHeaders puts null for headers that a merge patch is to remove.
func (s settings) unsetHeaders(names []string) error {
	if len(names) == 0 {
		return nil
	}
	headers, ok := s["headers"].(settings)
	if _, given := s["headers"]; given && !ok {
		return errors.New("--unset-header: excludes --unset=headers and headers in --settings")
	}
	if headers == nil {
		headers = settings{}
	}
	headers.unset(names)
	s["headers"] = headers
	return nil
}

// readBounded reads a file, or the input for "-" where there is one.
func readBounded(path string, stdin io.Reader) ([]byte, error) {
	in := stdin
	if path != "-" || stdin == nil {
		file, err := os.Open(path) //nolint:gosec // the user names it
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }() // it was only read
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, maxSettings+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(text) > maxSettings {
		return nil, fmt.Errorf("%s: has more than %d bytes", path, maxSettings)
	}
	return text, nil
}
