package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// settings is the body of a request: what was given on the command line.
type settings map[string]any

func (s settings) set(name string, value any, given bool) {
	if given {
		s[name] = value
	}
}

// unset puts null, the default, for members that a merge patch is to remove.
func (s settings) unset(names []string) {
	for _, name := range names {
		s[name] = nil
	}
}

// ifMatch makes a change depend on the entity's version.
type ifMatch struct {
	IfMatch string `placeholder:"ETAG" help:"Change it only if this is its version (etag)."`
}

func (m ifMatch) header() map[string]string {
	header := map[string]string{}
	if m.IfMatch != "" {
		header["If-Match"] = m.IfMatch
	}
	return header
}

// idempotencyKey makes a POST repeatable.
type idempotencyKey struct {
	IdempotencyKey string `placeholder:"KEY" help:"A repeat with the same key within 24h creates nothing."`
}

func (k idempotencyKey) header() map[string]string {
	header := map[string]string{}
	if k.IdempotencyKey != "" {
		header["Idempotency-Key"] = k.IdempotencyKey
	}
	return header
}

// exchange is one request for one entity.
type exchange struct {
	method, path string
	header       map[string]string
	body         settings // nil: none
	columns      []column
}

// request makes an exchange and shows the entity that is answered, if any.
func request(ctx context.Context, conn *connection, std streams, x exchange) error {
	client, err := conn.client()
	if err != nil {
		return err
	}
	r := apiRequest{method: x.method, path: x.path, header: x.header}
	if x.body != nil {
		if r.body, err = json.Marshal(x.body); err != nil {
			return err
		}
	}
	answer, err := client.do(ctx, r)
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(answer)) == 0 {
		if conn.Output == "table" {
			_, err = fmt.Fprintln(std.out, "done")
		}
		return err
	}
	return conn.show(std.out, x.columns, answer)
}

// tenantRequest is request for a resource of the tenant, whose path x.path is not
// used.
func tenantRequest(ctx context.Context, conn *connection, std streams, x exchange, parts ...string) error {
	path, err := conn.tenantPath(parts...)
	if err != nil {
		return err
	}
	x.path = path
	return request(ctx, conn, std, x)
}

// listing is one list.
type listing struct {
	path    string
	query   url.Values
	limit   int
	columns []column
}

// list reads and shows a list.
func list(ctx context.Context, conn *connection, std streams, l listing) error {
	if l.limit < 1 {
		return errors.New("--limit must be positive")
	}
	client, err := conn.client()
	if err != nil {
		return err
	}
	rows, err := client.list(ctx, l.path, l.query, l.limit)
	if err != nil {
		return err
	}
	return conn.showList(std.out, l.columns, rows)
}

// tenantList is list for a collection of the tenant.
func tenantList(ctx context.Context, conn *connection, std streams, l listing, parts ...string) error {
	path, err := conn.tenantPath(parts...)
	if err != nil {
		return err
	}
	l.path = path
	return list(ctx, conn, std, l)
}

// verb is a POST without a body that changes an entity's state.
func verb(ctx context.Context, conn *connection, std streams, x exchange, parts ...string) error {
	x.method = http.MethodPost
	return tenantRequest(ctx, conn, std, x, parts...)
}
