package main

import (
	"fmt"
	"io"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/egress"
)

// fieldValues has two values for each setting, as they are printed; the first is
// not the default.
func fieldValues() map[string][]string {
	return map[string][]string{
		"listen":                   {"10.0.0.1:1", "10.0.0.2:2"},
		"admin-key":                {"a-secret-of-a-test", "b-secret-of-a-test"},
		"instance":                 {"one", "two"},
		"drain-timeout":            {"7s", "8s"},
		"log-level":                {"debug", "error"},
		"log-format":               {"text", "json"},
		"detail-metrics":           {"true", "false"},
		"pprof":                    {"127.0.0.1:1", "127.0.0.1:2"},
		"allow-unsafe":             {"true", "false"},
		"start":                    {"earliest", "latest"},
		"max-age":                  {"36h0m0s", "48h0m0s"},
		"public-url":               {"https://a.example", "http://b.example:8080/x"},
		"seal-key":                 {"c-secret-of-a-test", "d-secret-of-a-test"},
		"max-record-bytes":         {"2MiB", "65537"},
		"kafka-brokers":            {"a:1,b:2", "c:3"},
		"kafka-tls":                {"true", "false"},
		"kafka-tls-ca":             {"/ca.pem", "/ca2.pem"},
		"kafka-tls-cert":           {"/cert.pem", "/cert2.pem"},
		"kafka-tls-key":            {"/key.pem", "/key2.pem"},
		"kafka-sasl-mechanism":     {"PLAIN", "SCRAM-SHA-512"},
		"kafka-sasl-user":          {"u", "v"},
		"kafka-sasl-password":      {"e-secret-of-a-test", "f-secret-of-a-test"},
		"topic-prefix":             {"x.", "y."},
		"replication-factor":       {"5", "4"},
		"min-insync-replicas":      {"3", "1"},
		"events-partitions":        {"48", "16"},
		"deliveries-partitions":    {"128", "16"},
		"schedule-shards":          {"2", "3"},
		"retention-events":         {"100h0m0s", "101h0m0s"},
		"retention-deliveries":     {"200h0m0s", "201h0m0s"},
		"retention-attempts":       {"300h0m0s", "301h0m0s"},
		"retention-schedule":       {"400h0m0s", "401h0m0s"},
		"retention-decisions":      {"500h0m0s", "501h0m0s"},
		"retention-dead":           {"600h0m0s", "601h0m0s"},
		"retention-rejected":       {"700h0m0s", "701h0m0s"},
		"retention-audit":          {"800h0m0s", "801h0m0s"},
		"redis-url":                {"redis://a:1/0", "redis://b:2/0"},
		"max-body":                 {"8MiB", "9MiB"},
		"tenant-events-per-second": {"100", "200"},
		"tenant-bytes-per-second":  {"1000", "2000"},
		"claim-window":             {"2h0m0s", "3h0m0s"},
		"slots":                    {"77", "78"},
		"tenant-share":             {"30", "70"},
		"disable-after":            {"24h0m0s", "48h0m0s"},
		"egress-allow-cidr":        {"10.0.0.0/8,fd00::/8", "192.168.0.0/16"},
		"egress-nat64-prefix":      {"2001:db8::/96", "fd00:64::/96,fd01:64::/64"},
		"egress-proxy":             {"http://a:3128", "socks5://b:1080"},
		"egress-dns-ttl":           {"1m0s", "0s"},
		"egress-dns-negative-ttl":  {"2s", "0s"},
		"data":                     {"/tmp/x", "/tmp/y"},
		"sync":                     {"true", "false"},
	}
}

