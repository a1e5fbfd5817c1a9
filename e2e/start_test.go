package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/postrider/postrider/e2e/services"
	"github.com/postrider/postrider/internal/registry"
)

// refusesToStart runs a command of the program that must end by itself with an
// error, and returns what it said.
func refusesToStart(t *testing.T, env []string, args ...string) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "POSTRIDER_") }), env...)
	out, err := cmd.CombinedOutput()
	if err == nil || ctx.Err() != nil {
		t.Errorf("%v did not refuse: %v\n%s", args, err, tail(out, 1000))
	}
	return string(out)
}

func wants(t *testing.T, out string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(out, text) {
			t.Errorf("%q is not named in: %.2000s", text, out)
		}
	}
}

// unsafe are settings of the topic events that can lose what was accepted.
func unsafe() map[string]string {
	return map[string]string{
		"unclean.leader.election.enable": "true", "message.timestamp.type": "CreateTime", "retention.bytes": "1000000",
		"retention.ms": "3600000", "cleanup.policy": "compact", "max.message.bytes": "1000",
	}
}

// (B) Unsafe topics refuse the start and name each setting with what would mend
// it; with --allow-unsafe the process starts and goes on saying so.
func TestUnsafeTopics(t *testing.T) {
	g := newGateway(t)
	g.start("control", "control-1")
	g.ready("control-1")
	ready, err := g.call("control-1", "GET", "/readyz", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	wants(t, string(ready.body), `"status":"degraded"`, "replication factor is 1", "min.insync.replicas is 1")

	cl, err := g.broker().NewClient()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var alter []kadm.AlterConfig
	for key, value := range unsafe() {
		alter = append(alter, kadm.AlterConfig{Op: kadm.SetConfig, Name: key, Value: &value})
	}
	events, adm := g.broker().Topics().Events, kadm.NewClient(cl)
	if altered, err := adm.AlterTopicConfigs(t.Context(), alter, events); err != nil || altered[0].Err != nil {
		t.Fatalf("%v, %+v", err, altered)
	}
	eventually(t, 30*time.Second, "the broker shows the new settings", func() bool {
		all, err := adm.DescribeTopicConfigs(t.Context(), events)
		if err != nil {
			return false
		}
		shown := 0
		for _, c := range all[0].Configs {
			if value, ok := unsafe()[c.Key]; ok && c.MaybeValue() == value {
				shown++
			}
		}
		return shown == len(unsafe())
	})
	env := []string{"POSTRIDER_ADMIN_KEY=" + adminKey}
	out := refusesToStart(t, env, "ingest", "--listen", freeAddress(t), "--topic-prefix", g.prefix,
		"--kafka-brokers", strings.Join(g.kafka, ","), "--redis-url", g.url, "--events-partitions", "8", "--deliveries-partitions", "8",
		"--replication-factor", "1", "--min-insync-replicas", "1")
	wants(t, out, "min.insync.replicas is 1", "replication factor is 1")
	for key, value := range unsafe() {
		wants(t, out, events+": "+key+" is "+value, "--entity-name "+events+" --add-config "+key+"=")
	}
}

// (B) On three brokers with a Redis that evicts nothing every role starts without
// --allow-unsafe and warns of nothing; a Redis that may evict the view is refused.
func TestSafeCluster(t *testing.T) {
	k, err := services.StartKafka(t.Context(), services.Options{Brokers: 3})
	need(t, err == nil, fmt.Sprintf("a real Kafka: %v", err))
	t.Cleanup(k.Stop)
	g := newGatewayOn(t, k.Brokers)
	g.strict = true
	g.startAll().tenant()
	s := newSink(t, nil)
	g.endpoint(s.URL, nil)
	id := g.event("order.paid", 1)
	eventually(t, time.Minute, "the event arrives", func() bool { return len(s.missing([]string{id})) == 0 })
	for _, role := range roles() {
		g.warnsOfNothing(role + "-1")
	}
	opts, err := redis.ParseURL(g.url)
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(opts)
	defer func() { _ = rdb.Close() }()
	if err := rdb.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err(); err != nil {
		t.Fatal(err)
	}
	out := refusesToStart(t, []string{"POSTRIDER_ADMIN_KEY=" + adminKey}, "fanout", "--listen", freeAddress(t), "--topic-prefix", g.prefix,
		"--kafka-brokers", strings.Join(g.kafka, ","), "--redis-url", g.url, "--events-partitions", "8", "--deliveries-partitions", "8")
	wants(t, out, "maxmemory-policy", "allkeys-lru")
}

// warnsOfNothing waits until a process says that all is well.
func (g *gateway) warnsOfNothing(instance string) {
	g.t.Helper()
	var last answer
	ok := false
	defer func() {
		if !ok {
			g.t.Logf("%d %s", last.status, last.body)
		}
	}()
	eventually(g.t, time.Minute, instance+" warns of nothing", func() bool {
		var err error
		last, err = g.call(instance, "GET", "/readyz", nil, nil)
		return err == nil && last.status == http.StatusOK && bytes.Contains(last.body, []byte(`"status":"ok"`))
	})
	ok = true
}

// (B) What is wrong with the configuration is said before anything is reached.
func TestRefusedConfiguration(t *testing.T) {
	keyset, err := registry.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "postrider.yaml")
	if err := os.WriteFile(file, []byte("slots: 10\nslotz: 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	reach := []string{"--kafka-brokers", "127.0.0.1:1", "--redis-url", "redis://127.0.0.1:1/0"}
	rows := []struct {
		name string
		env  []string
		args []string
		want string
	}{
		{"no admin key", nil, append([]string{"ingest"}, reach...), "admin-key: must not be empty"},
		{"an empty admin key", []string{"POSTRIDER_ADMIN_KEY="}, append([]string{"ingest"}, reach...), "admin-key: must not be empty"},
		{"a short admin key", []string{"POSTRIDER_ADMIN_KEY=secret"}, append([]string{"ingest"}, reach...), "admin-key: must have at least 16"},
		{"no seal key", []string{"POSTRIDER_ADMIN_KEY=" + adminKey}, append([]string{"deliver"}, reach...), "seal-key: is needed"},
		{"no Kafka", []string{"POSTRIDER_ADMIN_KEY=" + adminKey}, []string{"ingest"}, "kafka-brokers"},
		{
			"an unknown key in the file",
			[]string{"POSTRIDER_ADMIN_KEY=" + adminKey, "POSTRIDER_SEAL_KEY=" + keyset},
			append([]string{"all", "--config", file}, reach...), `unknown key "slotz"`,
		},
		{"an unknown flag", nil, append([]string{"all", "--slotz", "5"}, reach...), "--slotz"},
		{"a flag of another role", nil, append([]string{"ingest", "--slots", "5"}, reach...), "--slots has no effect on ingest"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			out := refusesToStart(t, row.env, row.args...)
			wants(t, out, row.want)
			if strings.Contains(out, adminKey) || strings.Contains(out, keyset) {
				t.Errorf("a secret is shown: %s", out)
			}
		})
	}
}
