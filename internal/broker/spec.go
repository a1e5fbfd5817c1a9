package broker

import (
	"strconv"
	"time"
)

// Topic settings by their Kafka names.
const (
	keyCleanup       = "cleanup.policy"
	keyRetention     = "retention.ms"
	keyRetentionSize = "retention.bytes"
	keyTombstones    = "delete.retention.ms"
	keyMaxMessage    = "max.message.bytes"
	keyTimestamp     = "message.timestamp.type"
	keyMinISR        = "min.insync.replicas"
	keyUnclean       = "unclean.leader.election.enable"
	keySegmentBytes  = "segment.bytes"
	keySegmentAge    = "segment.ms"
	keyDirtyRatio    = "min.cleanable.dirty.ratio"
	keyCompactionLag = "max.compaction.lag.ms"

	cleanupDelete  = "delete"
	cleanupCompact = "compact"
	logAppendTime  = "LogAppendTime"
)

// Compacted topics are read from the start at every hand-over or view rebuild,
// so they are kept short: segments that close early, cleaned within minutes.
const (
	compactSegment = 16 << 20
	compactLag     = 10 * time.Minute
)

// spec is what a topic should be like.
type spec struct {
	name       string
	partitions int32
	cleanup    string
	keep       time.Duration // of records, or of tombstones if compacted
	maxMessage int32
	share      int64 // of the embedded broker's bytes, in 1/64
	// spared says that what its group has not read stays beyond the share, in the
	// embedded broker, see [Embedded.SpareUnread].
	spared bool
}

// specs lists every topic of the gateway.
func (c Config) specs() []spec {
	t, p, r := c.Topics(), c.Partitions, c.Retention
	m, inner := c.MaxMessageBytes, c.MaxMessageBytes+Headroom
	return []spec{
		{t.Events, p.Events, cleanupDelete, r.Events, m, 14, true},
		{t.Pages, p.Pages, cleanupDelete, r.Events, inner, 2, true},
		{t.Deliveries, p.Deliveries, cleanupDelete, r.Deliveries, inner, 24, true},
		{t.Attempts, p.Deliveries, cleanupDelete, r.Attempts, inner, 8, false},
		{t.Lanes, p.Deliveries, cleanupCompact, time.Hour, inner, 0, false},
		{t.Schedule, WheelLevels * p.ScheduleShards, cleanupDelete, r.Schedule, inner, 8, true},
		{t.Decisions, p.Decisions, cleanupDelete, r.Decisions, inner, 2, false},
		{t.Dead, p.Dead, cleanupDelete, r.Dead, inner, 4, false},
		{t.Rejected, p.Rejected, cleanupDelete, r.Rejected, inner, 1, false},
		{t.Registry, 1, cleanupCompact, r.Tombstones, inner, 0, false},
		{t.Jobs, 1, cleanupCompact, 7 * day, inner, 0, false},
		{t.Audit, 1, cleanupDelete, r.Audit, inner, 1, false},
	}
}

// settings returns the topic configuration to create the topic with.
func (s spec) settings(c Config) map[string]string {
	conf := map[string]string{
		keyCleanup:    s.cleanup,
		keyMaxMessage: strconv.Itoa(int(s.maxMessage)),
		keyMinISR:     strconv.Itoa(int(c.MinISR)),
	}
	if s.cleanup == cleanupCompact {
		conf[keyTombstones] = millis(s.keep)
		conf[keySegmentBytes] = strconv.Itoa(compactSegment)
	} else {
		conf[keyRetention] = millis(s.keep)
	}
	if c.Embedded {
		// The embedded broker keeps producer timestamps whatever the topic says
		// (one clock, so they are right). Partitions are bounded by size only: if
		// age emptied one, a kill would make its offsets begin at 0 again.
		if s.share > 0 {
			conf[keyRetention] = "-1"
			conf[keyRetentionSize] = strconv.FormatInt(either(s.spared, c.EmbeddedBytes/int64(s.partitions), s.shareOf(c)), 10)
		}
		return conf
	}
	conf[keyTimestamp] = logAppendTime
	conf[keyUnclean] = "false"
	if s.cleanup == cleanupCompact {
		conf[keySegmentAge] = millis(compactLag)
		conf[keyCompactionLag] = millis(compactLag)
		conf[keyDirtyRatio] = "0.1"
	} else {
		conf[keyRetentionSize] = "-1"
	}
	return conf
}

// shareOf returns how many bytes of a partition the embedded broker keeps.
func (s spec) shareOf(c Config) int64 { return c.EmbeddedBytes * s.share / 64 / int64(s.partitions) }

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
