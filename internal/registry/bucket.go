package registry

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"strconv"
)

// Buckets is the number of parts of the view. All keys of a bucket share a hash
// tag: one slot, one replication stream.
const Buckets = 32

// bucketOf returns the bucket of a tenant, or of an entity that is looked up by
// its own id: FNV-1a of 32 bits, folded. It is fixed: another function needs
// other key names.
func bucketOf(name string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // a hash never fails
	sum := h.Sum32()
	return int((sum ^ sum>>16) % Buckets)
}

// The keys of a bucket.

func tag(bucket int) string { return fmt.Sprintf("{v%02d}:", bucket) }

func markerKey(bucket int) string { return tag(bucket) + "m" }

// generationsKey names the set of generations that have keys.
func generationsKey(bucket int) string { return tag(bucket) + "g" }

// tenantsKey names the set of names that have a hash in the generation. ('@'
// begins no name.)
func tenantsKey(bucket int, generation string) string {
	return tag(bucket) + generation + ":@tenants"
}

func hashKey(bucket int, generation, name string) string {
	return tag(bucket) + generation + ":" + name
}

// versionField is the field of a hash with the offset of its last change.
const versionField = "@v"

// Marker says how far a bucket of the view goes.
type Marker struct {
	// Generation tells one building of the bucket from another. It never
	// repeats; 0 means that there is none.
	Generation int64
	// Next is the offset below which every record is in the view.
	Next int64
	// Complete reports that the generation has reached what was the end of the
	// log when it began. Without it the data is a part of something.
	Complete bool
}

// Reached reports whether the bucket is complete and has every record below
// offset.
func (m Marker) Reached(offset int64) bool { return m.Complete && m.Next >= offset }

// storedMarker is a marker as it stands in Redis.
type storedMarker struct {
	Marker
	topic, generation string // as read, "" if absent
	at                int64  // ms; the position was the log's end then
	count             int64  // names with a hash
	valid             bool
}

// markerFields is the order of parseMarker.
func markerFields() []string { return []string{"topic", "gen", "next", "complete", "at", "n"} }

// parseMarker reads the answer to an HMGET of markerFields. A marker that
// anything is missing from is not valid.
func parseMarker(values []any) storedMarker {
	var text [6]string
	for i := range min(len(values), len(text)) {
		text[i], _ = values[i].(string)
	}
	m := storedMarker{topic: text[0], generation: text[1]}
	generation, err1 := strconv.ParseInt(text[1], 10, 64)
	next, err2 := strconv.ParseInt(text[2], 10, 64)
	at, err3 := strconv.ParseInt(text[4], 10, 64)
	count, err4 := strconv.ParseInt(text[5], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil || m.topic == "" || generation <= 0 {
		return m
	}
	m.Marker = Marker{Generation: generation, Next: next, Complete: text[3] == "1"}
	m.at, m.count, m.valid = at, count, true
	return m
}

// topicText is a topic's id as markers have it.
func topicText(id [16]byte) string { return hex.EncodeToString(id[:]) }

func formatInt(n int64) string { return strconv.FormatInt(n, 10) }
