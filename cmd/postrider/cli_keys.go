package main

import (
	"context"
	"net/http"
)

type keysCmd struct {
	connection `embed:""`

	List   keysListCmd   `cmd:"" help:"List the API keys."`
	Create keysCreateCmd `cmd:"" help:"Create an API key; its token is shown this once."`
	Delete keysDeleteCmd `cmd:"" help:"Delete an API key."`
}

func keyColumns() []column {
	return []column{col("ID", "id"), col("ROLE", "role"), col("NAME", "name"), col("CREATED", "created_at")}
}

type keysListCmd struct{ limitFlag }

// Run lists the keys.
func (c *keysListCmd) Run(ctx context.Context, conn *connection, std streams) error {
	return tenantList(ctx, conn, std, listing{limit: c.Limit, columns: keyColumns()}, "keys")
}

type keysCreateCmd struct {
	Role string `required:"" enum:"admin,producer" placeholder:"ROLE" help:"producer may send events; admin may also manage the tenant (of tenant _: all)."`
	Name string `placeholder:"TEXT" help:"A name for people."`
	idempotencyKey
}

// Run creates a key.
func (c *keysCreateCmd) Run(ctx context.Context, conn *connection, std streams) error {
	body := settings{"role": c.Role}
	body.set("name", c.Name, c.Name != "")
	columns := []column{col("ID", "id"), col("ROLE", "role"), col("NAME", "name"), {title: "TOKEN", paths: []string{"token"}, whole: true}}
	return tenantRequest(ctx, conn, std, exchange{
		method: http.MethodPost, header: c.header(), body: body, columns: columns,
	}, "keys")
}

type keysDeleteCmd struct {
	ID string `arg:"" help:"The key's id, key_…"`
	ifMatch
}

// Run deletes a key.
func (c *keysDeleteCmd) Run(ctx context.Context, conn *connection, std streams) error {
	return tenantRequest(ctx, conn, std, exchange{method: http.MethodDelete, header: c.header()}, "keys", c.ID)
}
