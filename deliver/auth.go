package deliver

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/oauth"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// classOAuth is the error class of an attempt that got no token.
const classOAuth egress.Class = "oauth"

// extras are what an endpoint's requests have beside the standard body and the
// signature. They never change.
type extras struct {
	content content
	method  string         // of requests; see httpMethod
	fields  []egress.Field // of two with the same name the first counts
	tls     *egress.TLS
	// client gets the tokens that requests carry; nil: they carry none. Its tokens
	// are known under clientKey, which is another one for any other setting.
	client    *oauth.Client
	clientKey string
}

// httpMethod returns the method of requests, POST unless the endpoint says PUT.
func (x *extras) httpMethod() string { return cmp.Or(x.method, http.MethodPost) }

// sealer unseals credentials and makes tokens.
type sealer interface {
	opener
	tokenSealer
}

// target prepares a version of an endpoint for one of its shards.
func (w *Worker) target(e *registry.Endpoint, offset int64, shard int) (*target, error) {
	t, err := newTarget(e, offset, shard, w.deps.Sealer, w.cfg.MaxAge)
	if err != nil {
		return nil, err
	}
	keep := cmp.Or(w.deps.Broker.Retention.Events, 7*24*time.Hour)
	t.extras, err = newExtras(e, w.deps.Sealer, &thinConfig{seal: w.deps.Sealer, publicURL: w.cfg.PublicURL, keep: keep})
	if err != nil {
		return nil, err
	}
	return t, nil
}

func newExtras(e *registry.Endpoint, seal opener, thin *thinConfig) (extras, error) {
	x := extras{method: e.Method}
	var err error
	if x.content, err = newContent(e, thin); err != nil {
		return x, err
	}
	open := func(sealed, field string) string {
		plain, cause := seal.Open(sealed, e.Tenant, e.ID, field)
		if cause != nil && err == nil {
			err = fmt.Errorf("endpoint %s: unseal %s: %w", e.ID, field, cause)
		}
		return string(plain)
	}
	if e.Auth != nil {
		x.authenticate(e, open)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
		h := e.Headers[name]
		if h.Sealed != "" {
			h.Value = open(h.Sealed, registry.HeaderField(name))
		}
		x.add(http.CanonicalHeaderKey(name), h.Value)
	}
	if e.TLS != nil {
		key := ""
		if e.TLS.Key != "" {
			key = open(e.TLS.Key, registry.FieldTLSKey)
		}
		if err == nil {
			if x.tls, err = egress.NewTLS([]byte(e.TLS.Certificate), []byte(key), []byte(e.TLS.CA)); err != nil {
				err = fmt.Errorf("endpoint %s: %w", e.ID, err)
			}
		}
	}
	if err == nil && x.client != nil && x.client.TokenURL == nil {
		err = fmt.Errorf("endpoint %s: its token url can't be parsed", e.ID)
	}
	return x, err
}

// authenticate takes up the credentials. An error of open is the caller's.
func (x *extras) authenticate(e *registry.Endpoint, open func(sealed, field string) string) {
	switch a := e.Auth; {
	case a.Bearer != nil:
		x.add("Authorization", "Bearer "+open(a.Bearer.Token, registry.FieldBearer))
	case a.Basic != nil:
		pair := a.Basic.Username + ":" + open(a.Basic.Password, registry.FieldBasic)
		x.add("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
	case a.OAuth2 != nil:
		o := a.OAuth2
		address, _ := url.Parse(o.TokenURL) // nil is noticed by the caller
		x.client = &oauth.Client{
			TokenURL: address, ID: o.ClientID, Secret: open(o.ClientSecret, registry.FieldOAuth2),
			Scopes: o.Scopes, Audience: o.Audience, InBody: o.Style == registry.OAuthBody,
		}
		x.clientKey = clientKey(e, o)
	}
}

func (x *extras) add(name, value string) {
	x.fields = append(x.fields, egress.Field{Name: name, Value: value})
}

// clientKey is the endpoint and a hash of its client's settings. A secret that is
// set anew is sealed anew, so the sealed one stands for it.
func clientKey(e *registry.Endpoint, o *registry.OAuth2) string {
	doc, _ := json.Marshal(o) //nolint:gosec // the secret is sealed; texts always marshal
	sum := sha256.Sum256(doc)
	return e.ID + string(sum[:])
}

// decorate adds the headers of the endpoint and of the body. None of the
// endpoint's takes the place of one of ours.
func (x *extras) decorate(r *request, d *schemas.Delivery) {
	x.content.describe(r, d)
	for _, f := range x.fields {
		if r.field(f.Name) == nil {
			r.add(f.Name, f.Value)
		}
	}
}

// exchange sends the request of an attempt, with a token where the endpoint wants
// one. The fetch of a token counts against the attempt's time.
func (w *Worker) exchange(ctx context.Context, t *target, req *egress.Request) egress.Result {
	if t.client == nil {
		return w.deps.Egress.Do(ctx, req)
	}
	begun := time.Now()
	bounded, cancel := context.WithTimeout(ctx, req.Timeout)
	defer cancel()
	token, failed := w.tokens.Token(bounded, t.clientKey, t.client)
	took := time.Since(begun)
	if failed == nil && took >= req.Timeout {
		failed = &oauth.Error{Exchange: &egress.Error{Class: egress.ClassTimeout, Timeout: true}, Detail: "the token took all of the time"}
	}
	if failed != nil {
		return egress.Result{Err: tokenError(failed), Duration: took}
	}
	(*request)(req).Set("Authorization", "Bearer "+token)
	req.Timeout -= took
	res := w.deps.Egress.Do(ctx, req)
	res.Duration += took
	switch res.Status {
	case 0:
	case http.StatusUnauthorized:
		w.tokens.Refused(t.clientKey, token)
	default:
		w.tokens.Taken(t.clientKey, token)
	}
	return res
}

// tokenError makes the failure to get a token one of the attempt. What is not the
// token endpoint's doing stays what it is.
func tokenError(failed *oauth.Error) *egress.Error {
	cause := failed.Exchange
	if cause != nil && (cause.Class == egress.ClassLocal || cause.Class == egress.ClassCanceled) {
		return cause
	}
	return &egress.Error{Class: classOAuth, Timeout: cause != nil && cause.Timeout, Detail: failed.Error()}
}
