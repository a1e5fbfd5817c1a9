package oauth

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/postrider/postrider/internal/egress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a token endpoint: its n-th token is "t<n>".
type server struct {
	mu    sync.Mutex
	life  int           // expires_in, in seconds
	takes time.Duration // per request
	fails *egress.Result
	seen  []*egress.Request
	now   int // requests under way
	most  int // at once
}

func (s *server) Do(ctx context.Context, req *egress.Request) egress.Result {
	s.mu.Lock()
	s.seen = append(s.seen, req)
	n, fails, takes := len(s.seen), s.fails, s.takes
	s.now++
	s.most = max(s.most, s.now)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.now--
		s.mu.Unlock()
	}()
	select {
	case <-ctx.Done():
		return egress.Result{Err: &egress.Error{Class: egress.ClassCanceled}}
	case <-time.After(min(takes, req.Timeout)):
	}
	switch {
	case takes > req.Timeout:
		return egress.Result{Err: &egress.Error{Class: egress.ClassTimeout, Timeout: true, Detail: "no complete response in time"}}
	case fails != nil:
		return *fails
	}
	return egress.Result{Status: 200, Body: fmt.Appendf(nil, `{"access_token":"t%d","token_type":"bearer","expires_in":%d}`, n, s.life)}
}

func (s *server) set(change func(*server)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *server) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen)
}

// pass lets time go by, in a bubble.
func pass(d time.Duration) { <-time.After(d) }

func client() *Client {
	return &Client{TokenURL: &url.URL{Scheme: "https", Host: "id.example", Path: "/token"}, ID: "id", Secret: "the secret"}
}

// rig is one client of a token endpoint.
type rig struct {
	t *testing.T
	*server
	tokens *Tokens
}

func newRig(t *testing.T, s *server) *rig {
	t.Helper()
	tokens, err := New(s, 0)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{t, s, tokens}
}

// wants asks for the token and compares it; "" wants a failure.
func (r *rig) wants(want string) {
	r.t.Helper()
	got, err := r.tokens.Token(r.t.Context(), "k", client())
	if got != want || (err == nil) != (want != "") {
		r.t.Errorf("token %q, error %v, want %q", got, err, want)
	}
}

// A token is asked for once, also by many at once, and again before it ends:
// one asks, the others go on with the old one.
func TestOneRefreshAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &server{life: 3600, takes: time.Second})
		many := func(want string) {
			t.Helper()
			var group sync.WaitGroup
			for range 50 {
				group.Go(func() { r.wants(want) })
			}
			group.Wait()
		}
		many("t1")
		pass(58 * time.Minute)
		many("t1")
		if r.requests() != 1 {
			t.Errorf("%d requests for one token", r.requests())
		}
		pass(time.Minute + 30*time.Second) // 30 s before its end
		var group sync.WaitGroup
		group.Go(func() { r.wants("t2") })
		synctest.Wait()
		begun := time.Now()
		for range 50 {
			r.wants("t1")
		}
		if waited := time.Since(begun); waited != 0 {
			t.Errorf("waited %s for a refresh while the old token was valid", waited)
		}
		group.Wait()
		many("t2")
		if r.requests() != 2 || r.most != 1 {
			t.Errorf("%d requests, %d at once", r.requests(), r.most)
		}
	})
}

// A token that has ended is never used, a short one is, for most of its life.
func TestShortLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &server{life: 10})
		r.wants("t1")
		pass(8 * time.Second)
		r.wants("t1")
		pass(1500 * time.Millisecond)
		r.wants("t2")
		pass(time.Hour)
		r.wants("t3")
	})
}

// A failure counts for 5 s. While the old token is valid, it goes on being used.
func TestFailuresCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &server{life: 3600, fails: &egress.Result{Status: 503}})
		for range 10 {
			r.wants("")
		}
		pass(4900 * time.Millisecond)
		r.wants("")
		if r.requests() != 1 {
			t.Errorf("%d requests within 5 s of a failure", r.requests())
		}
		r.set(func(s *server) { s.fails = nil })
		pass(100 * time.Millisecond)
		r.wants("t2")

		r.set(func(s *server) { s.fails = &egress.Result{Status: 503} })
		pass(59*time.Minute + 30*time.Second)
		for range 10 {
			r.wants("t2") // early refreshes fail
		}
		if r.requests() != 3 {
			t.Errorf("%d requests, want one early refresh", r.requests())
		}
		pass(time.Minute)
		r.wants("")
	})
}

