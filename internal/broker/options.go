package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Bounds of a client's memory. Compressed data in flight or buffered is at most
// fetchBytes for each broker, and fetchBytes*maxFetches in all; what we wrote
// unpacks to at most some 21 times that (compress.go), one batch of whoever wrote it
// to MaxBatchBytes.
const (
	// MaxBatchBytes is the most that a fetched batch may decompress to; a larger
	// one stops its partition with kgo.ErrDecompressTooLarge.
	MaxBatchBytes = 32 << 20

	fetchBytes    = 8 << 20
	maxFetches    = 8
	fetchWait     = 500 * time.Millisecond // an idle broker gives its fetch slot back after this
	bufferedBytes = 64 << 20
)

// Timings that brokers and clients agree on.
const (
	// SessionTimeout is how long a member may be silent before its partitions
	// go to others.
	SessionTimeout = 10 * time.Second
	// HeartbeatInterval is how often a member reports.
	HeartbeatInterval = time.Second

	metadataMaxAge = time.Minute            // new partitions are seen after at most this
	metadataMinAge = 250 * time.Millisecond // how soon a moved leader may be looked up again
)

// Options returns what every client shares, as producer and as reader. Later
// options of the caller win.
//
// Reading: committed records only; no start and no reset offset, so a partition
// without a given offset, or with one that is out of range, fails in
// PollFetches instead of jumping. (The start option is AtCommitted: a plain
// kgo.NoResetOffset would start at the end.)
//
// Writing: acks=all, idempotent, zstd up to a bounded ratio (embedded: nothing is
// compressed, it is one process).
// Linger is 0 by default: while a request is on its way the next batch fills by
// itself, and a lone record waits for nobody. A producer under load may set
// more through [Config.Linger].
func (c Config) Options() ([]kgo.Opt, error) {
	c = c.withDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	tlsConf, err := c.TLS.config()
	if err != nil {
		return nil, err
	}
	events := c.Topics().Events
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID("postrider"),
		kgo.SoftwareNameAndVersion("postrider", c.Version),
		kgo.WithLogger(clientLogger{c.Logger}),
		kgo.DisableClientMetrics(), // they make Close wait a second when Kafka is away
		kgo.MetadataMaxAge(metadataMaxAge),
		kgo.MetadataMinAge(metadataMinAge),

		kgo.ConsumeStartOffset(kgo.NoResetOffset().AtCommitted()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.MaxDecompressBatchBytes(MaxBatchBytes),
		kgo.FetchMaxBytes(fetchBytes),
		kgo.FetchMaxWait(fetchWait),
		kgo.MaxConcurrentFetches(maxFetches),

		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(c.Linger),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MaxBufferedBytes(bufferedBytes),
		kgo.ProducerBatchMaxBytesFn(func(topic string) int32 {
			return either(topic == events, c.MaxMessageBytes, c.MaxMessageBytes+Headroom)
		}),
	}
	if !c.Embedded {
		compressor, err := newBoundedCompressor()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.WithCompressor(compressor))
	}
	switch {
	case c.Dial != nil:
		opts = append(opts, kgo.Dialer(c.Dial))
	case tlsConf != nil:
		opts = append(opts, kgo.DialTLSConfig(tlsConf))
	}
	if m := c.SASL.mechanism(); m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	return opts, nil
}

// GroupOptions returns [Config.Options] for a member of a group, named without
// prefix ("deliver"): sessions of 10 s, a heartbeat each second, static
// membership under instanceID (stable for a process; "" for none),
// cooperative-sticky, and no commit that the caller does not make. A partition
// that was added to a topic while the group runs starts at 0, by the rule of
// [EnsureGroup].
func (c Config) GroupOptions(group, instanceID string, topics ...string) ([]kgo.Opt, error) {
	opts, err := c.Options()
	if err != nil {
		return nil, err
	}
	full := c.Group(group)
	opts = append(
		opts,
		kgo.ConsumerGroup(full),
		kgo.ConsumeTopics(topics...),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(SessionTimeout),
		kgo.HeartbeatInterval(HeartbeatInterval),
		kgo.DisableAutoCommit(),
		kgo.AdjustFetchOffsetsFn(func(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
			return c.startAdded(ctx, full, offsets)
		}),
	)
	if instanceID != "" {
		opts = append(opts, kgo.InstanceID(instanceID))
	}
	return opts, nil
}

// NewClient opens a client with [Config.Options] and extra options. It connects
// on first use, so an unreachable broker is not an error here.
func (c Config) NewClient(extra ...kgo.Opt) (*kgo.Client, error) {
	opts, err := c.Options()
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(opts, extra...)...)
	if err != nil {
		return nil, fmt.Errorf("open kafka client: %w", err)
	}
	return cl, nil
}

// NewReader opens a group-less client that reads the given partitions from the
// given offsets (the next offset to read, not the last one read).
func (c Config) NewReader(from map[string]map[int32]int64, extra ...kgo.Opt) (*kgo.Client, error) {
	parts := make(map[string]map[int32]kgo.Offset, len(from))
	for topic, offsets := range from {
		parts[topic] = make(map[int32]kgo.Offset, len(offsets))
		for partition, offset := range offsets {
			parts[topic][partition] = kgo.NoResetOffset().At(offset)
		}
	}
	return c.NewClient(append([]kgo.Opt{kgo.ConsumePartitions(parts)}, extra...)...)
}
