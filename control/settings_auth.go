package control

import (
	"context"
	"strconv"
	"strings"

	"github.com/postrider/postrider/internal/registry"
)

// Bounds of credentials, in bytes.
const (
	maxBearer   = 4096
	maxUsername = 255
	maxPassword = 1024
	maxClientID = 255
	maxScopes   = 50
	maxScope    = 255
	maxAudience = 2048
)

type authSettings struct {
	Bearer *bearerSettings `json:"bearer,omitempty"`
	Basic  *basicSettings  `json:"basic,omitempty"`
	OAuth2 *oauthSettings  `json:"oauth2,omitempty" doc:"Tokens of the client credentials grant."`
}

type bearerSettings struct {
	Token string `json:"token" maxLength:"4096" doc:"Never shown again."`
}

type basicSettings struct {
	Username string `json:"username" maxLength:"255" doc:"Required; without colons."`
	Password string `json:"password,omitempty" maxLength:"1024" doc:"Never shown again. May be empty, for receivers that take a key as the name."`
}

type oauthSettings struct {
	TokenURL     string   `json:"token_url" maxLength:"2048" doc:"Where tokens are fetched; the same rules as for url."`
	ClientID     string   `json:"client_id" maxLength:"255"`
	ClientSecret string   `json:"client_secret" maxLength:"1024" doc:"Never shown again."`
	Scopes       []string `json:"scopes,omitempty" nullable:"false" maxItems:"50"`
	Audience     string   `json:"audience,omitempty" maxLength:"2048"`
	Style        string   `json:"style,omitempty" enum:"header,body" doc:"Where the client's credentials stand in the token request. Default header."`
}

type authPatch struct {
	Bearer *bearerPatch `json:"bearer,omitempty"`
	Basic  *basicPatch  `json:"basic,omitempty"`
	OAuth2 *oauthPatch  `json:"oauth2,omitempty"`
}

type bearerPatch struct {
	Token string `json:"token,omitempty" maxLength:"4096"`
}

type basicPatch struct {
	Username string `json:"username,omitempty" maxLength:"255"`
	Password string `json:"password,omitempty" maxLength:"1024" nullable:"true"`
}

type oauthPatch struct {
	TokenURL     string   `json:"token_url,omitempty" maxLength:"2048"`
	ClientID     string   `json:"client_id,omitempty" maxLength:"255"`
	ClientSecret string   `json:"client_secret,omitempty" maxLength:"1024"`
	Scopes       []string `json:"scopes,omitempty" nullable:"true" maxItems:"50"`
	Audience     string   `json:"audience,omitempty" maxLength:"2048" nullable:"true"`
	Style        string   `json:"style,omitempty" enum:"header,body" nullable:"true"`
}

func authOf(a *registry.Auth) *authSettings {
	if a == nil {
		return nil
	}
	set := &authSettings{}
	if a.Bearer != nil {
		set.Bearer = &bearerSettings{Token: a.Bearer.Token}
	}
	if a.Basic != nil {
		set.Basic = &basicSettings{Username: a.Basic.Username, Password: a.Basic.Password}
	}
	if o := a.OAuth2; o != nil {
		set.OAuth2 = &oauthSettings{
			TokenURL: o.TokenURL, ClientID: o.ClientID, ClientSecret: o.ClientSecret, Scopes: o.Scopes, Audience: o.Audience, Style: o.Style,
		}
	}
	return set
}

// auth takes up one kind of credentials.
func (k *keeper) auth(set authSettings) *registry.Auth {
	var kinds int
	for _, given := range []bool{set.Bearer != nil, set.Basic != nil, set.OAuth2 != nil} {
		if given {
			kinds++
		}
	}
	if kinds != 1 {
		k.fault("/auth", "has %d kinds of credentials, want one of bearer, basic and oauth2; null removes one", kinds)
		return nil
	}
	had := registry.Auth{}
	if k.e.Auth != nil {
		had = *k.e.Auth
	}
	switch {
	case set.Bearer != nil:
		return &registry.Auth{Bearer: k.bearer(*set.Bearer, had.Bearer)}
	case set.Basic != nil:
		return &registry.Auth{Basic: k.basic(*set.Basic, had.Basic)}
	default:
		return &registry.Auth{OAuth2: k.oauth2(*set.OAuth2, had.OAuth2)}
	}
}