// settingsOf parses a command line of the command config and returns its flags.
func settingsOf(t *testing.T, args ...string) ([]*kong.Flag, map[string]source) {
	t.Helper()
	parser, err := newParser(streams{strings.NewReader(""), io.Discard, io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parser.Parse(append([]string{"config"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	flags := slices.DeleteFunc(slices.Clone(parsed.Selected().Flags), func(f *kong.Flag) bool {
		return f.Name == "config" || f.Name == "help"
	})
	return flags, provenance(parsed, parsed.Selected())
}

// TestEveryField sets the fields by flag, environment and file, and checks their
// precedence.
func TestEveryField(t *testing.T) {
	values := fieldValues()
	flags, _ := settingsOf(t)
	names := make([]string, len(flags))
	for i, f := range flags {
		names[i] = f.Name
		if diff := cmp.Diff([]string{envName(f.Name)}, f.Envs); diff != "" {
			t.Errorf("%s: environment (-want +got):\n%s", f.Name, diff)
		}
	}
	slices.Sort(names)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(values)), names); diff != "" {
		t.Fatalf("fields in this test and in Config (-test +config):\n%s", diff)
	}
	var first, second []string
	var file strings.Builder
	for name, v := range values {
		first, second = append(first, "--"+name+"="+v[0]), append(second, "--"+name+"="+v[1])
		_, _ = fmt.Fprintf(&file, "%s: %q\n", strings.ReplaceAll(name, "-", "_"), v[0])
	}
	path := "--config=" + write(t, file.String())
	expect(t, 0, fromFlag, first...)
	expect(t, 1, fromFlag, second...)
	expect(t, 0, fromFile, path)
	expect(t, 1, fromFlag, append(second, path)...)
	for name, v := range values {
		t.Setenv(envName(name), v[1])
	}
	expect(t, 1, fromEnvironment)
	expect(t, 1, fromEnvironment, path)
	expect(t, 0, fromFlag, first...)
}

func envName(name string) string {
	return "POSTRIDER_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// expect parses a command line after which every field has its value with that
// index.
func expect(t *testing.T, index int, from source, args ...string) {
	t.Helper()
	flags, sources := settingsOf(t, args...)
	for _, f := range flags {
		want := fieldValues()[f.Name][index]
		if got := fmt.Sprint(plainValue(f.Target.Interface())); got != want || sources[f.Name] != from {
			t.Errorf("%s is %q from the %s, want %q from the %s", f.Name, got, sources[f.Name], want, from)
		}
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestParseConfig(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       map[string]string
		err        string
	}{
		{"empty", "# nothing\n", map[string]string{}, ""},
		{"null", "null", map[string]string{}, ""},
		{"flat", "kafka-brokers: a:1\nmax_age: 36h\n", map[string]string{"kafka-brokers": "a:1", "max-age": "36h"}, ""},
		{"nested", "kafka:\n  brokers: [a:1, b:2]\n  tls: true\n", map[string]string{"kafka-brokers": "a:1,b:2", "kafka-tls": "true"}, ""},
		{"deep", "kafka: {tls: {ca: /x}}", map[string]string{"kafka-tls-ca": "/x"}, ""},
		{"no value", "listen:\nslots: 5\n", map[string]string{"slots": "5"}, ""},
		{"twice", "kafka: {brokers: a}\nkafka-brokers: b\n", nil, "kafka-brokers is given twice"},
		{"a list of maps", "kafka-brokers: [{a: 1}]", nil, "kafka-brokers"},
		{"a comma", "kafka-brokers: ['a,b']", nil, "without comma"},
		{"a list", "- a", nil, "want keys"},
		{"no yaml", "a: [", nil, "line"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseConfig([]byte(tc.text))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want %q in it", err, tc.err)
				}
				return
			}
			if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
				t.Errorf("error %v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, seed := range []string{"a: 1", "a: {b: [1, 2]}", "&x a: *x", "? [a]\n: b", "a: !!binary x"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		values, err := parseConfig(text)
		for name := range values {
			if err == nil && strings.Contains(name, "_") {
				t.Errorf("%q is no flag name", name)
			}
		}
	})
}

func TestUnknownKey(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"slotz: 5", `unknown key "slotz"`},
		{"kafka: {broker: a}", `unknown key "kafka-broker"`},
		{"config: other.yaml", `unknown key "config"`},
		{"url: x", `unknown key "url"`}, // a flag, but of the client
	} {
		got := command(t, "", "config", "--config="+write(t, tc.text))
		if got.code == 0 || !strings.Contains(got.err, tc.want) {
			t.Errorf("%s: code %d, error %q, want %q in it", tc.text, got.code, got.err, tc.want)
		}
	}
	if got := command(t, "", "config", "--config=/does/not/exist"); got.code == 0 || !strings.Contains(got.err, "/does/not/exist") {
		t.Errorf("missing file: code %d, error %q", got.code, got.err)
	}
}

// TestPrintedConfig reads back what "postrider config" prints.
func TestPrintedConfig(t *testing.T) {
	t.Setenv("POSTRIDER_ADMIN_KEY", "a-secret-of-a-test")
	got := command(t, "", "config", "--slots=77", "--redis-url=redis://u:hunter2@a:1/0?master_name=m&password=hunter2", "--egress-allow-cidr=10.0.0.0/8,fd00::/8",
		"--egress-proxy=https://u:hunter2@proxy:3128")
	for _, want := range []string{
		"slots: 77 # flag\n", "# admin-key: (hidden, from the environment)\n", "# seal-key: (not set)\n", "listen: :8080 # default\n",
		"max-age: 120h0m0s # default\n", "egress-allow-cidr: 10.0.0.0/8,fd00::/8 # flag\n", "egress-proxy: https://u:xxxxx@proxy:3128 # flag\n",
	} {
		if !strings.Contains(got.out, want) {
			t.Errorf("%q is missing in:\n%s", want, got.out)
		}
	}
	if strings.Contains(got.out, "secret-of-a-test") || strings.Contains(got.out, "hunter2") {
		t.Errorf("a secret is shown:\n%s", got.out)
	}
	again := command(t, "", "config", "--config="+write(t, got.out))
	if !strings.Contains(again.out, "slots: 77 # file\n") {
		t.Errorf("read back: code %d, error %s, output:\n%s", again.code, again.err, again.out)
	}
}

// valid is a configuration that every role accepts.
func valid(t *testing.T, args ...string) *Config {
	t.Helper()
	if !slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "--kafka-brokers") }) {
		args = append(args, "--kafka-brokers=a:1") // a list, which a second flag adds to
	}
	parser, err := parserOf(new(struct {
		All allCmd `cmd:""`
	}), streams{strings.NewReader(""), io.Discard, io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parser.Parse(append([]string{
		"all", "--redis-url=redis://a", "--admin-key=0123456789abcdef", "--seal-key=k", "--instance=i",
	}, args...))
	if err != nil {
		t.Fatal(err)
	}
	return &parsed.Selected().Target.Addr().Interface().(*allCmd).Config
}

func TestCheck(t *testing.T) {
	all := roles("all")
	if err := valid(t).check(all); err != nil {
		t.Fatalf("the valid configuration: %v", err)
	}
	for _, tc := range []struct{ arg, want string }{
		{"--kafka-brokers=", "kafka-brokers"},
		{"--redis-url=", "redis-url"},
		{"--admin-key=", "admin-key: must not be empty"},
		{"--admin-key=short", "at least 16"},
		{"--seal-key=", "seal-key"},
		{"--instance=", "instance"},
		{"--drain-timeout=2m", "drain-timeout"},
		{"--max-record-bytes=1KiB", "max-record-bytes"},
		{"--max-record-bytes=17MiB", "max-record-bytes 17MiB: must be 64KiB to 16MiB"},
		{"--max-body=1KiB", "max-body"},
		{"--tenant-events-per-second=-1", "tenant-events-per-second"},
		{"--tenant-bytes-per-second=-1", "tenant-bytes-per-second"},
		{"--claim-window=100h", "claim-window"},
		{"--slots=3", "slots 3: must be 4 to 131072"},
		{"--slots=131073", "slots 131073"},
		{"--tenant-share=0", "tenant-share"},
		{"--tenant-share=101", "tenant-share"},
		{"--disable-after=11h", "disable-after"},
		{"--disable-after=-1h", "disable-after"},
		{"--max-age=59s", "max-age"},
		{"--public-url=a.example", "public-url"},
		{"--public-url=https://a.example/?b", "public-url"},
		{"--public-url=https://a:b@a.example", "public-url"},
		{"--egress-proxy=ftp://u:hunter2@a", "egress-proxy: not usable as a proxy: the scheme"},
		{"--egress-proxy=http://u:hunter2", "egress-proxy: not usable as a proxy: the URL can't be parsed"},
		{"--egress-nat64-prefix=fd00::/95", "egress-nat64-prefix"},
		{"--egress-dns-ttl=-1s", "egress-dns-ttl"},
		{"--egress-dns-ttl=2h", "egress-dns-ttl"},
		{"--egress-dns-negative-ttl=-1s", "egress-dns-negative-ttl"},
		{"--egress-dns-negative-ttl=2h", "egress-dns-negative-ttl"},
		{"--topic-prefix=", "topic-prefix"},
		{"--kafka-tls-ca=/x", "without kafka-tls"},
		{"--kafka-sasl-user=u", "without kafka-sasl-mechanism"},
		{"--kafka-sasl-mechanism=PLAIN", "password"},
		{"--min-insync-replicas=4", "replication factor"},
		{"--replication-factor=0", "replication-factor"},
		{"--events-partitions=0", "events-partitions"},
		{"--deliveries-partitions=0", "deliveries-partitions"},
		{"--schedule-shards=0", "schedule-shards"},
		{"--max-age=167h", "retention"},
	} {
		err := valid(t, tc.arg).check(all)
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: error %v, want %q in it", tc.arg, err, tc.want)
		}
	}
	if err := valid(t, "--seal-key=").check([]string{"ingest", "fanout"}); err != nil {
		t.Errorf("ingest and fanout need no seal key: %v", err)
	}
}

