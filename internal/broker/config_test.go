package broker

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestNames(t *testing.T) {
	t.Parallel()
	if got := Names("").Events; got != "postrider.events" {
		t.Errorf("default events topic is %q", got)
	}
	names := Names("x.").All()
	seen := map[string]bool{}
	for _, n := range names {
		if !strings.HasPrefix(n, "x.") || seen[n] {
			t.Errorf("topic %q lacks the prefix or comes twice", n)
		}
		seen[n] = true
	}
	var specs []string
	for _, s := range (Config{Prefix: "x."}).withDefaults().specs() {
		specs = append(specs, s.name)
	}
	if diff := cmp.Diff(names, specs); diff != "" {
		t.Errorf("topics and their settings (-names +specs):\n%s", diff)
	}
}

func TestConfigRefusesNonsense(t *testing.T) {
	t.Parallel()
	addr := []string{"127.0.0.1:1"}
	for _, tt := range []struct {
		name string
		c    Config
		want string // "" for valid
	}{
		{"defaults", Config{Brokers: addr}, ""},
		{"no brokers", Config{}, "brokers"},
		{"messages that no reader unpacks", Config{Brokers: addr, MaxMessageBytes: 16<<20 + 1}, "must be 1 KiB to 16 MiB"},
		{"tiny messages", Config{Brokers: addr, MaxMessageBytes: 10}, "max message bytes"},
		{"min isr above replicas", Config{Brokers: addr, ReplicationFactor: 2, MinISR: 3}, "min in-sync"},
		{"long linger", Config{Brokers: addr, Linger: time.Minute}, "linger"},
		{"short deliveries", Config{Brokers: addr, Retention: Retention{Deliveries: 5 * day}}, "retention of deliveries"},
		{"long max age", Config{Brokers: addr, MaxAge: 7 * day}, "retention of deliveries"},
		{"longer max age with room", Config{Brokers: addr, MaxAge: 6 * day}, ""},
		{"short schedule", Config{Brokers: addr, Retention: Retention{Schedule: day}}, "retention of schedule"},
		{"short attempts", Config{Brokers: addr, Retention: Retention{Attempts: day}}, "retention of attempts"},
		{"start", Config{Brokers: addr, Start: "begin"}, "start"},
		{"sasl mechanism", Config{Brokers: addr, SASL: SASL{Mechanism: "GSSAPI"}}, "sasl mechanism"},
		{"sasl without password", Config{Brokers: addr, SASL: SASL{Mechanism: "PLAIN", User: "u"}}, "sasl PLAIN"},
	} {
		_, err := tt.c.Options()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one about %q", tt.name, err, tt.want)
		}
	}
}

func TestOptionsLeaveNothingToDefaults(t *testing.T) {
	t.Parallel()
	c := Config{Brokers: []string{"127.0.0.1:1"}, Version: "1.2.3", Linger: 3 * time.Millisecond}
	opts, err := c.GroupOptions("deliver", "pod-1", "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, tt := range []struct {
		opt  any
		want any
	}{
		{kgo.SeedBrokers, []string{"127.0.0.1:1"}},
		{kgo.ClientID, "postrider"},
		{kgo.ConsumeStartOffset, kgo.NoResetOffset().AtCommitted()},
		{kgo.ConsumeResetOffset, kgo.NoResetOffset()},
		{kgo.FetchIsolationLevel, 1},
		{kgo.MaxDecompressBatchBytes, 32 << 20},
		{kgo.FetchMaxBytes, int32(fetchBytes)},
		{kgo.MaxConcurrentFetches, maxFetches},
		{kgo.FetchMaxWait, fetchWait},
		{kgo.RequiredAcks, kgo.AllISRAcks()},
		{kgo.DisableIdempotentWrite, false},
		{kgo.ProducerLinger, 3 * time.Millisecond},
		{kgo.MaxBufferedBytes, int64(bufferedBytes)},
		{kgo.MetadataMaxAge, time.Minute},
		{kgo.MetadataMinAge, 250 * time.Millisecond},
		{kgo.ConsumerGroup, "postrider.deliver"},
		{kgo.InstanceID, "pod-1"},
		{kgo.SessionTimeout, 10 * time.Second},
		{kgo.HeartbeatInterval, time.Second},
		{kgo.DisableAutoCommit, true},
	} {
		got := cl.OptValue(tt.opt)
		if fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("option %v is %v, want %v", optName(tt.opt), got, tt.want)
		}
	}
	if got := cl.OptValues(kgo.SoftwareNameAndVersion); fmt.Sprint(got) != "[postrider 1.2.3]" {
		t.Errorf("software is %v", got)
	}
	size, ok := cl.OptValue(kgo.ProducerBatchMaxBytesFn).(func(string) int32)
	if !ok {
		t.Fatal("no batch size function")
	}
	if e, d := size(c.Topics().Events), size(c.Topics().Deliveries); e != 1<<20 || d != 1<<20+Headroom {
		t.Errorf("batches of events %d, of deliveries %d bytes", e, d)
	}
}

func optName(fn any) string { return fmt.Sprintf("%T", fn) }

func TestSASLHidesThePassword(t *testing.T) {
	t.Parallel()
	c := Config{SASL: SASL{"PLAIN", "user", "s3cret"}}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(format, c.SASL) + fmt.Sprintf(format, c); strings.Contains(s, "s3cret") {
			t.Errorf("%s shows the password: %s", format, s)
		}
	}
}

func TestUnsafeErrorShowsEveryFix(t *testing.T) {
	t.Parallel()
	var err error = &UnsafeError{[]Finding{{"", "brokers", "1", ">= 3", "add brokers"}, {"a", "b", "c", "d", "e"}}}
	want := "unsafe kafka settings (allow-unsafe goes on in spite of them):\n" +
		"  cluster: brokers is 1, want >= 3; fix: add brokers\n  a: b is c, want d; fix: e"
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
	if _, ok := errors.AsType[*UnsafeError](fmt.Errorf("start: %w", err)); !ok {
		t.Error("not found in a chain")
	}
}
