package deliver

import (
	"encoding/json"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// A million parked records of one endpoint cost at most a thousand records of
// lanes, 4 MB and 50 MiB of memory to park, and then a rewrite a minute and a
// tombstone a chunk to drain.
func TestMillionParked(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	synctest.Test(t, func(t *testing.T) {
		const total = 1_000_000
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return false }
		s.endpoint(registry.Endpoint{ID: "ep_1", RateLimit: registry.RateLimit{PerSecond: 0.01, Burst: 1}})
		s.made, s.total = func(offset int64) *kgo.Record { return s.record("ep_1", offset) }, 0
		l := s.start("w")
		w := l.w
		sleep(t.Context(), 2*time.Second)
		before := heapInUse()
		w.mu.Lock()
		h := w.homes[0]
		w.mu.Unlock()
		s.mu.Lock()
		s.total = total
		s.mu.Unlock()
		for next := int64(0); next < total; { // some 10,000 records a second
			sleep(t.Context(), time.Second)
			w.mu.Lock()
			next = h.seen
			w.mu.Unlock()
		}
		sleep(t.Context(), 10*time.Second)
		w.mu.Lock()
		parked, watermark := w.census().parked, h.tracker.watermark()
		w.mu.Unlock()
		if parked < total-1_000 || watermark < total-10_000 {
			t.Errorf("%d records parked, watermark %d, of %d", parked, watermark, total)
		}
		if grown := int64(heapInUse()-before) >> 20; grown > 50 {
			t.Errorf("memory grew by %d MiB, at most 50 are allowed", grown)
		}
		written, bytes := s.indexRecords(0)
		t.Logf("%d records of lanes, %d bytes, heap %+d MiB", written, bytes, int64(heapInUse()-before)>>20)
		if written > 1000 || bytes > 4<<20 {
			t.Errorf("%d records of lanes with %d bytes, at most 1,000 and 4 MiB are allowed", written, bytes)
		}

		s.endpoint(registry.Endpoint{ID: "ep_1", RateLimit: registry.RateLimit{PerSecond: 50, Burst: 1}})
		w.applyRegistry([]registry.Record{{Tenant: "acme", Entity: "ep_1", Offset: 50, Value: s.entries["ep_1"].Value}}, 100)
		const minutes = 10
		from := len(s.logs[s.topics.Lanes])
		done := len(s.attempts())
		sleep(t.Context(), minutes*time.Minute)
		drained := len(s.attempts()) - done
		values, _ := s.indexRecords(from)
		tombstones := len(s.logs[s.topics.Lanes]) - from - values
		t.Logf("%d records drained in %d minutes: %d rewrites, %d tombstones", drained, minutes, values, tombstones)
		// Where one chunk ends and the next begins both are rewritten once.
		if drained < 10_000 || values > minutes+tombstones+1 || tombstones > drained/1000 {
			t.Errorf("%d drained with %d rewrites and %d tombstones in %d minutes", drained, values, tombstones, minutes)
		}
		l.die()
	})
}

// heapInUse returns the bytes in use after a collection.
func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// record returns a record of deliveries as the consumer gives it.
func (s *sim) record(endpoint string, offset int64) *kgo.Record {
	id, _ := json.Marshal(offset)
	e := schemas.Event{ID: string(id), Source: "/sim", Type: "t", Tenant: "acme", DataContentType: "application/json", Time: "2026-11-22T10:00:00Z"}
	e.Data = append(append([]byte(`"`), id...), `,k"`...)
	d := &schemas.Delivery{Event: e, ID: schemas.DeliveryID(e.EventID(), endpoint, ""), EventID: e.EventID(), Endpoint: endpoint, Attempt: 1, MadeAt: time.Now()}
	return &kgo.Record{
		Key: []byte(endpoint), Value: e.Data, Headers: schemas.AppendDeliveryHeaders[kgo.RecordHeader](nil, d), Offset: offset, Timestamp: time.Now(),
	}
}

// indexRecords counts the chunks written from an index of lanes on, and their bytes.
func (s *sim) indexRecords(from int) (n, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.logs[s.topics.Lanes][from:] {
		if kind, _, _ := laneKind(string(r.Key)); kind == kindChunk && r.Value != nil {
			n++
			bytes += len(r.Key) + len(r.Value)
		}
	}
	return n, bytes
}
