package registry

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

// View reads the view of the registry in Redis. It is safe for concurrent use.
//
// Whatever it returns was read in one transaction with the marker it is
// returned with. A marker of another topic, or none, is the zero Marker. Nothing
// is promised of data under a marker that is not complete.
type View struct {
	rdb        redis.UniversalClient
	topic      string
	invalidate *redis.Script
	// generations are the newest ones seen: part of the keys that are read in
	// the same transaction as the marker that proves them right.
	generations [Buckets]atomic.Int64
}

// NewView returns a view of the registry in the topic with that id (see
// broker.TopicID).
func NewView(rdb redis.UniversalClient, topicID [16]byte) *View {
	return &View{rdb: rdb, topic: topicText(topicID), invalidate: redis.NewScript(invalidateSource)}
}

// Version is a tenant's state in one number pair: compare Generation and At of
// two versions with "not equal", never with "less".
type Version struct {
	Marker
	// At is the offset of the tenant's last change, -1 if it has nothing.
	At int64
}

// Entry is one entity: the offset of its version, and its JSON.
type Entry struct {
	Offset int64
	Value  []byte
}

// Snapshot is all that a tenant has, by entity.
type Snapshot struct {
	Tenant string
	Version
	Entries map[string]Entry
}

// Ref names an entity. One that is looked up without its tenant (a key) is
// named by its own id twice.
type Ref struct{ Tenant, Entity string }

// Found is an entity as found, or its absence, which counts only under a marker
// that is complete and new enough.
type Found struct {
	Marker
	Entry
	OK bool
}

// Versions returns the versions of tenants, in order. One pipeline.
func (v *View) Versions(ctx context.Context, tenants []string) ([]Version, error) {
	read, err := v.read(ctx, tenants, nil)
	if err != nil {
		return nil, err
	}
	versions := make([]Version, len(read))
	for i, r := range read {
		versions[i] = r.Version
	}
	return versions, nil
}

// loadsAtOnce bounds the tenants that one Load reads side by side.
const loadsAtOnce = 4

// Load returns all that tenants have, in order. Each is read in a transaction of its
// own, so that the timeout of Redis has to hold for one tenant only, which MaxBytes
// bounds; an error names the tenant. The caller bounds how many it asks for at once:
// all that they have is in memory then.
func (v *View) Load(ctx context.Context, tenants []string) ([]Snapshot, error) {
	snapshots := make([]Snapshot, len(tenants))
	var g errgroup.Group
	g.SetLimit(loadsAtOnce)
	for i, tenant := range tenants {
		g.Go(func() (err error) {
			if snapshots[i], err = v.load(ctx, tenant); err != nil {
				return fmt.Errorf("load tenant %s: %w", tenant, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return snapshots, nil
}

func (v *View) load(ctx context.Context, tenant string) (Snapshot, error) {
	read, err := v.read(ctx, []string{tenant}, func(p redis.Pipeliner, key string, _ int) redis.Cmder {
		return p.HGetAll(ctx, key)
	})
	if err != nil {
		return Snapshot{}, err
	}
	s := Snapshot{Tenant: tenant, Version: read[0].Version, Entries: map[string]Entry{}}
	if fields, ok := read[0].cmd.(*redis.MapStringStringCmd); ok && s.At >= 0 {
		for field, text := range fields.Val() {
			if e, ok := parseEntry(text); ok && field != versionField {
				s.Entries[field] = e
			}
		}
	}
	return s, nil
}

// Entities returns single entities, in order. One pipeline.
func (v *View) Entities(ctx context.Context, refs []Ref) ([]Found, error) {
	names := make([]string, len(refs))
	for i, r := range refs {
		names[i] = r.Tenant
	}
	read, err := v.read(ctx, names, func(p redis.Pipeliner, key string, i int) redis.Cmder {
		return p.HMGet(ctx, key, refs[i].Entity)
	})
	if err != nil {
		return nil, err
	}
	found := make([]Found, len(read))
	for i, r := range read {
		found[i].Marker = r.Marker
		if values, ok := r.cmd.(*redis.SliceCmd); ok && r.At >= 0 {
			found[i].Entry, found[i].OK = parseEntry(first(values))
		}
	}
	return found, nil
}

// Markers returns the markers of all buckets. One pipeline.
func (v *View) Markers(ctx context.Context) ([]Marker, error) {
	stored, err := readMarkers(ctx, v.rdb)
	if err != nil {
		return nil, err
	}
	markers := make([]Marker, Buckets)
	for i, m := range stored {
		if m.valid && m.topic == v.topic {
			markers[i] = m.Marker
		}
	}
	return markers, nil
}

// markersOf returns the marker of each bucket named.
func (v *View) markersOf(ctx context.Context, buckets []int) ([]Marker, error) {
	cmds := make([]*redis.SliceCmd, len(buckets))
	_, err := v.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, b := range buckets {
			cmds[i] = p.HMGet(ctx, markerKey(b), markerFields()...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read view markers: %w", err)
	}
	markers := make([]Marker, len(buckets))
	for i, cmd := range cmds {
		if m := parseMarker(cmd.Val()); m.valid && m.topic == v.topic {
			markers[i] = m.Marker
		}
	}
	return markers, nil
}

func readMarkers(ctx context.Context, rdb redis.UniversalClient) ([Buckets]storedMarker, error) {
	var cmds [Buckets]*redis.SliceCmd
	var markers [Buckets]storedMarker
	_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for b := range cmds {
			cmds[b] = p.HMGet(ctx, markerKey(b), markerFields()...)
		}
		return nil
	})
	if err != nil {
		return markers, fmt.Errorf("read view markers: %w", err)
	}
	for b, cmd := range cmds {
		markers[b] = parseMarker(cmd.Val())
	}
	return markers, nil
}

// first returns the first answer to an HMGET, "" if the field is absent.
func first(cmd *redis.SliceCmd) string {
	for _, v := range cmd.Val() {
		text, _ := v.(string)
		return text
	}
	return ""
}

// parseEntry reads "<offset> <json>".
func parseEntry(text string) (Entry, bool) {
	offset, value, ok := strings.Cut(text, " ")
	n, err := strconv.ParseInt(offset, 10, 64)
	if !ok || err != nil || n < 0 {
		return Entry{}, false
	}
	return Entry{Offset: n, Value: []byte(value)}, true
}

// Bounds of a read: names in one transaction, and tries while generations
// change under it.
const (
	readNames = 512
	readTries = 4
)

// queueFunc adds what is to be read of name i, whose hash is key.
type queueFunc func(p redis.Pipeliner, key string, i int) redis.Cmder

// reading is what was read of one name.
type reading struct {
	Version
	cmd redis.Cmder // what queue returned
}

// read reads, for each name, its version and what queue asks for. All names of
// a bucket are read together with its marker.
func (v *View) read(ctx context.Context, names []string, queue queueFunc) ([]reading, error) {
	out := make([]reading, len(names))
	order := make([]int, len(names))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return bucketOf(names[a]) - bucketOf(names[b]) })
	for part := range slices.Chunk(order, readNames) {
		todo := part
		for try := 0; len(todo) > 0 && try < readTries; try++ {
			var err error
			if todo, err = v.readOnce(ctx, names, todo, queue, out); err != nil {
				return nil, err
			}
		}
		for _, i := range todo { // too many generations: as good as none
			out[i] = reading{Version: Version{At: -1}}
		}
	}
	return out, nil
}

// bucketReading is the part of a transaction that is in one bucket.
type bucketReading struct {
	bucket     int
	generation int64
	names      []int
	marker     *redis.SliceCmd
	count      *redis.IntCmd
	members    *redis.BoolSliceCmd
	versions   []*redis.SliceCmd
}

// readOnce reads the names todo, sorted by bucket, and returns those whose
// bucket has another generation than was thought.
func (v *View) readOnce(ctx context.Context, names []string, todo []int, queue queueFunc, out []reading) (again []int, err error) {
	var parts []*bucketReading
	for _, i := range todo {
		b := bucketOf(names[i])
		if len(parts) == 0 || parts[len(parts)-1].bucket != b {
			parts = append(parts, &bucketReading{bucket: b, generation: v.generations[b].Load()})
		}
		last := parts[len(parts)-1]
		last.names = append(last.names, i)
	}
	if err := v.transact(ctx, parts, func(p redis.Pipeliner, part *bucketReading) {
		part.queue(ctx, p, names, queue, out)
	}); err != nil {
		return nil, fmt.Errorf("read registry view: %w", err)
	}
	for _, part := range parts {
		if v.take(ctx, part, out) {
			again = append(again, part.names...)
		}
	}
	return again, nil
}

// transact reads the parts: on a single Redis all in one transaction, on a
// cluster, where a transaction stays in its slot, one each and side by side.
func (v *View) transact(ctx context.Context, parts []*bucketReading, queue func(redis.Pipeliner, *bucketReading)) error {
	groups := [][]*bucketReading{parts}
	if _, cluster := v.rdb.(*redis.ClusterClient); cluster {
		groups = slices.Collect(slices.Chunk(parts, 1))
	}
	var g errgroup.Group
	for _, group := range groups {
		g.Go(func() error {
			_, err := v.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
				for _, part := range group {
					queue(p, part)
				}
				return nil
			})
			return err
		})
	}
	return g.Wait()
}

