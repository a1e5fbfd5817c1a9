package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// What a setup must have so that one lost machine loses no record.
const (
	safeReplicas = 3
	safeMinISR   = 2
)

// Finding is one setting that could lose an accepted record.
type Finding struct {
	Topic   string `json:"topic"` // "" for the cluster
	Setting string `json:"setting"`
	Got     string `json:"got"`
	Want    string `json:"want"`
	Fix     string `json:"fix"` // a command or an advice
}

// String shows the finding on one line.
func (f Finding) String() string {
	where := f.Topic
	if where == "" {
		where = "cluster"
	}
	return fmt.Sprintf("%s: %s is %s, want %s; fix: %s", where, f.Setting, f.Got, f.Want, f.Fix)
}

// checkPlan judges the settings that missing topics would be created with.
func (c Config) checkPlan() []Finding {
	if c.Embedded {
		return nil
	}
	var found []Finding
	if c.ReplicationFactor < safeReplicas {
		found = append(found, Finding{
			"new topics", "replication factor", strconv.Itoa(int(c.ReplicationFactor)),
			atLeast(safeReplicas), "configure a replication factor of 3",
		})
	}
	if c.MinISR < safeMinISR {
		found = append(found, Finding{
			"new topics", keyMinISR, strconv.Itoa(int(c.MinISR)),
			atLeast(safeMinISR), "configure 2 in-sync replicas",
		})
	}
	return found
}

// clusterOnly drops the findings about a plan: after creation the topics
// themselves show them.
func (c Config) clusterOnly(found []Finding) []Finding {
	var kept []Finding
	for _, f := range found {
		if f.Topic == "" {
			kept = append(kept, f)
		}
	}
	return kept
}

// checkCluster judges the number of brokers and the brokers' own topics, which
// hold commits and transactions.
func (c Config) checkCluster(ctx context.Context, adm *kadm.Client, topics kadm.TopicDetails) ([]Finding, error) {
	if c.Embedded {
		return nil, nil
	}
	meta, err := adm.BrokerMetadata(ctx)
	if err != nil {
		return nil, fmt.Errorf("list brokers: %w", err)
	}
	var found []Finding
	if n := countBrokers(meta.Brokers, topics); n < safeReplicas {
		found = append(found, Finding{"", "brokers", strconv.Itoa(n), atLeast(safeReplicas), "add brokers"})
	}
	if len(meta.Brokers) == 0 {
		return found, nil
	}
	all, err := adm.DescribeBrokerConfigs(ctx, meta.Brokers[0].NodeID)
	if err != nil || len(all) == 0 || all[0].Err != nil {
		// Managed clusters don't show their brokers' settings.
		c.Logger.InfoContext(ctx, "broker settings can't be read and are not checked", "error", errors.Join(err, firstErr(all)))
		return found, nil //nolint:nilerr // said above; the topics themselves are still checked
	}
	conf := values(all[0])
	for _, want := range []struct {
		key   string
		least int
	}{
		{"offsets.topic.replication.factor", safeReplicas},
		{"transaction.state.log.replication.factor", safeReplicas},
		{"transaction.state.log.min.isr", safeMinISR},
	} {
		if got, ok := conf[want.key]; ok && below(got, int64(want.least)) {
			found = append(found, Finding{"", want.key, got, atLeast(want.least), "set it in the brokers' configuration"})
		}
	}
	return found, nil
}

// countBrokers returns how many brokers the cluster has, also those that are down
// but hold replicas: one that is away for a while is no reason to refuse a start.
func countBrokers(up kadm.BrokerDetails, topics kadm.TopicDetails) int {
	known := map[int32]struct{}{}
	for _, b := range up {
		known[b.NodeID] = struct{}{}
	}
	for _, t := range topics {
		for _, p := range t.Partitions {
			for _, id := range p.Replicas {
				known[id] = struct{}{}
			}
		}
	}
	return len(known)
}

// checkTopics judges the settings of existing topics.
func (c Config) checkTopics(ctx context.Context, adm *kadm.Client, details kadm.TopicDetails) ([]Finding, error) {
	if c.Embedded {
		return nil, nil
	}
	all, err := adm.DescribeTopicConfigs(ctx, c.Topics().All()...)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	var found []Finding
	for _, s := range c.specs() {
		rc, err := all.On(s.name, nil)
		if err = errors.Join(err, rc.Err); err != nil {
			return nil, fmt.Errorf("describe topic %s: %w", s.name, err)
		}
		found = append(found, s.replicas(details[s.name])...)
		found = append(found, s.check(values(rc))...)
	}
	return found, nil
}

// replicas reports the partition with the fewest replicas if they are too few.
func (s spec) replicas(d kadm.TopicDetail) []Finding {
	least := safeReplicas
	for _, p := range d.Partitions {
		least = min(least, len(p.Replicas))
	}
	if least == safeReplicas {
		return nil
	}
	return []Finding{{
		s.name, "replication factor", strconv.Itoa(least), atLeast(safeReplicas),
		"kafka-reassign-partitions to 3 replicas",
	}}
}

// check compares a topic's effective settings with what keeps records safe.
func (s spec) check(conf map[string]string) []Finding {
	var found []Finding
	report := func(key, want, value string) {
		fix := fmt.Sprintf("kafka-configs --alter --entity-type topics --entity-name %s --add-config %s=%s", s.name, key, value)
		found = append(found, Finding{s.name, key, conf[key], want, fix})
	}
	exact := func(key, want string) {
		if conf[key] != want {
			report(key, want, want)
		}
	}
	least := func(key string, n int64) {
		if below(conf[key], n) {
			report(key, atLeast(n), strconv.FormatInt(n, 10))
		}
	}
	least(keyMinISR, safeMinISR)
	exact(keyUnclean, "false")
	exact(keyTimestamp, logAppendTime)
	exact(keyCleanup, s.cleanup)
	least(keyMaxMessage, int64(s.maxMessage))
	if s.cleanup == cleanupCompact {
		least(keyTombstones, s.keep.Milliseconds())
		return found
	}
	if conf[keyRetention] != "-1" { // -1: for ever
		least(keyRetention, s.keep.Milliseconds())
	}
	exact(keyRetentionSize, "-1") // a size limit deletes what nobody has read yet
	return found
}

// checkRetention is the rule that a delivery outlives its maximum age by a day.
func (c Config) checkRetention() error {
	for _, r := range []struct {
		name string
		keep time.Duration
	}{
		{"deliveries", c.Retention.Deliveries},
		{"schedule", c.Retention.Schedule},
		{"attempts", c.Retention.Attempts},
	} {
		if r.keep < c.MaxAge+day {
			return fmt.Errorf("retention of %s %s: must be a day more than max age %s", r.name, r.keep, c.MaxAge)
		}
	}
	return nil
}

func values(rc kadm.ResourceConfig) map[string]string {
	m := make(map[string]string, len(rc.Configs))
	for _, c := range rc.Configs {
		if c.Value != nil {
			m[c.Key] = strings.ReplaceAll(*c.Value, " ", "")
		}
	}
	return m
}

// below reports whether a setting is not a number of at least n.
func below(value string, n int64) bool {
	v, err := strconv.ParseInt(value, 10, 64)
	return err != nil || v < n
}

func atLeast[N int | int64](n N) string { return ">= " + strconv.FormatInt(int64(n), 10) }

func firstErr(all kadm.ResourceConfigs) error {
	for _, rc := range all {
		if rc.Err != nil {
			return rc.Err
		}
	}
	return nil
}
