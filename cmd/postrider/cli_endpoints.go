package main

import (
	"context"
	"errors"
	"net/http"

	"github.com/alecthomas/kong"
)

type endpointsCmd struct {
	connection `embed:""`

	List         endpointsListCmd   `cmd:"" help:"List the endpoints."`
	Get          endpointsGetCmd    `cmd:"" help:"Read an endpoint."`
	Create       endpointsCreateCmd `cmd:"" help:"Create an endpoint, and a subscription to it."`
	Update       endpointsUpdateCmd `cmd:"" aliases:"patch" help:"Change settings of an endpoint; what is not given stays."`
	Delete       endpointsDeleteCmd `cmd:"" help:"Delete an endpoint with its subscriptions."`
	Pause        endpointsVerbCmd   `cmd:"" help:"Pause an endpoint: deliveries wait, in order."`
	Resume       endpointsVerbCmd   `cmd:"" help:"Resume a paused endpoint."`
	Enable       endpointsVerbCmd   `cmd:"" help:"Enable a disabled endpoint."`
	Disable      endpointsVerbCmd   `cmd:"" help:"Disable an endpoint: no further deliveries are made for it."`
	RotateSecret endpointsRotateCmd `cmd:"" help:"Give an endpoint a new signing secret."`
	Secret       endpointsSecretCmd `cmd:"" help:"Show an endpoint's newest signing secret, of ed25519 the public key."`
	Test         endpointsTestCmd   `cmd:"" help:"Send a test event to one endpoint."`
}

func endpointColumns() []column {
	return []column{
		col("ID", "id"), col("STATE", "effective_state", "state"), col("URL", "url"), col("DESCRIPTION", "description"),
		col("HEALTH", "health.reason", "health.breaker.state", "health.hold.reason"), col("CREATED", "created_at"), col("ETAG", "etag"),
	}
}

func secretColumns() []column {
	return []column{{title: "SECRET", paths: []string{"secret", "public_key"}, whole: true}, col("KIND", "kind"), col("CREATED", "created_at")}
}

type endpointsListCmd struct{ limitFlag }

// Run lists the endpoints.
func (c *endpointsListCmd) Run(ctx context.Context, conn *connection, std streams) error {
	return tenantList(ctx, conn, std, listing{limit: c.Limit, columns: endpointColumns()}, "endpoints")
}

// endpointArg names an endpoint.
type endpointArg struct {
	ID string `arg:"" help:"The endpoint's id, ep_…"`
}

type endpointsGetCmd struct{ endpointArg }

// Run reads an endpoint.
func (c *endpointsGetCmd) Run(ctx context.Context, conn *connection, std streams) error {
	return tenantRequest(ctx, conn, std, exchange{method: http.MethodGet, columns: endpointColumns()}, "endpoints", c.ID)
}

// endpointFlags are the settings of an endpoint; nil is "not given".
type endpointFlags struct {
	Description   *string           `placeholder:"TEXT" help:"A text for people."`
	Metadata      map[string]string `mapsep:"none" placeholder:"NAME=TEXT" help:"Metadata; once for each."`
	Timeout       *string           `placeholder:"15s" help:"Bound of one exchange: 1s to 60s."`
	MaxInFlight   *int              `placeholder:"32" help:"Attempts under way at once: 1 to 32 for each shard."`
	RetrySchedule []string          `placeholder:"5s,5m" help:"Delay before attempt 2, 3, …: 1s to 28h each."`
	RetryMaxAge   *string           `placeholder:"72h" help:"Age at which a delivery is given up."`
	TraceContext  *bool             `negatable:"" help:"Send a traceparent header."`
	RatePerSecond *float64          `placeholder:"100" help:"Attempts that may start per second."`
	RateBurst     *int              `placeholder:"100" help:"Attempts that may start at once after a quiet time."`
	Breaker       *bool             `negatable:"" help:"Leave the endpoint alone while it only fails (the default)."`
	Ordered       *bool             `negatable:"" help:"Deliver in order, per partitionkey."`
	OnExhausted   *string           `enum:"skip,block" placeholder:"skip" help:"With --ordered, what follows the last attempt: skip or block."`
	Shards        *int              `placeholder:"1" help:"Spread the endpoint over so many workers: 1 to 16."`
	Signing       signingFlags      `embed:"" prefix:"signing-"`
	receiverFlags
}

func (f *endpointFlags) settings() settings {
	body := settings{}
	body.set("description", f.Description, f.Description != nil)
	body.set("metadata", f.Metadata, len(f.Metadata) > 0)
	body.set("timeout", f.Timeout, f.Timeout != nil)
	body.set("max_in_flight", f.MaxInFlight, f.MaxInFlight != nil)
	body.set("trace_context", f.TraceContext, f.TraceContext != nil)
	retry := settings{}
	retry.set("schedule", f.RetrySchedule, len(f.RetrySchedule) > 0)
	retry.set("max_age", f.RetryMaxAge, f.RetryMaxAge != nil)
	body.set("retry", retry, len(retry) > 0)
	rate := settings{}
	rate.set("per_second", f.RatePerSecond, f.RatePerSecond != nil)
	rate.set("burst", f.RateBurst, f.RateBurst != nil)
	body.set("rate_limit", rate, len(rate) > 0)
	if f.Breaker != nil {
		body["breaker"] = settings{"off": !*f.Breaker}
	}
	body.set("ordered", f.Ordered, f.Ordered != nil)
	body.set("on_exhausted", f.OnExhausted, f.OnExhausted != nil)
	body.set("shards", f.Shards, f.Shards != nil)
	f.Signing.put(body)
	return body
}

