package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// createWait bounds how long Ensure waits for new topics to have leaders.
const createWait = 30 * time.Second

// Report is what [Ensure] found.
type Report struct {
	Created  []string  // topics that this call created, sorted
	Findings []Finding // what could lose data; empty unless it was allowed
	Layout   Layout    // as the topics are
	// Partitions is the partition count of every topic.
	Partitions map[string]int32
	// TopicIDs are Kafka's ids of the topics; a topic that was deleted and
	// created again has another one.
	TopicIDs map[string][16]byte
}

// UnsafeError lists every setting that could lose an accepted record.
type UnsafeError struct{ Findings []Finding }

// Error shows all findings, one a line.
func (e *UnsafeError) Error() string {
	var b strings.Builder
	b.WriteString("unsafe kafka settings (allow-unsafe goes on in spite of them):")
	for _, f := range e.Findings {
		b.WriteString("\n  ")
		b.WriteString(f.String())
	}
	return b.String()
}

// Ensure creates the topics that are missing, checks those that exist and
// returns what it found. Any number of processes may do so at the same time.
// Unsafe settings are an [*UnsafeError], and then no topic was created with
// them; with [Config.AllowUnsafe] they stay in the report. Topics that don't
// fit together are [ErrLayout] in any case. Existing topics are never altered.
func Ensure(ctx context.Context, cl *kgo.Client, cfg Config) (Report, error) {
	c := cfg.withDefaults()
	if err := c.Validate(); err != nil {
		return Report{}, err
	}
	adm := kadm.NewClient(cl)
	missing, there, err := c.missing(ctx, adm)
	if err != nil {
		return Report{}, err
	}
	planned, err := c.checkCluster(ctx, adm, there)
	if err != nil {
		return Report{}, err
	}
	if len(missing) > 0 {
		planned = append(planned, c.checkPlan()...)
	}
	if len(planned) > 0 && len(missing) > 0 && !c.AllowUnsafe {
		return Report{}, &UnsafeError{planned}
	}

	var rep Report
	if rep.Created, err = c.create(ctx, cl, missing); err != nil {
		return Report{}, err
	}
	details, err := c.await(ctx, adm)
	if err != nil {
		return Report{}, err
	}
	if err := c.measure(details, &rep); err != nil {
		return Report{}, err
	}
	found, err := c.checkTopics(ctx, adm, details)
	if err != nil {
		return Report{}, err
	}
	rep.Findings = append(c.clusterOnly(planned), found...)
	if len(rep.Findings) > 0 && !c.AllowUnsafe {
		return Report{}, &UnsafeError{rep.Findings}
	}
	return rep, nil
}

// missing returns the topics that don't exist yet, and those that do.
func (c Config) missing(ctx context.Context, adm *kadm.Client) (missing []spec, details kadm.TopicDetails, err error) {
	details, err = adm.ListTopics(ctx, c.Topics().All()...)
	if err != nil {
		return nil, nil, fmt.Errorf("list topics: %w", err)
	}
	for _, s := range c.specs() {
		d := details[s.name]
		switch {
		case errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			missing = append(missing, s)
		case d.Err != nil:
			return nil, nil, fmt.Errorf("list topic %s: %w", s.name, d.Err)
		}
	}
	return missing, details, nil
}

// create returns the topics that this call created: another process may have
// been faster with some of them.
func (c Config) create(ctx context.Context, cl *kgo.Client, specs []spec) ([]string, error) {
	if len(specs) == 0 {
		return nil, nil
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	for _, s := range specs {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic = s.name
		topic.NumPartitions = s.partitions
		topic.ReplicationFactor = c.ReplicationFactor
		for key, value := range s.settings(c) {
			setting := kmsg.NewCreateTopicsRequestTopicConfig()
			setting.Name = key
			setting.Value = new(value)
			topic.Configs = append(topic.Configs, setting)
		}
		req.Topics = append(req.Topics, topic)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, fmt.Errorf("create topics: %w", err)
	}
	var created []string
	for _, topic := range resp.Topics {
		err := kerr.ErrorForCode(topic.ErrorCode)
		switch {
		case err == nil:
			created = append(created, topic.Topic)
		case errors.Is(err, kerr.TopicAlreadyExists):
		case topic.ErrorMessage != nil:
			return nil, fmt.Errorf("create topic %s: %w: %s", topic.Topic, err, *topic.ErrorMessage)
		default:
			return nil, fmt.Errorf("create topic %s: %w", topic.Topic, err)
		}
	}
	slices.Sort(created)
	return created, nil
}

// await returns the topics once each partition has a leader.
func (c Config) await(ctx context.Context, adm *kadm.Client) (kadm.TopicDetails, error) {
	ctx, cancel := context.WithTimeout(ctx, createWait)
	defer cancel()
	tick := time.NewTicker(metadataMinAge)
	defer tick.Stop()
	for {
		details, err := adm.ListTopics(ctx, c.Topics().All()...)
		if err != nil {
			return nil, fmt.Errorf("list topics: %w", err)
		}
		waiting := c.leaderless(details)
		if waiting == "" {
			return details, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for topic %s to have a leader: %w", waiting, ctx.Err())
		case <-tick.C:
		}
	}
}

// leaderless returns the first topic that can't be used yet.
func (c Config) leaderless(details kadm.TopicDetails) string {
	for _, name := range c.Topics().All() {
		d, ok := details[name]
		if !ok || d.Err != nil || len(d.Partitions) == 0 {
			return name
		}
		for _, p := range d.Partitions {
			if p.Leader < 0 {
				return name
			}
		}
	}
	return ""
}

// measure reads partition counts and layout off the topics.
func (c Config) measure(details kadm.TopicDetails, rep *Report) error {
	t := c.Topics()
	rep.Partitions = make(map[string]int32, len(details))
	rep.TopicIDs = make(map[string][16]byte, len(details))
	for name, d := range details {
		rep.Partitions[name] = int32(len(d.Partitions)) //nolint:gosec // a partition count is an int32
		rep.TopicIDs[name] = d.ID
	}
	n := rep.Partitions[t.Deliveries]
	schedule := rep.Partitions[t.Schedule]
	rep.Layout = Layout{Deliveries: n, ScheduleShards: schedule / WheelLevels, Version: layoutVersion}
	switch {
	case rep.Partitions[t.Attempts] != n || rep.Partitions[t.Lanes] != n:
		return fmt.Errorf("%w: %s has %d partitions, %s %d, %s %d; they must be equal", ErrLayout,
			t.Deliveries, n, t.Attempts, rep.Partitions[t.Attempts], t.Lanes, rep.Partitions[t.Lanes])
	case schedule%WheelLevels != 0:
		return fmt.Errorf("%w: %s has %d partitions; it must be a multiple of %d", ErrLayout, t.Schedule, schedule, WheelLevels)
	case rep.Partitions[t.Registry] != 1:
		return fmt.Errorf("%w: %s has %d partitions; it must have 1", ErrLayout, t.Registry, rep.Partitions[t.Registry])
	}
	return rep.Layout.Valid()
}
