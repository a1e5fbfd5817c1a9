package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/postrider/postrider/internal/broker"
)

// effects names, for each setting, the test that shows what it does. The test of
// a name is in the repository, as "folder/file_test.go:TestName".
func effects() map[string]string {
	const (
		tls      = "internal/broker/auth_test.go:TestTLS"
		sasl     = "internal/broker/auth_test.go:TestSASL"
		settings = "cmd/postrider/config_effect_test.go:TestTopicSettings"
		system   = "e2e/pairs_test.go:TestEveryPairOnce"
	)
	return map[string]string{
		"listen":                   "cmd/postrider/demo_test.go:TestDemo",
		"admin-key":                "internal/auth/auth_test.go:TestLookup",
		"instance":                 "internal/telemetry/log_test.go:TestProcessLoggerNamesRoleAndInstance",
		"drain-timeout":            "internal/httpd/httpd_test.go:TestDrainTimeout",
		"log-level":                "internal/telemetry/log_test.go:TestLogLevelAndFormat",
		"log-format":               "internal/telemetry/log_test.go:TestLogLevelAndFormat",
		"detail-metrics":           "deliver/metrics_test.go:TestDetailMetrics",
		"allow-unsafe":             "internal/broker/ensure_test.go:TestEnsureRefusesUnsafeSettings",
		"pprof":                    "cmd/postrider/pprof_test.go:TestPprof",
		"start":                    "internal/broker/group_test.go:TestDecide",
		"tenant-share":             "deliver/limits_test.go:TestTenantShare",
		"disable-after":            "deliver/report_test.go:TestDisableRules",
		"max-age":                  "deliver/request_test.go:TestTargetFields",
		"public-url":               "control/thin_test.go:TestThinNeedsPublicURL",
		"seal-key":                 "internal/registry/unit_test.go:TestSealer",
		"max-record-bytes":         "internal/broker/ensure_test.go:TestSizeLimits",
		"kafka-brokers":            system,
		"kafka-tls":                tls,
		"kafka-tls-ca":             tls,
		"kafka-tls-cert":           tls,
		"kafka-tls-key":            tls,
		"kafka-sasl-mechanism":     sasl,
		"kafka-sasl-user":          sasl,
		"kafka-sasl-password":      sasl,
		"topic-prefix":             settings,
		"replication-factor":       settings,
		"min-insync-replicas":      settings,
		"events-partitions":        settings,
		"deliveries-partitions":    settings,
		"schedule-shards":          settings,
		"retention-events":         settings,
		"retention-deliveries":     settings,
		"retention-attempts":       settings,
		"retention-schedule":       settings,
		"retention-decisions":      settings,
		"retention-dead":           settings,
		"retention-rejected":       settings,
		"retention-audit":          settings,
		"redis-url":                system,
		"max-body":                 "ingest/forms_test.go:TestCompressed",
		"tenant-events-per-second": "ingest/quota_test.go:TestQuotas",
		"tenant-bytes-per-second":  "ingest/quota_test.go:TestQuotas",
		"claim-window":             "fanout/config_test.go:TestWindowIsTheClaimsLife",
		"slots":                    "deliver/slots_test.go:TestSlotsShares",
		"egress-allow-cidr":        "internal/egress/guard_test.go:TestAllowCIDRs",
		"egress-nat64-prefix":      "internal/egress/ranges_test.go:TestEmbeddings",
		"egress-proxy":             "cmd/postrider/proxy_test.go:TestDeliveriesThroughAProxy",
		"egress-dns-ttl":           "internal/egress/names_test.go:TestDNSAnswersAreRemembered",
		"egress-dns-negative-ttl":  "internal/egress/names_test.go:TestDNSAnswersAreRemembered",
		"data":                     "cmd/postrider/demo_test.go:TestDemo",
		"sync":                     "internal/broker/sync_test.go:TestSyncAsksForSynchronousWrites",
	}
}

// TestEveryFieldHasAnEffect demands that the table is complete and its tests are
// there.
func TestEveryFieldHasAnEffect(t *testing.T) {
	table := effects()
	for name := range fieldValues() {
		file, test, ok := strings.Cut(table[name], ":")
		if !ok {
			t.Errorf("%s: no test shows its effect", name)
			continue
		}
		text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(file)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !regexp.MustCompile(`(?m)^func ` + test + `\(`).Match(text) {
			t.Errorf("%s: %s has no %s", name, file, test)
		}
		delete(table, name)
	}
	for name, test := range table {
		if test != "" {
			t.Errorf("%s is no setting", name)
		}
	}
}

// TestTopicSettings reads back from a broker what the settings made of it.
func TestTopicSettings(t *testing.T) {
	e, err := broker.StartEmbedded(broker.EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	c := valid(t, "--topic-prefix=x.", "--events-partitions=3", "--deliveries-partitions=4", "--schedule-shards=2",
		"--replication-factor=1", "--min-insync-replicas=1", "--allow-unsafe",
		"--retention-events=201h", "--retention-deliveries=202h", "--retention-attempts=803h", "--retention-schedule=404h",
		"--retention-decisions=205h", "--retention-dead=206h", "--retention-rejected=207h", "--retention-audit=208h")
	cfg := c.brokerConfig()
	cfg.Brokers = e.Brokers()
	client, err := cfg.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := broker.Ensure(t.Context(), client, cfg); err != nil {
		t.Fatal(err)
	}
	admin := kadm.NewClient(client)
	names := broker.Names("x.")
	topics, err := admin.ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	partitions := map[string]int{}
	for _, name := range []string{names.Events, names.Deliveries, names.Attempts, names.Schedule} {
		partitions[name] = len(topics[name].Partitions)
	}
	if diff := cmp.Diff(map[string]int{"x.events": 3, "x.deliveries": 4, "x.attempts": 4, "x.schedule": 34}, partitions); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
	for name, hours := range map[string]int{
		names.Events: 201, names.Pages: 201, names.Deliveries: 202, names.Attempts: 803, names.Schedule: 404,
		names.Decisions: 205, names.Dead: 206, names.Rejected: 207, names.Audit: 208,
	} {
		if got := setting(t, admin, name, "retention.ms"); got != int64(hours)*time.Hour.Milliseconds() {
			t.Errorf("%s is kept for %d ms, want %d h", name, got, hours)
		}
		if got := setting(t, admin, name, "min.insync.replicas"); got != 1 {
			t.Errorf("%s: min.insync.replicas is %d, want 1", name, got)
		}
		if got := topics[name].Partitions.NumReplicas(); got != 1 {
			t.Errorf("%s has %d replicas, want 1", name, got)
		}
	}
}

// setting reads a number of a topic's configuration.
func setting(t *testing.T, admin *kadm.Client, topic, key string) int64 {
	t.Helper()
	configs, err := admin.DescribeTopicConfigs(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configs[0].Configs {
		if c.Key == key {
			n, err := strconv.ParseInt(c.MaybeValue(), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}