type endpointsCreateCmd struct {
	URL             string   `name:"url" placeholder:"URL" help:"Where to POST. Required, here or in --settings."`
	Secret          string   `placeholder:"WHSEC" help:"The secret to sign with (whsec_…, whsk_…, or any text for other schemes); one is made without it."`
	SecretKind      string   `placeholder:"KIND" help:"Kind of the secret: hmac or ed25519."`
	Types           []string `placeholder:"TYPE" help:"Event types to subscribe to: exact, prefixes (order.*) or *. All without it."`
	Filter          string   `placeholder:"CEL" help:"Filter of that subscription, such as data.total > 100."`
	NoSubscriptions bool     `help:"Subscribe to nothing."`
	endpointFlags
	idempotencyKey
}

// Run creates an endpoint.
func (c *endpointsCreateCmd) Run(ctx context.Context, conn *connection, std streams) error {
	if c.NoSubscriptions && (len(c.Types) > 0 || c.Filter != "") {
		return errors.New("--no-subscriptions excludes --types and --filter")
	}
	body := c.settings()
	body.set("url", c.URL, c.URL != "")
	if err := c.add(body, false, std); err != nil {
		return err
	}
	if _, given := body["url"]; !given {
		return errors.New("no URL: give --url, or url in --settings")
	}
	body.set("secret", c.Secret, c.Secret != "")
	body.set("secret_kind", c.SecretKind, c.SecretKind != "")
	if c.NoSubscriptions {
		body["subscriptions"] = []settings{}
	} else if sub := subscriptionSettings(c.Types, c.Filter); len(sub) > 0 {
		body["subscriptions"] = []settings{sub}
	}
	return tenantRequest(ctx, conn, std, exchange{
		method: http.MethodPost, header: c.header(), body: body, columns: endpointColumns(),
	}, "endpoints")
}

type endpointsUpdateCmd struct {
	endpointArg
	URL string `name:"url" placeholder:"URL" help:"Where to POST."`
	endpointFlags
	Unset       []string `enum:"description,metadata,timeout,max_in_flight,retry,trace_context,rate_limit,breaker,ordered,on_exhausted,shards,signing,method,format,compression,auth,headers,tls" placeholder:"NAME" help:"Settings to put back to their default: ${enum}."`
	UnsetHeader []string `placeholder:"NAME" help:"Headers to send no more."`
	ifMatch
}

// Run changes an endpoint.
func (c *endpointsUpdateCmd) Run(ctx context.Context, conn *connection, std streams) error {
	body := c.settings()
	body.set("url", c.URL, c.URL != "")
	if c.Ordered != nil && !*c.Ordered && c.OnExhausted == nil {
		body["on_exhausted"] = nil // it goes with ordered, and means nothing without
	}
	c.Signing.anew(body)
	if err := c.add(body, true, std); err != nil {
		return err
	}
	body.unset(c.Unset)
	if err := body.unsetHeaders(c.UnsetHeader); err != nil {
		return err
	}
	if len(body) == 0 {
		return errors.New("nothing to change: give a setting")
	}
	return tenantRequest(ctx, conn, std, exchange{
		method: http.MethodPatch, header: c.header(), body: body, columns: endpointColumns(),
	}, "endpoints", c.ID)
}

type endpointsDeleteCmd struct {
	endpointArg
	ifMatch
}

// Run deletes an endpoint.
func (c *endpointsDeleteCmd) Run(ctx context.Context, conn *connection, std streams) error {
	return tenantRequest(ctx, conn, std, exchange{method: http.MethodDelete, header: c.header()}, "endpoints", c.ID)
}

type endpointsVerbCmd struct {
	endpointArg
	ifMatch
}

// Run does what the command is named after.
func (c *endpointsVerbCmd) Run(ctx context.Context, conn *connection, std streams, parsed *kong.Context) error {
	name := parsed.Selected().Name
	return verb(ctx, conn, std, exchange{header: c.header(), columns: endpointColumns()}, "endpoints", c.ID, name)
}

type endpointsRotateCmd struct {
	endpointArg
	NewSecret  string `placeholder:"WHSEC" help:"The new secret; one is made without it."`
	SecretKind string `placeholder:"KIND" help:"Kind of the new secret: hmac or ed25519; that of the newest without it."`
	Overlap    string `placeholder:"24h" help:"How long the old secrets go on signing: 0s to 168h."`
	ifMatch
}

// Run rotates the secret.
func (c *endpointsRotateCmd) Run(ctx context.Context, conn *connection, std streams) error {
	body := settings{}
	body.set("secret", c.NewSecret, c.NewSecret != "")
	body.set("secret_kind", c.SecretKind, c.SecretKind != "")
	body.set("overlap", c.Overlap, c.Overlap != "")
	return verb(ctx, conn, std, exchange{header: c.header(), body: body, columns: secretColumns()}, "endpoints", c.ID, "rotate-secret")
}

type endpointsSecretCmd struct{ endpointArg }

// Run shows the secret.
func (c *endpointsSecretCmd) Run(ctx context.Context, conn *connection, std streams) error {
	return tenantRequest(ctx, conn, std, exchange{method: http.MethodGet, columns: secretColumns()}, "endpoints", c.ID, "secret")
}

type endpointsTestCmd struct {
	endpointArg
	idempotencyKey
}

// Run sends the test event.
func (c *endpointsTestCmd) Run(ctx context.Context, conn *connection, std streams) error {
	columns := []column{col("EVENT", "event_id"), col("DELIVERY", "delivery_id")}
	return verb(ctx, conn, std, exchange{header: c.header(), columns: columns}, "endpoints", c.ID, "test")
}
