package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Config is the one configuration of all roles. Each field is a flag, an
// environment variable and a key of the configuration file; the flag wins over
// the environment, the environment over the file, the file over the default.
//
// Its tags: for names the roles that have a use for the field ("cluster" stands
// for every role outside dev; absent means all), secret keeps its value out of
// what is printed. The variables in defaults are set by defaultVars and devVars.
type Config struct {
	File configFile `name:"config" env:"POSTRIDER_CONFIG" placeholder:"FILE" help:"YAML file whose keys are these flags, flat (kafka-brokers) or nested (kafka: {brokers: …})."`

	Listen         string        `env:"POSTRIDER_LISTEN" default:"${listen}" help:"Address of the HTTP API, /healthz, /readyz and /metrics."`
	AdminKey       string        `env:"POSTRIDER_ADMIN_KEY" secret:"" placeholder:"KEY" help:"Bearer token that may do everything; at least ${min_admin_key} characters. dev makes one."`
	Instance       string        `env:"POSTRIDER_INSTANCE" default:"${hostname}" help:"Name of this process: stable over restarts, different for each process of a role."`
	DrainTimeout   time.Duration `env:"POSTRIDER_DRAIN_TIMEOUT" default:"20s" help:"How long requests and attempts under way may take to finish at the end: 1s to 1m."`
	LogLevel       string        `env:"POSTRIDER_LOG_LEVEL" default:"info" enum:"debug,info,warn,error" help:"Lowest level that is logged: ${enum}."`
	LogFormat      string        `env:"POSTRIDER_LOG_FORMAT" default:"${log_format}" enum:"json,text" help:"Form of log lines: ${enum}."`
	DetailMetrics  bool          `env:"POSTRIDER_DETAIL_METRICS" for:"deliver" help:"Label the metrics of attempts with tenant and endpoint ids. Only for installations with few of them."`
	Pprof          string        `env:"POSTRIDER_PPROF" placeholder:"HOST:PORT" help:"Address of Go's profiler, /debug/pprof; empty: none. Anyone who reaches it sees memory: keep it on loopback."`
	AllowUnsafe    bool          `env:"POSTRIDER_ALLOW_UNSAFE" for:"cluster" help:"Start although Kafka or Redis are set up in a way that can lose data; /readyz goes on saying so."`
	Start          string        `env:"POSTRIDER_START" for:"cluster" default:"" enum:",earliest,latest" help:"Where a consumer group goes on that lost its commits: earliest or latest. For one start."`
	MaxAge         time.Duration `env:"POSTRIDER_MAX_AGE" for:"deliver,control" default:"120h" help:"Age at which a delivery is given up, unless its endpoint says less; at least 1m, at most a day less than the retention of deliveries."`
	SealKey        string        `env:"POSTRIDER_SEAL_KEY" for:"deliver,control" secret:"" placeholder:"KEYSET" help:"Keyset that signing secrets and credentials are sealed with; \"postrider seal-key\" makes one. dev makes its own."`
	PublicURL      string        `name:"public-url" env:"POSTRIDER_PUBLIC_URL" for:"deliver,control" placeholder:"URL" help:"Where receivers reach the API of control; endpoints with the format thin need it. dev: the address it listens on."`
	MaxRecordBytes byteSize      `env:"POSTRIDER_MAX_RECORD_BYTES" default:"1MiB" help:"Largest event with its attributes, as Kafka stores it: 64KiB to 16MiB."`

	Kafka      kafkaConfig       `embed:"" prefix:"kafka-" group:"Kafka"`
	Topics     topicsConfig      `embed:"" group:"Topics that are created"`
	Redis      redisConfig       `embed:"" prefix:"redis-" group:"Redis"`
	Ingest     ingestConfig      `embed:"" group:"Intake"`
	Fanout     fanoutConfig      `embed:"" group:"Fan-out"`
	Deliver    deliverConfig     `embed:"" group:"Delivery"`
	Dev        devConfig         `embed:"" group:"dev"`
	Provenance map[string]source `kong:"-"`
	// Unknown are the variables of the environment that look like settings and are
	// none.
	Unknown []string `kong:"-"`

	// Embedded says that the process runs its own Kafka and Redis: dev.
	Embedded bool `kong:"-"`
}