// TestBrokerConfig sees that each setting of Kafka reaches the broker package.
func TestBrokerConfig(t *testing.T) {
	same := valid(t).brokerConfig()
	for _, name := range []string{
		"kafka-brokers", "kafka-tls", "kafka-tls-ca", "kafka-tls-cert", "kafka-tls-key", "kafka-sasl-mechanism", "kafka-sasl-user",
		"kafka-sasl-password", "topic-prefix", "replication-factor", "min-insync-replicas", "events-partitions",
		"deliveries-partitions", "schedule-shards", "retention-events", "retention-deliveries", "retention-attempts",
		"retention-schedule", "retention-decisions", "retention-dead", "retention-rejected", "retention-audit",
		"max-record-bytes", "max-age", "allow-unsafe", "start",
	} {
		changed := valid(t, "--"+name+"="+fieldValues()[name][0]).brokerConfig()
		if diff := cmp.Diff(same, changed); name != "kafka-brokers" && strings.Count(diff, "\n+") != 1 || diff == "" {
			t.Errorf("--%s changes not exactly one field (-default +changed):\n%s", name, diff)
		}
	}
}

// TestRoleConfigs holds which field of which role each setting changes: all of them,
// and no other. Those that are not here are in TestBrokerConfig, TestEgressConfig, or
// change what the process itself does.
func TestRoleConfigs(t *testing.T) {
	roles := func(args ...string) map[string]any {
		c := valid(t, args...)
		return map[string]any{
			"http": c.httpConfig(), "ingest": c.ingestConfig(), "fanout": c.fanoutConfig(), "deliver": c.deliverConfig(), "control": c.controlConfig(),
		}
	}
	want := map[string][]string{
		"instance":                 {"fanout.Instance", "deliver.Instance"},
		"drain-timeout":            {"http.DrainTimeout", "deliver.Drain"},
		"max-body":                 {"http.BodyBudget", "ingest.MaxBodyBytes"},
		"max-record-bytes":         {"ingest.MaxRecordBytes"},
		"topic-prefix":             {"ingest.Topic"},
		"tenant-events-per-second": {"ingest.EventsPerSecond"},
		"tenant-bytes-per-second":  {"ingest.BytesPerSecond"},
		"claim-window":             {"fanout.Window"},
		"slots":                    {"deliver.Slots"},
		"tenant-share":             {"deliver.TenantShare"},
		"disable-after":            {"deliver.DisableAfter"},
		"max-age":                  {"deliver.MaxAge"},
		"public-url":               {"deliver.PublicURL", "control.PublicURL"},
		"detail-metrics":           {"deliver.DetailMetrics"},
	}
	values := fieldValues()
	values["max-body"] = []string{"40MiB", "40MiB"} // at which the budget grows, too
	values["max-record-bytes"] = []string{"14MiB", "14MiB"}
	same := roles()
	for name := range values {
		if name == "data" || name == "sync" {
			continue // of dev alone
		}
		args := []string{"--" + name + "=" + values[name][0]}
		if name == "max-body" {
			args = append(args, "--max-record-bytes=14MiB")
		}
		var changed []string
		for role, cfg := range roles(args...) {
			was, is := reflect.ValueOf(same[role]), reflect.ValueOf(cfg)
			for i := range is.NumField() {
				field := is.Type().Field(i)
				if field.IsExported() && !reflect.DeepEqual(was.Field(i).Interface(), is.Field(i).Interface()) {
					changed = append(changed, role+"."+field.Name)
				}
			}
		}
		slices.Sort(changed)
		expected := slices.Sorted(slices.Values(want[name]))
		if name == "max-body" {
			expected = append(expected, "ingest.MaxRecordBytes") // which has to fit
		}
		if !slices.Equal(changed, expected) {
			t.Errorf("--%s changes %q, want %q", name, changed, expected)
		}
	}
}