// A token endpoint that hangs while the old token is valid takes half of the time of
// who asks it, and then the old token is used.
func TestSlowRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &server{life: 3600})
		r.wants("t1")
		pass(59*time.Minute + 30*time.Second)
		r.set(func(s *server) { s.takes = time.Hour })
		for _, want := range []time.Duration{2 * time.Second, 0} { // the failure counts for the second
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			begun := time.Now()
			got, err := r.tokens.Token(ctx, "k", client())
			cancel()
			if took := time.Since(begun); got != "t1" || err != nil || took != want {
				t.Errorf("token %q, error %v, after %s, want %s", got, err, took, want)
			}
		}
	})
}

// Who waits does so within its own time; who gives up does not make others fail.
func TestWaitsWithinItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &server{life: 3600, takes: 5 * time.Second})
		first, stop := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() {
			if _, err := r.tokens.Token(first, "k", client()); err == nil || err.Exchange.Class != egress.ClassCanceled {
				t.Errorf("cancelled: %v", err)
			}
		})
		synctest.Wait()
		group.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := r.tokens.Token(ctx, "k", client()); err == nil || !err.Exchange.Timeout {
				t.Errorf("out of time: %v", err)
			}
		})
		group.Go(func() { r.wants("t2") })
		pass(2 * time.Second)
		stop()
		group.Wait()
	})
}

// Who waited for most of its time, and then has too little left to ask, leaves no
// failure behind for those that come with all of theirs.
func TestLateCallerLeavesNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &server{life: 3600, takes: 9990 * time.Millisecond, fails: &egress.Result{Err: &egress.Error{Class: egress.ClassLocal}}})
		var group sync.WaitGroup
		group.Go(func() { r.wants("") }) // it finds this machine out of files
		synctest.Wait()
		group.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if _, err := r.tokens.Token(ctx, "k", client()); err == nil || !err.Exchange.Timeout {
				t.Errorf("10 ms left: %v", err)
			}
		})
		pass(9985 * time.Millisecond)
		r.set(func(s *server) { s.fails, s.takes = nil, time.Second })
		group.Wait()
		r.wants("t3")
		r.set(func(s *server) { s.takes = time.Hour })
		pass(2 * time.Hour)
		r.wants("") // with all of its time: this one counts
		r.wants("")
		if r.requests() != 4 {
			t.Errorf("%d requests, want none within 5 s of a time-out", r.requests())
		}
	})
}

// A refused token is dropped once: the next one stays until it was taken.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &server{life: 3600})
		r.wants("t1")
		for range 20 {
			r.tokens.Refused("k", "t1")
		}
		r.wants("t2")
		r.tokens.Refused("k", "t1") // a late answer
		r.tokens.Refused("k", "t2")
		r.wants("t2")
		r.tokens.Taken("k", "t2")
		r.tokens.Refused("k", "t2")
		r.wants("t3")
	})
}

// Clients do not share tokens, and those not used for long are forgotten.
func TestBounded(t *testing.T) {
	s := &server{life: 3600}
	tokens, err := New(s, 10)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if _, err := tokens.Token(t.Context(), strconv.Itoa(i), client()); err != nil {
			t.Fatal(err)
		}
	}
	if s.requests() != 1000 {
		t.Errorf("%d requests for 1000 clients", s.requests())
	}
	tokens.sources.CleanUp()
	if n := tokens.sources.EstimatedSize(); n > 10 {
		t.Errorf("%d clients are kept", n)
	}
}

