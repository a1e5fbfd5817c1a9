package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

const (
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 32 << 20
	// requestTimeout bounds one request of the client.
	requestTimeout = 30 * time.Second
	// pageSize is how many entities one page of a list has.
	pageSize = 250
)

// connection is how a client command reaches the gateway, and its output.
type connection struct {
	API    string `env:"POSTRIDER_API" default:"http://127.0.0.1:8080" placeholder:"URL" help:"Address of the gateway."`
	APIKey string `env:"POSTRIDER_API_KEY" placeholder:"KEY" help:"API key, or the admin key. Without it: POSTRIDER_ADMIN_KEY, then ./postrider-data/admin.key."`
	Tenant string `env:"POSTRIDER_TENANT" placeholder:"ID" help:"The tenant."`
	Output string `short:"o" default:"table" enum:"json,table" help:"Form of the output: ${enum}."`
}

// AfterApply hands the connection to the command that is run.
func (c *connection) AfterApply(ctx *kong.Context) error { //nolint:unparam // kong wants the error
	ctx.Bind(c)
	return nil
}

// client returns a client for the gateway.
func (c *connection) client() (*apiClient, error) {
	key, err := c.key()
	if err != nil {
		return nil, err
	}
	return newAPIClient(c.API, key)
}

func (c *connection) key() (string, error) {
	if c.APIKey != "" {
		return c.APIKey, nil
	}
	if key := os.Getenv("POSTRIDER_ADMIN_KEY"); key != "" {
		return key, nil
	}
	path := filepath.Join("postrider-data", adminKeyFile)
	text, err := os.ReadFile(path) //nolint:gosec // a fixed name
	if err != nil {
		return "", errors.New("no key: give --api-key or POSTRIDER_API_KEY (postrider dev keeps its admin key in ./postrider-data)")
	}
	return strings.TrimSpace(string(text)), nil
}

// tenantPath returns the path of the tenant's resources, or of one of them.
func (c *connection) tenantPath(parts ...string) (string, error) {
	if c.Tenant == "" {
		return "", errors.New("no tenant: give --tenant or POSTRIDER_TENANT")
	}
	return apiPath(append([]string{"v1", "tenants", c.Tenant}, parts...)...), nil
}

// apiPath joins path segments, each escaped.
func apiPath(segments ...string) string {
	var path strings.Builder
	for _, s := range segments {
		_, _ = path.WriteString("/" + url.PathEscape(s)) // a builder never fails
	}
	return path.String()
}

// apiURL is where a gateway that listens on the address is reached from here.
func apiURL(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "http://" + listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// apiClient makes requests to the gateway's public API.
type apiClient struct {
	base *url.URL
	key  string
	http *http.Client
}

func newAPIClient(base, key string) (*apiClient, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("api %q: want a URL such as http://127.0.0.1:8080", base)
	}
	return &apiClient{base: u, key: key, http: &http.Client{
		// The key must not follow a redirect to somewhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// apiRequest is one request; a zero field is left out. Its header wins over what
// the client sets.
type apiRequest struct {
	method, path string
	query        url.Values
	header       map[string]string
	body         []byte
}

// open sends the request and returns the answer, whose body the caller closes.
func (c *apiClient) open(ctx context.Context, r apiRequest) (*http.Response, error) {
	target := strings.TrimSuffix(c.base.String(), "/") + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	req.Header.Set("User-Agent", "postrider-cli")
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	res, err := c.http.Do(req)
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" && ctx.Err() == nil {
		return nil, fmt.Errorf("%w (is the gateway running there? --api or POSTRIDER_API says where)", err)
	}
	return res, err
}

// do sends the request and returns the body of a 2xx answer; any other answer is
// a *problemError.
func (c *apiClient) do(ctx context.Context, r apiRequest) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.open(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer: %w", err)
	case res.StatusCode/100 != 2:
		return nil, readProblem(res, body)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("the answer has more than %s", byteSize(maxAnswer))
	}
	return body, nil
}

// send is do with a JSON body.
func (c *apiClient) send(ctx context.Context, method, path string, body any) ([]byte, error) {
	r := apiRequest{method: method, path: path}
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r.body = text
	}
	return c.do(ctx, r)
}

// list reads a list page by page, up to limit entities.
func (c *apiClient) list(ctx context.Context, path string, query url.Values, limit int) ([]json.RawMessage, error) {
	var all []json.RawMessage
	if query == nil {
		query = url.Values{}
	}
	for len(all) < limit {
		query.Set("limit", strconv.Itoa(min(pageSize, limit-len(all))))
		body, err := c.do(ctx, apiRequest{method: http.MethodGet, path: path, query: query})
		if err != nil {
			return nil, err
		}
		var page struct {
			Data       []json.RawMessage `json:"data"`
			NextCursor string            `json:"next_cursor"`
		}
		if err := json.Unmarshal(body, &page); err != nil {
			return nil, fmt.Errorf("read the list: %w", err)
		}
		all = append(all, page.Data...)
		if page.NextCursor == "" || len(page.Data) == 0 {
			break
		}
		query.Set("cursor", page.NextCursor)
	}
	return all, nil
}

// problemError is an answer that is not 2xx.
type problemError struct {
	Status    int    `json:"status"`
	Code      string `json:"code"`
	Title     string `json:"title"`
	Detail    string `json:"detail"`
	RequestID string `json:"request_id"`
	Errors    []struct {
		Pointer string `json:"pointer"`
		Detail  string `json:"detail"`
	} `json:"errors"`
	EventID string `json:"id"`
}

func readProblem(res *http.Response, body []byte) *problemError {
	p := new(problemError)
	if json.Unmarshal(body, p) != nil || p.Code == "" {
		p = &problemError{Title: http.StatusText(res.StatusCode), Detail: clip(string(body), 200)}
	}
	p.Status = res.StatusCode
	return p
}

// Error implements error.
func (p *problemError) Error() string {
	var out strings.Builder
	what := p.Code
	if what == "" {
		what = p.Title
	}
	_, _ = fmt.Fprintf(&out, "%d %s", p.Status, what)
	if p.Detail != "" {
		_, _ = fmt.Fprintf(&out, ": %s", p.Detail)
	}
	for _, e := range p.Errors {
		if e.Detail != p.Detail {
			_, _ = fmt.Fprintf(&out, "\n  %s: %s", e.Pointer, e.Detail)
		} else if e.Pointer != "" {
			_, _ = fmt.Fprintf(&out, " (at %s)", e.Pointer)
		}
	}
	if p.EventID != "" {
		_, _ = fmt.Fprintf(&out, "\n  event id: %s", p.EventID)
	}
	if p.RequestID != "" {
		_, _ = fmt.Fprintf(&out, "\n  request: %s", p.RequestID)
	}
	return out.String()
}

// endedByContext reports whether an error is nothing but the end of a context.
func endedByContext(err error) bool { return errors.Is(err, context.Canceled) }

// exitOf returns the exit code for an error of the command line.
func exitOf(err error) int {
	if parse, ok := errors.AsType[*kong.ParseError](err); ok {
		return parse.ExitCode()
	}
	return 1
}