type kafkaConfig struct {
	Brokers       []string `env:"POSTRIDER_KAFKA_BROKERS" for:"cluster" placeholder:"HOST:PORT" help:"Seed brokers."`
	TLS           bool     `env:"POSTRIDER_KAFKA_TLS" for:"cluster" help:"Encrypt connections to Kafka."`
	TLSCA         string   `name:"tls-ca" env:"POSTRIDER_KAFKA_TLS_CA" for:"cluster" placeholder:"FILE" help:"PEM file of the authorities to trust instead of the system's."`
	TLSCert       string   `name:"tls-cert" env:"POSTRIDER_KAFKA_TLS_CERT" for:"cluster" placeholder:"FILE" help:"PEM file of the client certificate."`
	TLSKey        string   `name:"tls-key" env:"POSTRIDER_KAFKA_TLS_KEY" for:"cluster" placeholder:"FILE" help:"PEM file of the client certificate's key."`
	SASLMechanism string   `name:"sasl-mechanism" env:"POSTRIDER_KAFKA_SASL_MECHANISM" for:"cluster" default:"" enum:",PLAIN,SCRAM-SHA-256,SCRAM-SHA-512" help:"PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty: none."`
	SASLUser      string   `name:"sasl-user" env:"POSTRIDER_KAFKA_SASL_USER" for:"cluster" placeholder:"USER" help:"User of SASL."`
	SASLPassword  string   `name:"sasl-password" env:"POSTRIDER_KAFKA_SASL_PASSWORD" for:"cluster" secret:"" placeholder:"PASSWORD" help:"Password of SASL."`
}

type topicsConfig struct {
	TopicPrefix          string        `env:"POSTRIDER_TOPIC_PREFIX" default:"postrider." help:"Stands before the names of topics, groups and transactions."`
	ReplicationFactor    int16         `env:"POSTRIDER_REPLICATION_FACTOR" for:"cluster" default:"3" help:"Copies of each partition; below 3 is unsafe."`
	MinInsyncReplicas    int16         `env:"POSTRIDER_MIN_INSYNC_REPLICAS" for:"cluster" default:"2" help:"Copies that a write must reach; below 2 is unsafe."`
	EventsPartitions     int32         `env:"POSTRIDER_EVENTS_PARTITIONS" default:"${events_partitions}" help:"Partitions of events; can be raised later."`
	DeliveriesPartitions int32         `env:"POSTRIDER_DELIVERIES_PARTITIONS" default:"${deliveries_partitions}" help:"Partitions of deliveries, attempts and lanes; fixed for ever."`
	ScheduleShards       int32         `env:"POSTRIDER_SCHEDULE_SHARDS" default:"1" help:"Shards of the timing wheel, 17 partitions each; fixed for ever."`
	RetentionEvents      time.Duration `env:"POSTRIDER_RETENTION_EVENTS" for:"cluster" default:"168h" help:"How long events are kept."`
	RetentionDeliveries  time.Duration `env:"POSTRIDER_RETENTION_DELIVERIES" for:"cluster" default:"168h" help:"How long deliveries are kept; a day more than max-age at least."`
	RetentionAttempts    time.Duration `env:"POSTRIDER_RETENTION_ATTEMPTS" for:"cluster" default:"720h" help:"How long attempts are kept."`
	RetentionSchedule    time.Duration `env:"POSTRIDER_RETENTION_SCHEDULE" for:"cluster" default:"336h" help:"How long scheduled retries are kept."`
	RetentionDecisions   time.Duration `env:"POSTRIDER_RETENTION_DECISIONS" for:"cluster" default:"720h" help:"How long decisions are kept."`
	RetentionDead        time.Duration `env:"POSTRIDER_RETENTION_DEAD" for:"cluster" default:"720h" help:"How long dead deliveries are kept."`
	RetentionRejected    time.Duration `env:"POSTRIDER_RETENTION_REJECTED" for:"cluster" default:"720h" help:"How long rejected records are kept."`
	RetentionAudit       time.Duration `env:"POSTRIDER_RETENTION_AUDIT" for:"cluster" default:"9600h" help:"How long the audit is kept."`
}

type redisConfig struct {
	URL string `name:"url" env:"POSTRIDER_REDIS_URL" for:"cluster" placeholder:"URL" help:"redis:// or rediss://; with ?addr=… for further nodes a cluster, with ?master_name=… the master that Sentinels name."`
}

