package main

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/postrider/postrider/deliver"
	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/egress"
)

const (
	minDrain       = time.Second
	maxDrain       = time.Minute
	minRecordBytes = 64 << 10
	// Half of what readers unpack at once.
	maxRecordBytes = broker.MaxBatchBytes / 2
	// maxBodyBytes keeps the buffers of ingest in proportion.
	maxBodyBytes = 256 << 20
	maxPublicURL = 1024
	// maxDNSTTL keeps an endpoint that moves from being lost for long.
	maxDNSTTL = time.Hour
)

// check returns all that is wrong with the configuration for these roles.
func (c *Config) check(roles []string) error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	runs := func(role string) bool { return slices.Contains(roles, role) }

	need(c.Embedded || len(c.Kafka.Brokers) > 0, "kafka-brokers: at least one is needed (--kafka-brokers, POSTRIDER_KAFKA_BROKERS)")
	need(c.Embedded || c.Redis.URL != "", "redis-url: is needed (--redis-url, POSTRIDER_REDIS_URL)")
	need(c.AdminKey != "", "admin-key: must not be empty (POSTRIDER_ADMIN_KEY)")
	need(c.AdminKey == "" || len(c.AdminKey) >= minAdminKey, "admin-key: must have at least %d characters", minAdminKey)
	need(c.Instance != "", "instance: must not be empty (--instance, POSTRIDER_INSTANCE)")
	need(c.SealKey != "" || !runs("control") && !runs("deliver"), `seal-key: is needed (POSTRIDER_SEAL_KEY); "postrider seal-key" makes one`)
	need(c.DrainTimeout >= minDrain && c.DrainTimeout <= maxDrain, "drain-timeout %s: must be %s to %s", c.DrainTimeout, minDrain, maxDrain)
	need(c.MaxRecordBytes >= minRecordBytes && c.MaxRecordBytes <= maxRecordBytes,
		"max-record-bytes %s: must be %s to %s", c.MaxRecordBytes, byteSize(minRecordBytes), byteSize(maxRecordBytes))
	need(c.Ingest.MaxBody >= c.MaxRecordBytes && c.Ingest.MaxBody <= maxBodyBytes,
		"max-body %s: must be %s (max-record-bytes) to %s", c.Ingest.MaxBody, c.MaxRecordBytes, byteSize(maxBodyBytes))
	need(c.Ingest.TenantEventsPerSecond >= 0, "tenant-events-per-second: must not be negative")
	need(c.Ingest.TenantBytesPerSecond >= 0, "tenant-bytes-per-second: must not be negative")
	need(c.Fanout.ClaimWindow > 0 && c.Fanout.ClaimWindow <= c.Topics.RetentionEvents/2,
		"claim-window %s: must be at most half of retention-events, %s", c.Fanout.ClaimWindow, c.Topics.RetentionEvents)
	need(c.MaxAge >= deliver.MinMaxAge, "max-age %s: must be at least %s", c.MaxAge, deliver.MinMaxAge)
	need(c.Deliver.Slots >= deliver.MinSlots && c.Deliver.Slots <= deliver.MaxSlots,
		"slots %d: must be %d to %d", c.Deliver.Slots, deliver.MinSlots, deliver.MaxSlots)
	need(c.Deliver.TenantShare > 0 && c.Deliver.TenantShare <= 100, "tenant-share %d: must be 1 to 100 percent", c.Deliver.TenantShare)
	need(c.Deliver.DisableAfter == 0 || c.Deliver.DisableAfter >= deliver.MinDisableAfter,
		"disable-after %s: must be 0 (never) or at least %s", c.Deliver.DisableAfter, deliver.MinDisableAfter)
	need(c.Deliver.EgressDNSTTL >= 0 && c.Deliver.EgressDNSTTL <= maxDNSTTL, "egress-dns-ttl %s: must be 0s to %s", c.Deliver.EgressDNSTTL, maxDNSTTL)
	need(c.Deliver.EgressDNSNegativeTTL >= 0 && c.Deliver.EgressDNSNegativeTTL <= maxDNSTTL,
		"egress-dns-negative-ttl %s: must be 0s to %s", c.Deliver.EgressDNSNegativeTTL, maxDNSTTL)
	errs = append(errs, c.checkEgress())
	need(c.Topics.TopicPrefix != "", "topic-prefix: must not be empty")
	errs = append(errs, c.checkTLS(), c.checkTopics(), c.checkPublicURL())
	return errors.Join(errs...)
}

func (c *Config) checkEgress() error {
	cfg, err := c.egressConfig()
	if err != nil {
		return err
	}
	if _, err := egress.New(egress.Config{NAT64Prefixes: cfg.NAT64Prefixes}); err != nil {
		return fmt.Errorf("egress-nat64-prefix: %w", err)
	}
	return nil
}