func (k *keeper) bearer(set bearerSettings, had *registry.Bearer) *registry.Bearer {
	at := place{pointer: "/auth/bearer/token", field: registry.FieldBearer}
	if had != nil {
		at.kept = had.Token
	}
	return &registry.Bearer{Token: k.secret(at, set.Token, length(1, maxBearer, visible, "visible ASCII characters"))}
}

func (k *keeper) basic(set basicSettings, had *registry.Basic) *registry.Basic {
	at := place{pointer: "/auth/basic/password", field: registry.FieldBasic}
	if had != nil {
		at.kept = had.Password
	}
	name := func(r rune) bool { return noControl(r) && r != ':' }
	return &registry.Basic{
		Username: k.plain("/auth/basic/username", set.Username, length(1, maxUsername, name, "characters but colons and control characters")),
		Password: k.secret(at, set.Password, length(0, maxPassword, noControl, "characters but control characters")),
	}
}

func (k *keeper) oauth2(set oauthSettings, had *registry.OAuth2) *registry.OAuth2 {
	const at, ascii = "/auth/oauth2", "printable ASCII characters"
	secret := place{pointer: at + "/client_secret", field: registry.FieldOAuth2}
	if had != nil {
		secret.kept = had.ClientSecret
	}
	k.faults = append(k.faults, moved(at+"/token_url", k.s.checkURL(set.TokenURL))...)
	if len(set.Scopes) > maxScopes {
		k.fault(at+"/scopes", "has %d scopes, at most %d are allowed", len(set.Scopes), maxScopes)
	}
	scope := func(r rune) bool { return visible(r) && r != '"' && r != '\\' }
	for i, text := range set.Scopes {
		k.plain(at+"/scopes/"+strconv.Itoa(i), text, length(1, maxScope, scope, `visible ASCII characters but " and \`))
	}
	if set.Style != "" && set.Style != "header" && set.Style != registry.OAuthBody {
		k.fault(at+"/style", "want header or body")
	}
	return &registry.OAuth2{
		TokenURL:     set.TokenURL,
		ClientID:     k.plain(at+"/client_id", set.ClientID, length(1, maxClientID, printable, ascii)),
		ClientSecret: k.secret(secret, set.ClientSecret, length(1, maxPassword, printable, ascii)),
		Scopes:       set.Scopes,
		Audience:     k.plain(at+"/audience", set.Audience, length(0, maxAudience, printable, ascii)),
		Style:        set.Style,
	}
}

// moved returns faults of a URL as those of another place.
func moved(pointer string, faults []fault) []fault {
	for i := range faults {
		faults[i].pointer = pointer
	}
	return faults
}

// checkTokenHost is checkHost for the token URL of the settings, if they have one.
func (s *Server) checkTokenHost(ctx context.Context, raw string) []fault {
	if raw == "" {
		return nil
	}
	return moved("/auth/oauth2/token_url", s.checkHost(ctx, raw))
}

func (set *ReceiverSettings) tokenURL() string {
	if set.Auth == nil || set.Auth.OAuth2 == nil {
		return ""
	}
	return set.Auth.OAuth2.TokenURL
}

func (p *ReceiverPatch) tokenURL() string {
	if p.Auth == nil || p.Auth.OAuth2 == nil {
		return ""
	}
	return p.Auth.OAuth2.TokenURL
}

// hideReceiver is Receiver.Redacted for the audit, which has no queries either.
func hideReceiver(r registry.Receiver) registry.Receiver {
	r = r.Redacted("redacted")
	if r.Auth != nil && r.Auth.OAuth2 != nil {
		r.Auth.OAuth2.TokenURL, _, _ = strings.Cut(r.Auth.OAuth2.TokenURL, "?")
	}
	return r
}
