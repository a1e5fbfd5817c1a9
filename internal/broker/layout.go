package broker

import (
	"errors"
	"fmt"
	"hash/fnv"
)

// WheelLevels is the number of levels of the timing wheel: level k holds a
// record for 2^k seconds, so 17 levels reach 36 hours.
const WheelLevels = 17

// layoutVersion names the endpoint → partition function that [Layout.Partition]
// implements. It changes only with the function, which is never.
const layoutVersion = 1

// ErrLayout says that topics and layout don't fit each other; going on would
// give an endpoint two homes.
var ErrLayout = errors.New("partition layout mismatch")

// Layout is the part of the topics' shape that can't change after creation:
// where an endpoint lives. The registry keeps it as a record.
type Layout struct {
	Deliveries     int32 `json:"deliveries"`      // partitions of deliveries, attempts and lanes
	ScheduleShards int32 `json:"schedule_shards"` // schedule has WheelLevels times as many partitions
	Version        int   `json:"version"`         // of the endpoint → partition function
}

// Valid reports, as an error that wraps [ErrLayout], a layout that this program
// can't follow.
func (l Layout) Valid() error {
	if l.Version != layoutVersion {
		return fmt.Errorf("%w: version %d, this program knows %d", ErrLayout, l.Version, layoutVersion)
	}
	if l.Deliveries < 1 || l.ScheduleShards < 1 {
		return fmt.Errorf("%w: %d partitions, %d schedule shards", ErrLayout, l.Deliveries, l.ScheduleShards)
	}
	return nil
}

// Partition returns the home of an endpoint in deliveries, attempts and lanes.
// It is FNV-1a of 64 bits over the id, finished with the mixer of MurmurHash3
// (FNV's low bits alone spread ids that differ in their last character badly),
// modulo the partition count. The layout must be [Layout.Valid].
func (l Layout) Partition(endpointID string) int32 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(endpointID))                  // a hash never fails
	return int32(mix(h.Sum64()) % uint64(l.Deliveries)) //nolint:gosec // smaller than an int32
}

// SchedulePartition returns the partition of schedule that is wheel level
// (0 to WheelLevels-1) of a shard (0 to ScheduleShards-1).
func (l Layout) SchedulePartition(level int, shard int32) int32 {
	return int32(level) + WheelLevels*shard //nolint:gosec // level is below 17
}

// mix is MurmurHash3's 64-bit finaliser.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return x
}