// The request is that of RFC 6749, sections 4.4.2 and 2.3.1.
func TestRequest(t *testing.T) {
	for _, tt := range []struct {
		name          string
		change        func(*Client)
		body, authorz string
	}{
		{"header", func(*Client) {}, "grant_type=client_credentials", "Basic aWQ6dGhlK3NlY3JldA=="},
		{"body", func(c *Client) { c.InBody = true }, "client_id=id&client_secret=the+secret&grant_type=client_credentials", ""},
		{
			"scopes and audience", func(c *Client) { c.Scopes, c.Audience = []string{"a", "b:c"}, "https://api" },
			"audience=https%3A%2F%2Fapi&grant_type=client_credentials&scope=a+b%3Ac", "Basic aWQ6dGhlK3NlY3JldA==",
		},
		{"odd id", func(c *Client) { c.ID = "a:b" }, "grant_type=client_credentials", "Basic YSUzQWI6dGhlK3NlY3JldA=="},
	} {
		c := client()
		tt.change(c)
		req := request(c, time.Second)
		authorization := ""
		for _, f := range req.Fields {
			if f.Name == "Authorization" {
				authorization = f.Value
			}
		}
		if string(req.Body) != tt.body || authorization != tt.authorz || req.Timeout != time.Second || req.Method != http.MethodPost {
			t.Errorf("%s: body %s, authorization %s", tt.name, req.Body, authorization)
		}
	}
}

// Each way in which an answer can be no token has its own detail, and none shows
// more than an error code.
func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		status       int
		body, detail string
	}{
		{400, `{"error":"invalid_client","error_description":"the secret"}`, "status 400 invalid_client"},
		{401, `{"error":"no <the secret>"}`, "status 401"},
		{500, `the secret`, "status 500"},
		{302, ``, "status 302"},
		{200, `the secret`, "not the JSON object"},
		{200, `[]`, "not the JSON object"},
		{200, `{}`, "no access_token"},
		{200, `{"access_token":"a b"}`, "can't be sent"},
		{200, `{"access_token":"a\r\nX: y"}`, "can't be sent"},
		{200, `{"access_token":"` + strings.Repeat("a", maxToken+1) + `"}`, "can't be sent"},
		{200, `{"access_token":"a","token_type":"mac"}`, "token_type"},
		{200, `{"access_token":"a","expires_in":0}`, "expires_in"},
		{200, `{"access_token":"a","expires_in":"soon"}`, "expires_in"},
		{200, `{"access_token":"a","expires_in":"NaN"}`, "expires_in"},
	} {
		_, err := fetch(t.Context(), &server{fails: &egress.Result{Status: tt.status, Body: []byte(tt.body)}}, client(), fetchTimeout)
		if err == nil || !strings.Contains(err.Error(), tt.detail) || strings.Contains(err.Error(), "the secret") {
			t.Errorf("%d %.40s: %v, want %q", tt.status, tt.body, err, tt.detail)
		}
	}
	if _, err := fetch(t.Context(), &server{fails: &egress.Result{Status: http.StatusOK, Truncated: true}}, client(), fetchTimeout); err == nil || err.Detail != "the answer is too long" {
		t.Errorf("truncated: %v", err)
	}
	now := time.Now()
	for body, life := range map[string]time.Duration{
		`{"access_token":"a"}`:                               defaultLife,
		`{"access_token":"a","expires_in":null}`:             defaultLife,
		`{"access_token":"a","expires_in":"90"}`:             90 * time.Second,
		`{"access_token":"a","expires_in":1.5,"more":[1]}`:   1500 * time.Millisecond,
		`{"access_token":"a","expires_in":1e300}`:            maxLife,
		`{"access_token":"a","token_type":"BEARER","a":"b"}`: defaultLife,
	} {
		got, err := parse([]byte(body), now)
		if diff := cmp.Diff(life, got.until.Sub(now)); err != nil || diff != "" {
			t.Errorf("%s: %v %s", body, err, diff)
		}
	}
}

// FuzzParse: whatever comes, a token can be sent and does not last for ever.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"access_token":"a","token_type":"bearer","expires_in":"90"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		now := time.Now()
		got, err := parse(body, now)
		if err != nil {
			return
		}
		if !json.Valid(body) || !visible(got.value) || got.until.Sub(now) > maxLife || got.until.Before(now) {
			t.Errorf("%q: %+v", body, got)
		}
	})
}