type ingestConfig struct {
	MaxBody               byteSize `env:"POSTRIDER_MAX_BODY" for:"ingest" default:"16MiB" help:"Largest body of a request, decompressed."`
	TenantEventsPerSecond float64  `env:"POSTRIDER_TENANT_EVENTS_PER_SECOND" for:"ingest" default:"0" help:"What a tenant without a quota of its own may send to each process; 0: no bound."`
	TenantBytesPerSecond  float64  `env:"POSTRIDER_TENANT_BYTES_PER_SECOND" for:"ingest" default:"0" help:"The same in bytes."`
}

type fanoutConfig struct {
	ClaimWindow time.Duration `env:"POSTRIDER_CLAIM_WINDOW" for:"fanout" default:"1h" help:"How long a repeat of an event is recognised; at most half of the retention of events."`
}

type deliverConfig struct {
	Slots           int            `env:"POSTRIDER_SLOTS" for:"deliver" default:"4096" help:"Attempts under way at once; needs three times as many open files, and 256."`
	TenantShare     int            `env:"POSTRIDER_TENANT_SHARE" for:"deliver" default:"50" help:"Percent of the slots that one tenant may hold: of those for quick endpoints, for new and for slow ones alike. 100: no bound."`
	DisableAfter    time.Duration  `env:"POSTRIDER_DISABLE_AFTER" for:"deliver" default:"120h" help:"How long an endpoint may do nothing but fail, at least 20 times, before it is disabled: 12h or more; 0: never."`
	EgressAllowCIDR []netip.Prefix `name:"egress-allow-cidr" env:"POSTRIDER_EGRESS_ALLOW_CIDR" for:"deliver,control" default:"${egress_allow_cidr}" placeholder:"CIDR" help:"Ranges that endpoints may be in although they are not public. Metadata addresses stay blocked."`

	EgressNAT64Prefix    []netip.Prefix `name:"egress-nat64-prefix" env:"POSTRIDER_EGRESS_NAT64_PREFIX" for:"deliver,control" placeholder:"CIDR" help:"IPv6 prefixes of NAT64 gateways of this network: addresses behind them are checked as the IPv4 addresses inside. 64:ff9b::/96 and 64:ff9b:1::/48 are known."`
	EgressProxy          string         `name:"egress-proxy" env:"POSTRIDER_EGRESS_PROXY" for:"deliver" placeholder:"URL" help:"Proxy for deliveries: http://, https:// or socks5://, with user:password@ where it wants them. It is asked for IP addresses that were checked here; its own address may be private."`
	EgressDNSTTL         time.Duration  `name:"egress-dns-ttl" env:"POSTRIDER_EGRESS_DNS_TTL" for:"deliver" default:"30s" help:"How long the addresses of an endpoint's name are used for new connections: 0s (off) to 1h."`
	EgressDNSNegativeTTL time.Duration  `name:"egress-dns-negative-ttl" env:"POSTRIDER_EGRESS_DNS_NEGATIVE_TTL" for:"deliver" default:"5s" help:"How long a failed look-up of a name counts: 0s (off) to 1h."`
}

type devConfig struct {
	Data string `env:"POSTRIDER_DATA" for:"dev" default:"./postrider-data" help:"Folder of the embedded broker and of the keys."`
	Sync bool   `env:"POSTRIDER_SYNC" for:"dev" help:"Write to the disk before acknowledging: survives power cuts, too."`
}

// byteSize is a number of bytes, written as 1048576, 1MiB or 64KiB.
type byteSize int64

func sizeUnits() []string { return []string{"GiB", "MiB", "KiB"} }

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *byteSize) UnmarshalText(text []byte) error {
	number, factor := string(text), int64(1)
	for i, unit := range sizeUnits() {
		if rest, ok := strings.CutSuffix(number, unit); ok {
			number, factor = rest, 1<<(10*(len(sizeUnits())-i))
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > (1<<40)/factor {
		return fmt.Errorf("size %q: want bytes such as 1048576, 64KiB or 16MiB", text)
	}
	*b = byteSize(n * factor)
	return nil
}

// String returns the size in its largest whole unit.
func (b byteSize) String() string {
	for i, unit := range sizeUnits() {
		if factor := byteSize(1) << (10 * (len(sizeUnits()) - i)); b >= factor && b%factor == 0 {
			return strconv.FormatInt(int64(b/factor), 10) + unit
		}
	}
	return strconv.FormatInt(int64(b), 10)
}
