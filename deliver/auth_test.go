package deliver

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/oauth"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/testkit"
	"github.com/postrider/postrider/schemas"
)

// receiverRow is one field of registry.Receiver, or some that go together (with
// blanks between them), and what they do to a request.
type receiverRow struct {
	fields string
	change func(t *testing.T, seal *registry.Sealer, e *registry.Endpoint)
	want   func(t *testing.T, x *target, req *egress.Request)
}

func sealed(t *testing.T, seal *registry.Sealer, text, field string) string {
	t.Helper()
	out, err := seal.Seal([]byte(text), "acme", "ep_1", field)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func hasHeader(name, value string) func(*testing.T, *target, *egress.Request) {
	return func(t *testing.T, _ *target, req *egress.Request) {
		t.Helper()
		if diff := cmp.Diff([]string{value}, headerOf(req)[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func receiverRows() []receiverRow {
	oauth2 := func(change func(*registry.OAuth2)) func(*testing.T, *registry.Sealer, *registry.Endpoint) {
		return func(t *testing.T, seal *registry.Sealer, e *registry.Endpoint) {
			o := &registry.OAuth2{TokenURL: "https://id.example/token", ClientID: "c", ClientSecret: sealed(t, seal, "s", registry.FieldOAuth2)}
			change(o)
			e.Auth = &registry.Auth{OAuth2: o}
		}
	}
	client := func(want oauth.Client) func(*testing.T, *target, *egress.Request) {
		want.TokenURL = &url.URL{Scheme: "https", Host: "id.example", Path: "/token"}
		want.ID, want.Secret = "c", "s"
		return func(t *testing.T, x *target, _ *egress.Request) {
			if diff := cmp.Diff(&want, x.client); diff != "" {
				t.Errorf("client (-want +got):\n%s", diff)
			}
		}
	}
	return []receiverRow{
		{"Method", func(_ *testing.T, _ *registry.Sealer, e *registry.Endpoint) { e.Method = "PUT" }, func(t *testing.T, _ *target, req *egress.Request) {
			if req.Method != http.MethodPut {
				t.Errorf("method %s", req.Method)
			}
		}},
		{"Format", func(_ *testing.T, _ *registry.Sealer, e *registry.Endpoint) { e.Format = registry.FormatBinary }, hasHeader("Ce-Type", "order.paid")},
		{"Compression", func(_ *testing.T, _ *registry.Sealer, e *registry.Endpoint) { e.Compression = "gzip" }, hasHeader("Content-Encoding", "gzip")},
		{"Auth.Bearer.Token", func(t *testing.T, seal *registry.Sealer, e *registry.Endpoint) {
			e.Auth = &registry.Auth{Bearer: &registry.Bearer{Token: sealed(t, seal, "abc", registry.FieldBearer)}}
		}, hasHeader("Authorization", "Bearer abc")},
		{"Auth.Basic.Username Auth.Basic.Password", func(t *testing.T, seal *registry.Sealer, e *registry.Endpoint) {
			e.Auth = &registry.Auth{Basic: &registry.Basic{Username: "jo", Password: sealed(t, seal, "ä:b", registry.FieldBasic)}}
		}, hasHeader("Authorization", "Basic am86w6Q6Yg==")},
		{"Auth.OAuth2.TokenURL Auth.OAuth2.ClientID Auth.OAuth2.ClientSecret", oauth2(func(*registry.OAuth2) {}), client(oauth.Client{})},
		{"Auth.OAuth2.Scopes", oauth2(func(o *registry.OAuth2) { o.Scopes = []string{"a"} }), client(oauth.Client{Scopes: []string{"a"}})},
		{"Auth.OAuth2.Audience", oauth2(func(o *registry.OAuth2) { o.Audience = "b" }), client(oauth.Client{Audience: "b"})},
		{"Auth.OAuth2.Style", oauth2(func(o *registry.OAuth2) { o.Style = "body" }), client(oauth.Client{InBody: true})},
		{"Headers.Value", func(_ *testing.T, _ *registry.Sealer, e *registry.Endpoint) {
			e.Headers = map[string]registry.Header{"x-team": {Value: "a"}, "Webhook-Id": {Value: "forged"}, "User-Agent": {Value: "me"}}
		}, func(t *testing.T, _ *target, req *egress.Request) {
			hasHeader("X-Team", "a")(t, nil, req)
			hasHeader("User-Agent", "me")(t, nil, req)
			hasHeader("Webhook-Id", "evt_1")(t, nil, req)
		}},
		{"Headers.Sealed", func(t *testing.T, seal *registry.Sealer, e *registry.Endpoint) {
			e.Headers = map[string]registry.Header{"X-Key": {Sealed: sealed(t, seal, "k", registry.HeaderField("X-Key"))}}
		}, hasHeader("X-Key", "k")},
		{"TLS.Certificate TLS.Key", func(t *testing.T, seal *registry.Sealer, e *registry.Endpoint) {
			cert, key := testkit.NewCA(t).Issue(t, "client")
			e.TLS = &registry.TLS{Certificate: string(cert), Key: sealed(t, seal, string(key), registry.FieldTLSKey)}
		}, hasTLS},
		{"TLS.CA", func(t *testing.T, _ *registry.Sealer, e *registry.Endpoint) {
			e.TLS = &registry.TLS{CA: string(testkit.NewCA(t).PEM)}
		}, hasTLS},
	}
}

// hasTLS: what TLS settings do to a connection is in egress's tests.
func hasTLS(t *testing.T, _ *target, req *egress.Request) {
	t.Helper()
	if req.TLS == nil {
		t.Error("no TLS settings")
	}
}

// settings returns the fields of a struct, and of those in it behind pointers and in
// maps, that hold a setting.
func settings(of reflect.Type, prefix string) (names []string) {
	for f := range of.Fields() {
		in := f.Type
		if in.Kind() == reflect.Pointer || in.Kind() == reflect.Map {
			in = in.Elem()
		}
		if in.Kind() == reflect.Struct {
			names = append(names, settings(in, prefix+f.Name+".")...)
		} else {
			names = append(names, prefix+f.Name)
		}
	}
	return names
}

// Each field of a receiver has its effect on requests. A field without a row fails.
func TestReceiverFields(t *testing.T) {
	seal := newSealer(t)
	var shown []string
	for _, row := range receiverRows() {
		shown = append(shown, strings.Fields(row.fields)...)
		t.Run(row.fields, func(t *testing.T) {
			x := equipped(t, seal, func(e *registry.Endpoint) { row.change(t, seal, e) })
			row.want(t, x, newRequest(x, delivery("application/json", "1"), "", time.Now()))
		})
	}
	all := settings(reflect.TypeFor[registry.Receiver](), "")
	slices.Sort(all)
	slices.Sort(shown)
	if diff := cmp.Diff(all, shown); diff != "" {
		t.Errorf("fields of a receiver and rows that show their effect (-fields +rows):\n%s", diff)
	}
}

// What can't be unsealed, or is broken, is an error that names the field and shows
// nothing of it.
func TestBrokenReceiver(t *testing.T) {
	seal := newSealer(t)
	for want, change := range map[string]func(*registry.Endpoint){
		registry.FieldBearer: func(e *registry.Endpoint) { e.Auth = &registry.Auth{Bearer: &registry.Bearer{Token: "hidden"}} },
		registry.FieldBasic: func(e *registry.Endpoint) {
			e.Auth = &registry.Auth{Basic: &registry.Basic{Password: sealed(t, seal, "hidden", registry.FieldBearer)}}
		},
		registry.FieldOAuth2: func(e *registry.Endpoint) {
			e.Auth = &registry.Auth{OAuth2: &registry.OAuth2{TokenURL: "https://a", ClientSecret: "hidden"}}
		},
		"headers.X": func(e *registry.Endpoint) { e.Headers = map[string]registry.Header{"X": {Sealed: "hidden"}} },
		registry.FieldTLSKey: func(e *registry.Endpoint) {
			e.TLS = &registry.TLS{Certificate: "hidden", Key: "hidden"}
		},
		"authorities": func(e *registry.Endpoint) { e.TLS = &registry.TLS{CA: "hidden"} },
		"token url": func(e *registry.Endpoint) {
			e.Auth = &registry.Auth{OAuth2: &registry.OAuth2{TokenURL: "https://hidden\x00", ClientSecret: sealed(t, seal, "s", registry.FieldOAuth2)}}
		},
	} {
		_, err := tryEquip(seal, "", change)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// gate answers the token endpoint and the receiver.
type gate struct {
	life, takes time.Duration
	tokens      int
	tokenFails  *egress.Error
	accepts     string // the token that the receiver takes; "" takes any
	got         []string
	timeouts    []time.Duration
}

func (g *gate) Do(ctx context.Context, req *egress.Request) egress.Result {
	if req.URL.Host != "id.example" {
		given := headerOf(req).Get("Authorization")
		g.got, g.timeouts = append(g.got, given), append(g.timeouts, req.Timeout)
		if g.accepts != "" && given != "Bearer "+g.accepts {
			return egress.Result{Status: http.StatusUnauthorized}
		}
		return egress.Result{Status: http.StatusNoContent}
	}
	g.tokens++
	select {
	case <-ctx.Done():
	case <-time.After(min(g.takes, req.Timeout)):
	}
	switch {
	case g.tokenFails != nil:
		return egress.Result{Err: g.tokenFails}
	case g.takes > req.Timeout:
		return egress.Result{Err: &egress.Error{Class: egress.ClassTimeout, Timeout: true}}
	}
	return egress.Result{Status: 200, Body: fmt.Appendf(nil, `{"access_token":"t%d","expires_in":%d}`, g.tokens, int(g.life.Seconds()))}
}

// oauthRig is a worker with one endpoint that wants tokens.
type oauthRig struct {
	*gate
	w *Worker
	x *target
}

func newOAuthRig(t *testing.T, g *gate) *oauthRig {
	t.Helper()
	tokens, err := oauth.New(g, 10)
	if err != nil {
		t.Fatal(err)
	}
	seal := newSealer(t)
	x := equipped(t, seal, func(e *registry.Endpoint) {
		e.Timeout = registry.Duration(4 * time.Second)
		e.Auth = &registry.Auth{OAuth2: &registry.OAuth2{TokenURL: "https://id.example/t", ClientSecret: sealed(t, seal, "s", registry.FieldOAuth2)}}
	})
	return &oauthRig{g, &Worker{deps: Deps{Egress: g}, tokens: tokens}, x}
}

func (r *oauthRig) attempt(t *testing.T) egress.Result {
	t.Helper()
	return r.w.exchange(t.Context(), r.x, newRequest(r.x, delivery("", "1"), "", time.Now()))
}

// Attempts carry the token that is kept; its fetch counts against their time.
func TestExchangeWithToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newOAuthRig(t, &gate{life: time.Hour, takes: time.Second})
		if res := r.attempt(t); res.Err != nil || res.Duration != time.Second {
			t.Errorf("first: %+v", res)
		}
		r.attempt(t)
		<-time.After(time.Hour)
		r.attempt(t)
		if diff := cmp.Diff([]string{"Bearer t1", "Bearer t1", "Bearer t2"}, r.got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]time.Duration{3 * time.Second, 4 * time.Second, 3 * time.Second}, r.timeouts); diff != "" {
			t.Errorf("timeouts (-want +got):\n%s", diff)
		}
	})
}

// A token that the receiver answers with 401 is replaced by the next attempt, once.
func TestExchangeRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newOAuthRig(t, &gate{life: time.Hour, accepts: "t2"})
		for i, status := range []int{401, 204, 204} {
			if res := r.attempt(t); res.Status != status {
				t.Errorf("attempt %d: %+v", i+1, res)
			}
		}
		r.accepts = "none"
		for range 10 {
			r.attempt(t)
		}
		if r.tokens != 3 {
			t.Errorf("%d tokens were asked for, want 3", r.tokens)
		}
	})
}