func TestEgressConfig(t *testing.T) {
	got, err := valid(t, "--slots=7", "--egress-allow-cidr=10.0.0.0/8,fd00::/8", "--egress-nat64-prefix=fd64::/96", "--egress-proxy=socks5://u:p@b", "--egress-dns-ttl=1m",
		"--egress-dns-negative-ttl=2s").egressConfig()
	if err != nil {
		t.Fatal(err)
	}
	want := egress.Config{
		AllowCIDRs:    []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
		NAT64Prefixes: []netip.Prefix{netip.MustParsePrefix("fd64::/96")}, MaxIdleConns: 7, MaxIdlePerHost: 7,
		Proxy: &url.URL{Scheme: "socks5", User: url.UserPassword("u", "p"), Host: "b"}, DNSTTL: time.Minute, DNSNegativeTTL: 2 * time.Second,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, err := valid(t).egressConfig(); err != nil || got.Proxy != nil || got.DNSTTL != 30*time.Second || got.DNSNegativeTTL != 5*time.Second {
		t.Errorf("by default %+v, %v", got, err)
	}
	if got := hidden("socks5://token@b"); got != "socks5://xxxxx@b" {
		t.Errorf("a user without a password is shown as %s", got)
	}
}

func TestByteSize(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0", "1": "1", "1024": "1KiB", "1536": "1536", "1MiB": "1MiB", "1024KiB": "1MiB", "3GiB": "3GiB", "1025KiB": "1025KiB",
	} {
		var b byteSize
		if err := b.UnmarshalText([]byte(text)); err != nil || b.String() != want {
			t.Errorf("%s: %s, %v, want %s", text, b, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "1MB", "1.5MiB", "9999999GiB", "MiB"} {
		var b byteSize
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: became %s, want an error", text, b)
		}
	}
}

// TestPublicURL: dev has one by itself, the other roles none.
func TestPublicURL(t *testing.T) {
	c := valid(t, "--listen=127.0.0.1:8081")
	if got := c.publicURL(); got != "" {
		t.Errorf("none was set: %q", got)
	}
	c.Embedded = true
	for listen, want := range map[string]string{
		"127.0.0.1:8081": "http://127.0.0.1:8081", "[::1]:8081": "http://[::1]:8081", "10.0.0.1:1": "http://10.0.0.1:1", "a.example:80": "http://a.example:80",
		":8081": "http://127.0.0.1:8081", "0.0.0.0:8081": "http://127.0.0.1:8081", "[::]:8081": "http://127.0.0.1:8081", "127.0.0.1:0": "",
	} {
		if c.Listen = listen; c.publicURL() != want {
			t.Errorf("dev listening on %s: %q, want %q", listen, c.publicURL(), want)
		}
	}
	c.PublicURL = "https://a.example"
	if got := c.publicURL(); got != "https://a.example" {
		t.Errorf("set: %q", got)
	}
}

// The server needs twice the largest body, and a quarter of the budget is kept
// for small ones; ingest lets 48 MiB or two of the largest bodies wait for Kafka.
func TestBodyBudget(t *testing.T) {
	for body, want := range map[byteSize]int{1 << 20: 128 << 20, 16 << 20: 128 << 20, 64 << 20: 256 << 20, 256 << 20: 1 << 30} {
		if got := (&Config{Ingest: ingestConfig{MaxBody: body}}).bodyBudget(); got != want {
			t.Errorf("max-body %s: %d, want %d", body, got, want)
		}
	}
}

// A misspelt variable is told of: nothing else says that it has no effect. What
// Kubernetes sets for a Service named like the gateway is none.
func TestUnknownVariables(t *testing.T) {
	for _, name := range []string{
		"POSTRIDER_SLOTZ", "POSTRIDER_SLOTS", "POSTRIDER_API_KEY", "POSTRIDER_SERVICE_HOST", "POSTRIDER_SERVICE_PORT", "POSTRIDER_CONTROL_SERVICE_PORT_HTTP",
		"POSTRIDER_PORT", "POSTRIDER_PORT_8080_TCP", "POSTRIDER_DELIVER_PORT_8080_TCP_ADDR",
	} {
		t.Setenv(name, "7")
	}
	got := command(t, "", "config")
	var told []string
	for line := range strings.Lines(got.out) {
		if name, ok := strings.CutSuffix(line, ": no setting, from the environment\n"); ok {
			told = append(told, strings.TrimPrefix(name, "# "))
		}
	}
	told = slices.DeleteFunc(told, func(name string) bool { return name == "POSTRIDER_KAFKA_JARS" || name == "POSTRIDER_BINARY" }) // of the tests
	if diff := cmp.Diff([]string{"POSTRIDER_SLOTZ"}, told); diff != "" || got.code != 0 {
		t.Errorf("exit %d, told of (-want +got):\n%s", got.code, diff)
	}
}
