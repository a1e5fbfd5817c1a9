package deliver

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/testkit"
	"github.com/postrider/postrider/schemas"
)

// rejected returns the first so many records of the topic rejected.
func (r *rig) rejected(n int) []*kgo.Record {
	r.t.Helper()
	start := kgo.NewOffset().AtStart()
	cl, err := r.kafka.NewClient(kgo.ConsumeTopics(r.topics.Rejected), kgo.ConsumeStartOffset(start), kgo.ConsumeResetOffset(start))
	if err != nil {
		r.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	var out []*kgo.Record
	for len(out) < n && ctx.Err() == nil {
		out = append(out, cl.PollFetches(ctx).Records()...)
	}
	return out
}

// A batch that can't be unpacked is rejected by position. What stands before and
// behind it is delivered, once, also where another worker goes on.
func TestBombInDeliveries(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		const before, behind = 4000, 10
		s := newSink(t, nil)
		e, _ := r.endpoint(s.URL)
		p := r.layout.Partition(e.ID)
		_, stop := r.worker("w1")
		r.send(r.deliveries(e.ID, before)...)
		testkit.Bomb(t, r.kafka, r.topics.Deliveries, p)
		r.send(r.deliveries(e.ID, behind)...)
		r.eventually("all are delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == before+behind })
		stop()
		_, _ = r.worker("w2")
		r.send(r.delivery(e.ID))
		r.eventually("what comes later is delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == before+behind+1 })
		if n := s.len(); n != before+behind+1 {
			t.Errorf("%d requests", n)
		}
		got := r.rejected(1)
		if len(got) != 1 {
			t.Fatalf("%d records rejected", len(got))
		}
		reason, at := testkit.Header(got[0], "pr_reason"), testkit.Header(got[0], "pr_origin_partition")+"/"+testkit.Header(got[0], "pr_origin_offset")
		if want := fmt.Sprintf("%d/%d", p, before); reason != "undecodable" || at != want {
			t.Errorf("rejected for %s at %s, want %s", reason, at, want)
		}
	})
}

// What can be read can be told of: a key of any size ends in rejected and attempts,
// cut, and holds nothing up.
func TestHugeKeys(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		huge := strings.Repeat("k", 600_000)
		r.endpoint("http://127.0.0.1:1") // the registry has begun
		rec := &kgo.Record{Topic: r.topics.Deliveries, Partition: r.layout.Partition(huge), Key: []byte(huge), Value: []byte("no delivery")}
		if err := r.client.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
		r.send(r.delivery(huge)) // can be read; its endpoint does not exist
		r.worker("w1")
		r.eventually("both have ended", func() bool {
			o := r.outcomes()
			return r.committed(rec.Partition).At == 2 && o[schemas.OutcomeRejected] == 1 && o[schemas.OutcomeCancelled] == 1
		})
		for _, a := range r.attempts() {
			if len(a.Endpoint) != 1<<10 {
				t.Errorf("%s: %d bytes of the key", a.Outcome, len(a.Endpoint))
			}
		}
		got := r.rejected(1)
		if len(got) != 1 || !bytes.Equal(got[0].Key, []byte(huge[:1<<10])) || string(got[0].Value) != "no delivery" {
			t.Errorf("%d records rejected, want one with its key cut", len(got))
		}
	})
}

// A retry that its topic refuses for its size is written to rejected, and the delivery
// does not hold up its partition.
func TestRetryTooLarge(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, func(int, *http.Request) int { return http.StatusInternalServerError })
		e, _ := r.endpoint(s.URL, quick(3))
		limit := "1000"
		if _, err := kadm.NewClient(r.client).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: &limit}}, r.topics.Schedule); err != nil {
			t.Fatal(err)
		}
		d := r.delivery(e.ID)
		d.Event.Data = make([]byte, 2000)
		_, _ = rand.Read(d.Event.Data) // Kafka's limit is about what is compressed
		r.send(d)
		r.worker("w1")
		p := r.layout.Partition(e.ID)
		r.eventually("the delivery has ended", func() bool { return r.committed(p).At == 1 })
		got := r.rejected(1)
		if len(got) != 1 || s.len() != 1 {
			t.Fatalf("%d records rejected, %d requests", len(got), s.len())
		}
		headers := map[string]string{}
		for _, h := range got[0].Headers {
			headers[h.Key] = string(h.Value)
		}
		if headers["pr_reason"] != string(schemas.RejectOversized) || headers["pr_origin_topic"] != r.topics.Deliveries || headers["pr_origin_offset"] != "0" || headers["pr_truncated"] != "true" {
			t.Errorf("rejected with %v", headers)
		}
	})
}
