package e2e

import (
	varint "encoding/binary"
	"encoding/json"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
)

// parkedEvents is how many records are parked in the test of (11).
const parkedEvents = 100_000

// (11) Three hand-overs of a partition with 100,000 parked records, the first
// owner stopped in its tracks and continued after the third: none is missing.
func TestParkedHandover(t *testing.T) {
	t.Parallel()
	const events = parkedEvents
	g := newGateway(t).startAll()
	g.tenant()
	s := newSink(t, nil)
	ep := g.endpoint(s.URL, nil)
	g.verb(ep, "pause")
	ids := g.events(events)
	g.parkedWith(ep, "deliver-1")

	g.signal("deliver-1", syscall.SIGSTOP)
	g.start("deliver", "deliver-2")
	g.parkedWith(ep, "deliver-2")
	g.kill("deliver-2")
	g.start("deliver", "deliver-3")
	g.parkedWith(ep, "deliver-3")
	g.kill("deliver-3")
	g.start("deliver", "deliver-4")
	g.parkedWith(ep, "deliver-4")
	g.signal("deliver-1", syscall.SIGCONT)
	g.ready("deliver-1")

	if n := s.accepted(); n > 0 {
		t.Errorf("%d events came while the endpoint was paused", n)
	}
	lanes := g.lanesOf(ep)
	// A full chunk holds 4,096 offsets: 25 for each of the four epochs. Beside
	// these: one for each flush (250 ms) of the intake, and what they merge to.
	// About two bytes a record and epoch, half of that where offsets are dense.
	if lanes.written > 600 || lanes.bytes > 4*2*events {
		t.Errorf("%d chunks of %d bytes were written for %d records", lanes.written, lanes.bytes, events)
	}
	t.Logf("%d chunks with %d bytes and %d tombstones were written", lanes.written, lanes.bytes, lanes.tombstones)

	g.verb(ep, "resume")
	eventually(t, 4*time.Minute, "everything arrived", func() bool { return len(s.missing(ids)) == 0 })
	t.Logf("%d requests, %d repeated", len(s.arrivals()), s.repeats())
	tr := g.settledTruth(events)
	tr.check(g, ids, []string{ep}, 0)
	if n := s.repeats(); n > 0 {
		t.Errorf("%d requests were repeated: no attempt was under way when an owner was lost", n)
	}
}

// lanes is what the topic lanes says of an endpoint.
type lanes struct {
	owner                      string // who wrote the last owner record of its partition
	epoch                      int64  // the highest epoch with chunks of the endpoint
	parked                     int    // records in the chunks of that epoch
	written, bytes, tombstones int    // chunks so far, of all epochs
}

// lanesOf reads the topic lanes. (What compaction took away is not counted.)
func (g *gateway) lanesOf(endpoint string) lanes {
	g.t.Helper()
	partition := broker.Layout{Deliveries: 8, ScheduleShards: 1}.Partition(endpoint)
	var out lanes
	counts := map[int64]map[string]int{}
	g.scan(g.broker().Topics().Lanes, func(r *kgo.Record) {
		key := string(r.Key)
		if r.Partition == partition && key == "owner" {
			var v struct {
				Instance string `json:"instance"`
			}
			if err := json.Unmarshal(r.Value, &v); err != nil {
				g.t.Errorf("owner record: %v", err)
			}
			out.owner, out.epoch = v.Instance, r.Offset
		}
		name, ok := strings.CutPrefix(key, endpoint+"/")
		if !ok {
			return
		}
		first, _, _ := strings.Cut(name, "/")
		epoch, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return // its state, or a cancel
		}
		if counts[epoch] == nil {
			counts[epoch] = map[string]int{}
		}
		if r.Value == nil {
			out.tombstones++
			delete(counts[epoch], key)
			return
		}
		out.written++
		out.bytes += len(r.Value)
		counts[epoch][key] = chunkCount(r.Value)
	})
	for _, n := range counts[out.epoch] {
		out.parked += n
	}
	return out
}

// chunkCount reads how many offsets a chunk has. Before the count stand the
// version, the length of the tenant's id and the id.
func chunkCount(value []byte) int {
	tenant, size := varint.Uvarint(value[1:])
	count, _ := varint.Uvarint(value[1+size+int(tenant):])
	return int(count)
}

// parkedWith waits until an instance owns the endpoint's partition and holds
// all parked records of it.
func (g *gateway) parkedWith(endpoint, instance string) {
	g.t.Helper()
	var last lanes
	ok := false
	defer func() {
		if !ok {
			g.t.Logf("%+v", last)
		}
	}()
	eventually(g.t, 3*time.Minute, instance+" holds all parked records", func() bool {
		last = g.lanesOf(endpoint)
		return last.owner == instance && last.parked == parkedEvents
	})
	ok = true
}

// (12) Two workers and a fan-out join under load, then two processes leave in
// an orderly way: nothing is missing, and nothing is made, sent or recorded
// twice.
func TestScaleOutAndIn(t *testing.T) {
	g := newGateway(t).startAll()
	g.tenant()
	a, b := newSink(t, slowly(30*time.Millisecond, oneInFive())), newSink(t, slowly(30*time.Millisecond, nil))
	retry := settings{"retry": map[string]any{"schedule": []string{"1s", "1s", "2s", "2s", "2s", "4s", "4s", "4s"}}}
	var endpoints []string
	sinks := []*sink{a, b}
	for i := range 8 {
		endpoints = append(endpoints, g.endpoint(sinks[i%2].URL+"/"+strconv.Itoa(i), retry))
	}
	l := g.sendLoad("order.paid", 100)
	wait(t.Context(), 2*time.Second)
	joining := []string{"deliver-2", "deliver-3", "fanout-2"}
	for _, instance := range joining {
		role, _, _ := strings.Cut(instance, "-")
		g.start(role, instance)
	}
	for _, instance := range joining {
		g.ready(instance)
	}
	wait(t.Context(), 4*time.Second)
	for _, instance := range []string{"deliver-1", "fanout-1"} {
		if code := g.stop(instance); code != 0 {
			t.Errorf("%s ended with code %d", instance, code)
		}
		wait(t.Context(), 3*time.Second)
	}
	events := l.end()
	tr := g.settledTruth(len(events) * len(endpoints))
	tr.check(g, events, endpoints, 0)
	d := g.decisions()
	d.matched(g, events)
	tr.accounted(g, d, events)
	for i, s := range sinks {
		if n := s.repeats(); n > 0 {
			t.Errorf("sink %d: %d requests were repeated", i, n)
		}
	}
}
