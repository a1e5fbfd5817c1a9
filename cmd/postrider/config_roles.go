package main

import (
	"cmp"

	"github.com/postrider/postrider/control"
	"github.com/postrider/postrider/deliver"
	"github.com/postrider/postrider/fanout"
	"github.com/postrider/postrider/ingest"
	"github.com/postrider/postrider/internal/httpd"
)

// What the settings make of each role. The rest of a role's configuration is what the
// process has: see wire_roles.go.

func (c *Config) httpConfig() httpd.Config {
	return httpd.Config{BodyBudget: c.bodyBudget(), DrainTimeout: c.DrainTimeout}
}

func (c *Config) ingestConfig() ingest.Config {
	return ingest.Config{
		Topic: c.brokerConfig().Topics().Events, MaxRecordBytes: int(c.MaxRecordBytes), MaxBodyBytes: int(c.Ingest.MaxBody),
		EventsPerSecond: c.Ingest.TenantEventsPerSecond, BytesPerSecond: c.Ingest.TenantBytesPerSecond,
	}
}

func (c *Config) fanoutConfig() fanout.Config {
	return fanout.Config{Instance: c.Instance, Window: c.Fanout.ClaimWindow}
}

func (c *Config) deliverConfig() deliver.Config {
	return deliver.Config{
		Instance: c.Instance, Slots: c.Deliver.Slots, MaxAge: c.MaxAge, Drain: c.DrainTimeout,
		TenantShare: c.Deliver.TenantShare, DisableAfter: cmp.Or(c.Deliver.DisableAfter, -1),
		PublicURL: c.publicURL(), DetailMetrics: c.DetailMetrics,
	}
}

func (c *Config) controlConfig() control.Config {
	return control.Config{PublicURL: c.publicURL()}
}
