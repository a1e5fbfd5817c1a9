package oauth

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/internal/egress"
)

const (
	// fetchTimeout bounds one exchange with a token endpoint.
	fetchTimeout = 10 * time.Second
	// defaultLife is how long a token counts whose answer does not say.
	defaultLife = 5 * time.Minute
	// maxLife bounds how long a token counts, whatever its answer says.
	maxLife = 24 * time.Hour
	// maxToken bounds a token, in bytes: it is a header.
	maxToken = 6 << 10
	// maxCode bounds the error code of a token endpoint that is shown.
	maxCode = 64
)

// Client is one client of one token endpoint. It never changes.
type Client struct {
	// TokenURL is where tokens are asked for, a result of egress.CheckURL.
	TokenURL *url.URL
	// ID and Secret are the client's credentials.
	ID, Secret string
	// Scopes and Audience narrow what the token is for; both may be empty.
	Scopes   []string
	Audience string
	// InBody has the credentials sent as parameters instead of in the header
	// Authorization (RFC 6749, section 2.3.1).
	InBody bool
}

// Sender sends one request. An *egress.Client is one.
type Sender interface {
	Do(ctx context.Context, req *egress.Request) egress.Result
}

// Error says why there is no token.
type Error struct {
	// Exchange is how the request failed, nil if an answer came.
	Exchange *egress.Error
	// Detail says more; safe to show to the endpoint's owner.
	Detail string
}

// Error returns the detail.
func (e *Error) Error() string { return "token endpoint: " + e.Detail }

// token is an access token and when it ends.
type token struct {
	value string
	from  time.Time
	until time.Time
}

// fetch asks the token endpoint for a token, within a time.
func fetch(ctx context.Context, send Sender, c *Client, timeout time.Duration) (token, *Error) {
	if timeout <= 0 {
		return token{}, &Error{Exchange: &egress.Error{Class: egress.ClassTimeout, Timeout: true}, Detail: "no time left to ask"}
	}
	res := send.Do(ctx, request(c, timeout))
	switch {
	case res.Err != nil:
		return token{}, &Error{Exchange: res.Err, Detail: res.Err.Error()}
	case res.Status != http.StatusOK:
		return token{}, &Error{Detail: fmt.Sprintf("status %d%s", res.Status, errorCode(res.Body))}
	case res.Truncated:
		return token{}, &Error{Detail: "the answer is too long"}
	}
	t, err := parse(res.Body, time.Now())
	if err != nil {
		return token{}, &Error{Detail: err.Error()}
	}
	return t, nil
}

func request(c *Client, timeout time.Duration) *egress.Request {
	form := url.Values{"grant_type": {"client_credentials"}}
	fields := []egress.Field{{Name: "Content-Type", Value: "application/x-www-form-urlencoded"}, {Name: "Accept", Value: "application/json"}}
	if len(c.Scopes) > 0 {
		form.Set("scope", strings.Join(c.Scopes, " "))
	}
	if c.Audience != "" {
		form.Set("audience", c.Audience)
	}
	if c.InBody {
		form.Set("client_id", c.ID)
		form.Set("client_secret", c.Secret)
	} else {
		pair := url.QueryEscape(c.ID) + ":" + url.QueryEscape(c.Secret)
		fields = append(fields, egress.Field{Name: "Authorization", Value: "Basic " + base64.StdEncoding.EncodeToString([]byte(pair))})
	}
	return &egress.Request{Method: http.MethodPost, URL: c.TokenURL, Fields: fields, Body: []byte(form.Encode()), Timeout: timeout}
}

// parse reads an answer (RFC 6749, section 5.1). Some servers write expires_in
// as a string.
func parse(body []byte, now time.Time) (token, error) {
	var answer struct {
		AccessToken string          `json:"access_token"`
		TokenType   string          `json:"token_type"`
		ExpiresIn   json.RawMessage `json:"expires_in"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return token{}, errors.New("the answer is not the JSON object that it should be")
	}
	switch {
	case answer.AccessToken == "":
		return token{}, errors.New("the answer has no access_token")
	case len(answer.AccessToken) > maxToken || !visible(answer.AccessToken):
		return token{}, errors.New("the access_token can't be sent in a header")
	case !strings.EqualFold(cmp.Or(answer.TokenType, "Bearer"), "Bearer"):
		return token{}, errors.New("the token_type is not Bearer")
	}
	life := defaultLife
	if text := strings.Trim(string(answer.ExpiresIn), `"`); text != "" && text != "null" {
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || !(seconds > 0) {
			return token{}, errors.New("expires_in is not a positive number of seconds")
		}
		life = time.Duration(min(seconds, maxLife.Seconds()) * float64(time.Second))
	}
	return token{value: answer.AccessToken, from: now, until: now.Add(life)}, nil
}

func visible(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
}

// errorCode returns the code of an error answer (RFC 6749, section 5.2), which is
// one word; what else the answer says may quote the request.
func errorCode(body []byte) string {
	var answer struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Error == "" || len(answer.Error) > maxCode {
		return ""
	}
	word := strings.IndexFunc(answer.Error, func(r rune) bool { return (r < 'a' || r > 'z') && r != '_' }) < 0
	if !word {
		return ""
	}
	return " " + answer.Error
}
