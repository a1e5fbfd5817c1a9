package fanout

import (
	"bytes"
	crand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/testkit"
	"github.com/postrider/postrider/schemas"
)

// A batch that can't be unpacked is rejected by position; what stands before and
// behind it in its partition is delivered, and a new process does not meet it again.
func TestDecompressionBomb(t *testing.T) {
	eachKafka(t, func(t *testing.T, r *rig) {
		r.view.subscribe("acme", 1, "", "*")
		r.produce(r.record(event("acme", "before", "order.paid"), 0))
		testkit.Bomb(t, r.broker, r.topics.Events, 0)
		r.produce(r.record(event("acme", "behind", "order.paid"), 0))
		testkit.Bomb(t, r.broker, r.topics.Events, 1) // nothing behind it: only the transaction's commit goes past
		_, stop := r.start("a")
		r.deliveries(2)
		stop()
		got := map[string]string{}
		for _, rec := range r.exactly(r.topics.Rejected, 2) {
			got[testkit.Header(rec, "pr_origin_partition")+"."+testkit.Header(rec, "pr_origin_offset")] = testkit.Header(rec, "pr_reason")
		}
		if diff := cmp.Diff(map[string]string{"0.1": "undecodable", "1.0": "undecodable"}, got); diff != "" {
			t.Errorf("rejected (-want +got):\n%s", diff)
		}
		commits, err := kadm.NewClient(r.cl).FetchOffsets(t.Context(), r.broker.Group(Group))
		if err != nil {
			t.Fatal(err)
		}
		if at, _ := commits.Lookup(r.topics.Events, 1); at.At != 3 {
			t.Errorf("commit of partition 1 is %d, want 3", at.At)
		}
		r.start("a") // again
		r.produce(r.record(event("acme", "later", "order.paid"), 1))
		r.deliveries(3)
		r.exactly(r.topics.Rejected, 2)
	})
}

// The client's one word about a bomb may get lost when it goes back after an abort;
// its log line must still be known, and end the session.
func TestBombNobodyTellsOf(t *testing.T) {
	r := newRig(t)
	testkit.Bomb(t, r.broker, r.topics.Events, 0)
	w := &bombWatch{log: slog.New(slog.DiscardHandler)}
	cl, err := r.broker.NewReader(map[string]map[int32]int64{r.topics.Events: {0: 0}}, kgo.WithLogger(w))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if errs := cl.PollFetches(t.Context()).Errors(); len(errs) != 1 || w.seen.Load() != 1 {
		t.Fatalf("errors %v, %d log lines seen", errs, w.seen.Load())
	}
	synctest.Test(t, func(t *testing.T) {
		if err := w.untold(); err != nil {
			t.Fatal(err)
		}
		<-time.After(tellWait + 1)
		if err := w.untold(); !errors.Is(err, errUntold) {
			t.Errorf("error %v", err)
		}
		w.told++
		if err := w.untold(); err != nil {
			t.Error(err)
		}
	})
}

// With polls of one record the bomb is told of while records before it are still
// buffered; none of them may be skipped.
func TestBombBehindBufferedRecords(t *testing.T) {
	r := newRig(t)
	r.view.subscribe("acme", 1, "", "*")
	for n := range 50 {
		r.produce(r.record(event("acme", strconv.Itoa(n), "order.paid"), 0))
	}
	testkit.Bomb(t, r.broker, r.topics.Events, 0)
	f, err := New(Config{Broker: r.broker, Layout: r.layout, Instance: "a", Redis: r.rdb, View: r.view})
	if err != nil {
		t.Fatal(err)
	}
	f.suspect.alone = 1000
	r.run(f)
	r.deliveries(50)
	r.exactly(r.topics.Rejected, 1)
}

// Records that Kafka refuses on the way out: here because deliveries takes less
// than events, whatever the configuration says.
func TestRefusedRecordIsFoundAndRejected(t *testing.T) {
	eachKafka(t, func(t *testing.T, r *rig) {
		size := strconv.Itoa(20_000)
		if _, err := kadm.NewClient(r.cl).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &size}}, r.topics.Deliveries); err != nil {
			t.Fatal(err)
		}
		r.view.subscribe("acme", 1, "", "*")
		for n := range 20 {
			ev := event("acme", strconv.Itoa(n), "order.paid")
			if n == 7 {
				ev.Data = make([]byte, 100_000)
				_, _ = crand.Read(ev.Data) // nothing to compress
			}
			r.produce(r.record(ev, int32(n%2)))
		}
		r.start("a")
		r.deliveries(19)
		rejected := r.exactly(r.topics.Rejected, 1)[0]
		if reason := testkit.Header(rejected, "pr_reason"); reason != string(schemas.RejectOversized) {
			t.Errorf("reason %s", reason)
		}
		// Its claim was taken back: a smaller repeat goes through.
		r.produce(r.record(event("acme", "7", "order.paid"), 0))
		r.deliveries(20)
	})
}