// Without a token there is no request. The attempt fails as oauth, unless the
// fault is this machine's: then it did not happen.
func TestExchangeWithoutToken(t *testing.T) {
	for _, tt := range []struct {
		name    string
		gate    *gate
		class   egress.Class
		timeout bool
		undone  bool
	}{
		{"fails", &gate{tokenFails: &egress.Error{Class: egress.ClassConnectRefused, Detail: "nobody"}}, "oauth", false, false},
		{"too slow", &gate{takes: time.Minute}, "oauth", true, false},
		{"takes all the time", &gate{takes: 4 * time.Second, life: time.Hour}, "oauth", true, false},
		{"no answer that is one", &gate{life: -time.Hour}, "oauth", false, false},
		{"out of files", &gate{tokenFails: &egress.Error{Class: egress.ClassLocal}}, egress.ClassLocal, false, true},
		{"cancelled", &gate{tokenFails: &egress.Error{Class: egress.ClassCanceled}}, egress.ClassCanceled, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newOAuthRig(t, tt.gate)
				res := r.attempt(t)
				if res.Err == nil || res.Err.Class != tt.class || res.Err.Timeout != tt.timeout || len(r.got) > 0 {
					t.Errorf("%+v, requests %v", res.Err, r.got)
				}
				if v := judge(r.x, &schemas.Delivery{Attempt: 1}, &res, time.Now()); v.undone != tt.undone || !v.undone && v.outcome != schemas.OutcomeRetry {
					t.Errorf("verdict %+v", v)
				}
			})
		})
	}
}
