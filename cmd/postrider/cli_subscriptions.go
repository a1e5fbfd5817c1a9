package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
)

type subscriptionsCmd struct {
	connection `embed:""`

	List   subscriptionsListCmd   `cmd:"" help:"List the subscriptions."`
	Get    subscriptionsGetCmd    `cmd:"" help:"Read a subscription."`
	Create subscriptionsCreateCmd `cmd:"" help:"Subscribe an endpoint to events."`
	Update subscriptionsUpdateCmd `cmd:"" aliases:"patch" help:"Change a subscription; what is not given stays."`
	Delete subscriptionsDeleteCmd `cmd:"" help:"Delete a subscription."`
	Match  subscriptionsMatchCmd  `cmd:"" help:"Say which subscriptions an event would match; nothing is sent."`
}

func subscriptionColumns() []column {
	return []column{
		col("ID", "id"), col("ENDPOINT", "endpoint_id"), col("TYPES", "types"), col("FILTER", "filter"),
		col("CREATED", "created_at"), col("ETAG", "etag"),
	}
}

func subscriptionSettings(types []string, filter string) settings {
	body := settings{}
	body.set("types", types, len(types) > 0)
	body.set("filter", filter, filter != "")
	return body
}

type subscriptionsListCmd struct {
	Endpoint string `placeholder:"EP" help:"Only those of this endpoint."`
	limitFlag
}

// Run lists the subscriptions.
func (c *subscriptionsListCmd) Run(ctx context.Context, conn *connection, std streams) error {
	query := url.Values{}
	if c.Endpoint != "" {
		query.Set("endpoint", c.Endpoint)
	}
	return tenantList(ctx, conn, std, listing{query: query, limit: c.Limit, columns: subscriptionColumns()}, "subscriptions")
}

// subscriptionArg names a subscription.
type subscriptionArg struct {
	ID string `arg:"" help:"The subscription's id, sub_…"`
}

type subscriptionsGetCmd struct{ subscriptionArg }

// Run reads a subscription.
func (c *subscriptionsGetCmd) Run(ctx context.Context, conn *connection, std streams) error {
	return tenantRequest(ctx, conn, std, exchange{method: http.MethodGet, columns: subscriptionColumns()}, "subscriptions", c.ID)
}

type subscriptionsCreateCmd struct {
	Endpoint string   `required:"" placeholder:"EP" help:"The endpoint that gets the events."`
	Types    []string `placeholder:"TYPE" help:"Exact types, prefixes (order.*) or *. All without it."`
	Filter   string   `placeholder:"CEL" help:"Which of them, such as data.total > 100."`
	idempotencyKey
}

// Run creates a subscription.
func (c *subscriptionsCreateCmd) Run(ctx context.Context, conn *connection, std streams) error {
	body := subscriptionSettings(c.Types, c.Filter)
	body["endpoint_id"] = c.Endpoint
	return tenantRequest(ctx, conn, std, exchange{
		method: http.MethodPost, header: c.header(), body: body, columns: subscriptionColumns(),
	}, "subscriptions")
}

type subscriptionsUpdateCmd struct {
	subscriptionArg
	Types  []string `placeholder:"TYPE" help:"Exact types, prefixes (order.*) or *."`
	Filter string   `placeholder:"CEL" help:"Which of them."`
	Unset  []string `enum:"types,filter" placeholder:"NAME" help:"Put back to the default, all: ${enum}."`
	ifMatch
}

// Run changes a subscription.
func (c *subscriptionsUpdateCmd) Run(ctx context.Context, conn *connection, std streams) error {
	body := subscriptionSettings(c.Types, c.Filter)
	body.unset(c.Unset)
	if len(body) == 0 {
		return errors.New("nothing to change: give --types, --filter or --unset")
	}
	return tenantRequest(ctx, conn, std, exchange{
		method: http.MethodPatch, header: c.header(), body: body, columns: subscriptionColumns(),
	}, "subscriptions", c.ID)
}

type subscriptionsDeleteCmd struct {
	subscriptionArg
	ifMatch
}

// Run deletes a subscription.
func (c *subscriptionsDeleteCmd) Run(ctx context.Context, conn *connection, std streams) error {
	return tenantRequest(ctx, conn, std, exchange{method: http.MethodDelete, header: c.header()}, "subscriptions", c.ID)
}

type subscriptionsMatchCmd struct {
	Type string `required:"" placeholder:"TYPE" help:"The event's type."`
	payload
}

// Run shows a verdict for each subscription.
func (c *subscriptionsMatchCmd) Run(ctx context.Context, conn *connection, std streams) error {
	data, err := c.read(std.in)
	if err != nil {
		return err
	}
	body := settings{"type": c.Type}
	if len(data) > 0 {
		if !json.Valid(data) {
			return errors.New("the data is not JSON")
		}
		body["data"] = json.RawMessage(data)
	}
	path, err := conn.tenantPath("subscriptions", "match")
	if err != nil {
		return err
	}
	client, err := conn.client()
	if err != nil {
		return err
	}
	answer, err := client.send(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	var found struct {
		Verdicts []json.RawMessage `json:"verdicts"`
	}
	if err := json.Unmarshal(answer, &found); err != nil {
		return err
	}
	return conn.showList(std.out, []column{
		col("SUBSCRIPTION", "subscription_id"), col("ENDPOINT", "endpoint_id"), col("STATE", "endpoint_state"), col("OUTCOME", "outcome"),
		col("PATTERN", "pattern"), col("DETAIL", "detail"),
	}, found.Verdicts)
}