func TestSuspects(t *testing.T) {
	records := []*kgo.Record{{Topic: "e", Offset: 1}, {Topic: "e", Offset: 2}}
	refused := fmt.Errorf("produce: %w", kerr.InvalidRecord)
	var s suspects
	for range 10 {
		s.aborted(records, kerr.NotEnoughReplicas)
		s.aborted(records, kerr.ProducerFenced)
	}
	if s.poll(100) != 100 {
		t.Fatal("an outage blamed the records")
	}
	for range strikesOut {
		if s.alone != 0 {
			t.Fatal("alone too early")
		}
		s.aborted(records, refused)
	}
	if s.poll(100) != 1 {
		t.Fatalf("polls %d records after %d refusals", s.poll(100), strikesOut)
	}
	s.committed(records[:1])
	s.aborted(records[1:], refused)
	if r := s.verdict(records[1]); r == nil || r.reason != schemas.RejectAborting || r.bare {
		t.Errorf("verdict %+v", r)
	}
	if s.verdict(records[0]) != nil {
		t.Error("the innocent one is judged")
	}
	s.aborted(records[1:], refused)
	if r := s.verdict(records[1]); r == nil || !r.bare {
		t.Errorf("verdict after its rejection was refused: %+v", r)
	}
	s.committed(records[1:])
	if s.verdict(records[1]) != nil || s.poll(100) != 100 {
		t.Error("not forgotten after the commit")
	}
}

// A panic rejects its record and takes back what it had appended.
func TestPanicRejectsOneRecord(t *testing.T) {
	out := newTestOutbox(t)
	m := newMatcher(noTracer(), 1000)
	bad := item{rec: &kgo.Record{Topic: "events", Value: []byte("v")}, event: event("acme", "x", "t")}
	bad.tenant = judged{tenant: &tenant{exists: true}} // no set: Match panics
	if err := m.emit(t.Context(), &bad, out); err != nil {
		t.Fatal(err)
	}
	if len(out.records) != 1 || out.records[0].Topic != out.topics.Rejected || testkit.Header(out.records[0], "pr_reason") != "panic" {
		t.Errorf("records %+v", out.records)
	}
	page := pageItem{rec: &kgo.Record{Topic: "pages"}, page: schemas.Page{Endpoints: []string{"ep_1", "ep_2"}, Event: event("acme", "x", "t")}}
	out.layout.Deliveries = 0 // Partition divides by it
	out.expand(&page)
	if len(out.records) != 2 || testkit.Header(out.records[1], "pr_reason") != "panic" || out.deliveries != 0 {
		t.Errorf("%d records, %d deliveries", len(out.records), out.deliveries)
	}
}

func TestRejectionFits(t *testing.T) {
	big := bytes.Repeat([]byte("x"), 300_000)
	tests := []struct {
		name      string
		rec       kgo.Record
		reject    rejection
		truncated bool
		headers   int // of the record's own
	}{
		{"small", kgo.Record{Key: []byte("k"), Value: []byte("v"), Headers: []kgo.RecordHeader{{Key: "ce_id", Value: []byte("1")}}}, rejection{}, false, 1},
		{"value", kgo.Record{Value: big, Headers: []kgo.RecordHeader{{Key: "ce_id"}}}, rejection{}, true, 1},
		{"headers", kgo.Record{Value: []byte("v"), Headers: []kgo.RecordHeader{{Key: "ce_id", Value: big}}}, rejection{}, true, 0},
		{"key", kgo.Record{Key: big, Value: []byte("v")}, rejection{}, true, 0},
		{"detail", kgo.Record{Value: big}, rejection{detail: strings.Repeat("d", 100_000)}, true, 0},
		{"bare", kgo.Record{Value: []byte("v"), Headers: []kgo.RecordHeader{{Key: "ce_id"}}}, rejection{bare: true}, true, 0},
		{"spoofed", kgo.Record{Headers: []kgo.RecordHeader{{Key: "pr_reason", Value: []byte("fake")}}}, rejection{}, true, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := newTestOutbox(t)
			tt.reject.reason = schemas.RejectInvalid
			out.reject(&tt.rec, &tt.reject)
			rec := out.records[0]
			if size := recordSize(rec.Key, rec.Value, rec.Headers); size > out.maxSize {
				t.Errorf("%d bytes, at most %d fit", size, out.maxSize)
			}
			own := 0
			for _, h := range rec.Headers {
				if strings.HasPrefix(h.Key, "ce_") {
					own++
				}
			}
			if got := testkit.Header(rec, "pr_truncated") == "true"; got != tt.truncated || own != tt.headers || testkit.Header(rec, "pr_reason") != "invalid" {
				t.Errorf("truncated %t, %d own headers, reason %s", got, own, testkit.Header(rec, "pr_reason"))
			}
		})
	}
}