func (c *Config) checkTLS() error {
	k := c.Kafka
	switch {
	case !k.TLS && (k.TLSCA != "" || k.TLSCert != "" || k.TLSKey != ""):
		return errors.New("kafka-tls-ca, -cert and -key: have no effect without kafka-tls")
	case (k.TLSCert == "") != (k.TLSKey == ""):
		return errors.New("kafka-tls-cert and kafka-tls-key: go together")
	case k.SASLMechanism == "" && (k.SASLUser != "" || k.SASLPassword != ""):
		return errors.New("kafka-sasl-user and -password: have no effect without kafka-sasl-mechanism")
	}
	return nil
}

// checkPublicURL refuses what receivers could not put a path behind.
func (c *Config) checkPublicURL() error {
	if c.PublicURL == "" {
		return nil
	}
	u, err := url.Parse(c.PublicURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(c.PublicURL) > maxPublicURL {
		return fmt.Errorf("public-url: want http:// or https://, a host and perhaps a path, nothing else, at most %d characters", maxPublicURL)
	}
	return nil
}

// publicURL is where receivers reach the API: in dev, where nothing is said, the
// address it listens on, on this machine if that is all of its addresses. A port
// that is chosen at the start is not known here: then there is none.
func (c *Config) publicURL() string {
	if c.PublicURL == "" && c.Embedded && !strings.HasSuffix(c.Listen, ":0") {
		return apiURL(c.Listen)
	}
	return c.PublicURL
}

// checkTopics lets the broker package judge what it will work with.
func (c *Config) checkTopics() error {
	t := c.Topics
	for name, n := range map[string]int32{
		"events-partitions": t.EventsPartitions, "deliveries-partitions": t.DeliveriesPartitions, "schedule-shards": t.ScheduleShards,
	} {
		if n <= 0 {
			return fmt.Errorf("%s: must be positive", name)
		}
	}
	if !c.Embedded && (len(c.Kafka.Brokers) == 0 || t.ReplicationFactor <= 0 || t.MinInsyncReplicas <= 0) {
		if len(c.Kafka.Brokers) == 0 {
			return nil // said already
		}
		return errors.New("replication-factor and min-insync-replicas: must be positive")
	}
	b := c.brokerConfig()
	if c.Embedded {
		b.Brokers = []string{"embedded"} // its address is known when it runs
	}
	return b.Validate()
}

// brokerConfig is what the roles are told about Kafka. The caller adds the
// addresses of an embedded broker, version and logger.
func (c *Config) brokerConfig() broker.Config {
	k, t := c.Kafka, c.Topics
	cfg := broker.Config{
		Brokers: k.Brokers,
		Prefix:  t.TopicPrefix,
		TLS:     broker.TLS{Enabled: k.TLS, CAFile: k.TLSCA, CertFile: k.TLSCert, KeyFile: k.TLSKey},
		SASL:    broker.SASL{Mechanism: k.SASLMechanism, User: k.SASLUser, Password: k.SASLPassword},
		Retention: broker.Retention{
			Events: t.RetentionEvents, Deliveries: t.RetentionDeliveries, Attempts: t.RetentionAttempts,
			Schedule: t.RetentionSchedule, Decisions: t.RetentionDecisions, Dead: t.RetentionDead,
			Rejected: t.RetentionRejected, Audit: t.RetentionAudit,
		},
		Partitions: broker.Partitions{
			Events: t.EventsPartitions, Deliveries: t.DeliveriesPartitions, ScheduleShards: t.ScheduleShards,
		},
		MaxMessageBytes: int32(c.MaxRecordBytes), //nolint:gosec // check bounds it
		MaxAge:          c.MaxAge,
		AllowUnsafe:     c.AllowUnsafe,
		Start:           broker.Start(c.Start),
		Dev:             c.Embedded,
		Embedded:        c.Embedded,
	}
	if !c.Embedded {
		cfg.ReplicationFactor, cfg.MinISR = t.ReplicationFactor, t.MinInsyncReplicas
	}
	return cfg
}

// egressConfig is what may be reached by deliveries, and how. An error does not
// quote the proxy's URL.
func (c *Config) egressConfig() (egress.Config, error) {
	d := &c.Deliver
	cfg := egress.Config{
		AllowCIDRs: d.EgressAllowCIDR, NAT64Prefixes: d.EgressNAT64Prefix, DNSTTL: d.EgressDNSTTL, DNSNegativeTTL: d.EgressDNSNegativeTTL,
		// Connections are kept for as many attempts as may be under way, also where
		// all endpoints are on one host: dialling anew costs a fifth of the CPU.
		MaxIdleConns: d.Slots, MaxIdlePerHost: d.Slots,
	}
	if d.EgressProxy != "" {
		proxy, err := egress.ParseProxy(d.EgressProxy)
		if err != nil {
			return cfg, fmt.Errorf("egress-proxy: %w", err)
		}
		cfg.Proxy = proxy
	}
	return cfg, nil
}

// hidden returns a URL without its passwords, or its user where that is all.
func hidden(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(not a URL)"
	}
	if _, both := u.User.Password(); u.User != nil && !both {
		u.User = url.User("xxxxx")
	}
	if query := u.Query(); query.Has("password") { // that of the master that Sentinels name
		query.Set("password", "xxxxx")
		u.RawQuery = query.Encode()
	}
	return u.Redacted()
}
