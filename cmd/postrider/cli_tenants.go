package main

import (
	"context"
	"net/http"
)

type tenantsCmd struct {
	connection `embed:""`

	List   tenantsListCmd   `cmd:"" help:"List the tenants."`
	Get    tenantsGetCmd    `cmd:"" help:"Read a tenant."`
	Put    tenantsPutCmd    `cmd:"" aliases:"create" help:"Create a tenant or replace its settings."`
	Delete tenantsDeleteCmd `cmd:"" help:"Delete a tenant with all that belongs to it."`
}

func tenantColumns() []column {
	return []column{
		col("ID", "id"), col("NAME", "name"), col("EVENTS/S", "quota.events_per_second"),
		col("BYTES/S", "quota.bytes_per_second"), col("DELETING", "deleting"), col("CREATED", "created_at"),
	}
}

type tenantsListCmd struct{ limitFlag }

// limitFlag bounds a list.
type limitFlag struct {
	Limit int `default:"1000" help:"How many to show at most."`
}

// Run lists the tenants.
func (c *tenantsListCmd) Run(ctx context.Context, conn *connection, std streams) error {
	return list(ctx, conn, std, listing{path: "/v1/tenants", limit: c.Limit, columns: tenantColumns()})
}

type tenantsGetCmd struct {
	ID string `arg:"" help:"The tenant's id."`
}

// Run reads a tenant.
func (c *tenantsGetCmd) Run(ctx context.Context, conn *connection, std streams) error {
	return request(ctx, conn, std, exchange{method: http.MethodGet, path: apiPath("v1", "tenants", c.ID), columns: tenantColumns()})
}

type tenantsPutCmd struct {
	ID              string            `arg:"" help:"The tenant's id: letters, digits, '.', '_' and '-'."`
	Name            string            `placeholder:"TEXT" help:"A name for people."`
	Metadata        map[string]string `mapsep:"none" placeholder:"NAME=TEXT" help:"Metadata; once for each."`
	EventsPerSecond float64           `placeholder:"RATE" help:"Quota of each ingest process; 0: its default."`
	BytesPerSecond  float64           `placeholder:"RATE" help:"Quota of each ingest process; 0: its default."`
	New             bool              `help:"Fail if the tenant exists."`
	ifMatch
}

// Run creates or replaces a tenant.
func (c *tenantsPutCmd) Run(ctx context.Context, conn *connection, std streams) error {
	body := settings{}
	body.set("name", c.Name, c.Name != "")
	body.set("metadata", c.Metadata, len(c.Metadata) > 0)
	quota := settings{}
	quota.set("events_per_second", c.EventsPerSecond, c.EventsPerSecond != 0)
	quota.set("bytes_per_second", c.BytesPerSecond, c.BytesPerSecond != 0)
	body.set("quota", quota, len(quota) > 0)
	header := c.header()
	if c.New {
		header["If-None-Match"] = "*"
	}
	return request(ctx, conn, std, exchange{
		method: http.MethodPut, path: apiPath("v1", "tenants", c.ID), body: body, header: header, columns: tenantColumns(),
	})
}

type tenantsDeleteCmd struct {
	ID string `arg:"" help:"The tenant's id."`
	ifMatch
}

// Run deletes a tenant.
func (c *tenantsDeleteCmd) Run(ctx context.Context, conn *connection, std streams) error {
	return request(ctx, conn, std, exchange{
		method: http.MethodDelete, path: apiPath("v1", "tenants", c.ID), header: c.header(), columns: tenantColumns(),
	})
}