func (r *bucketReading) queue(ctx context.Context, p redis.Pipeliner, names []string, queue queueFunc, out []reading) {
	generation := formatInt(r.generation)
	r.marker = p.HMGet(ctx, markerKey(r.bucket), markerFields()...)
	r.count = p.SCard(ctx, tenantsKey(r.bucket, generation))
	members := make([]any, len(r.names))
	for n, i := range r.names {
		members[n] = names[i]
		key := hashKey(r.bucket, generation, names[i])
		r.versions = append(r.versions, p.HMGet(ctx, key, versionField))
		if queue != nil {
			out[i].cmd = queue(p, key, i)
		}
	}
	r.members = p.SMIsMember(ctx, tenantsKey(r.bucket, generation), members...)
}

// take judges what was read of a bucket, and reports whether it must be read
// again under another generation.
func (v *View) take(ctx context.Context, r *bucketReading, out []reading) (again bool) {
	marker := parseMarker(r.marker.Val())
	if !marker.valid || marker.topic != v.topic {
		marker = storedMarker{}
	}
	if marker.valid && marker.Generation != r.generation {
		v.generations[r.bucket].Store(marker.Generation)
		return true
	}
	damaged := marker.valid && r.count.Val() != marker.count
	members := r.members.Val()
	for n, i := range r.names {
		at := int64(-1)
		if offset, err := strconv.ParseInt(first(r.versions[n]), 10, 64); err == nil && marker.valid {
			at = offset
		}
		damaged = damaged || marker.valid && (at >= 0) != members[n]
		out[i].Version = Version{Marker: marker.Marker, At: at}
	}
	if !damaged {
		return false
	}
	// A part of the generation is gone, by hand or by eviction. Nobody may
	// believe what is left; without a marker the projector builds a new one. If
	// that fails, the next reader tries again.
	_, _ = runOne(ctx, v.rdb, v.invalidate, call{keys: []string{markerKey(r.bucket)}, args: []any{marker.topic, marker.generation}})
	for _, i := range r.names {
		out[i].Version = Version{At: -1}
	}
	return false
}
