package e2e

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

// badRecord is what a direct producer should not write.
type badRecord struct {
	name    string
	records []kafka.Message // one batch
	reason  schemas.RejectReason
}

// badRecords are the ways to be wrong in Kafka, one batch each.
func badRecords() []badRecord {
	good := func() kafka.Message { return message{ID: "bad", Type: "order.paid"}.record(true) }
	with := func(key, value string) kafka.Message {
		r := good()
		for i := range r.Headers {
			if r.Headers[i].Key == key {
				r.Headers[i].Value = []byte(value)
				return r
			}
		}
		r.Headers = append(r.Headers, kafka.Header{Key: key, Value: []byte(value)})
		return r
	}
	structured := func(body string) kafka.Message {
		return kafka.Message{
			Value: []byte(body), Headers: []kafka.Header{{Key: "content-type", Value: []byte("application/cloudevents+json")}},
		}
	}
	sized := func(n int) kafka.Message { r := good(); r.Value = bytes.Repeat([]byte("x"), n); return r }
	one := func(r kafka.Message) []kafka.Message { return []kafka.Message{r} }
	return []badRecord{
		{"no CloudEvent", one(kafka.Message{Value: []byte("hello")}), schemas.RejectMalformed},
		{"no value at all", one(kafka.Message{}), schemas.RejectMalformed},
		{"another specversion", one(with("ce_specversion", "0.3")), schemas.RejectMalformed},
		{"malformed JSON", one(structured(`{"specversion":`)), schemas.RejectMalformed},
		{"an attribute of another type", one(structured(`{"specversion":"1.0","id":{}}`)), schemas.RejectMalformed},
		{"no type", one(with("ce_type", "")), schemas.RejectInvalid},
		{"no tenant", one(with("ce_tenant", "")), schemas.RejectInvalid},
		{"a wrong time", one(with("ce_time", "noon")), schemas.RejectInvalid},
		{"large attributes", one(with("ce_note", strings.Repeat("x", 40<<10))), schemas.RejectInvalid},
		{"an unknown tenant", one(with("ce_tenant", "nobody")), schemas.RejectUnknownTenant},
		{"a loop", one(with("pr_hops", "6")), schemas.RejectHops},
		{"too large to be delivered", one(sized(8 << 20)), schemas.RejectOversized},
		{"a bomb", []kafka.Message{sized(20 << 20), sized(20 << 20)}, schemas.RejectUndecodable},
	}
}

// onePartition sends everything to partition 0.
type onePartition struct{}

func (onePartition) Balance(kafka.Message, ...int) int { return 0 }

// (B) A record of a direct producer that can't be an event goes to rejected with
// its reason and place, and what stands behind it in its partition is delivered.
func TestRejectedRecords(t *testing.T) {
	g := newGateway(t).startAll()
	g.tenant()
	s := newSink(t, nil)
	endpoint := g.endpoint(s.URL, nil)
	w := g.kafkaWriter(kafka.Zstd, onePartition{})
	t.Cleanup(func() { _ = w.Close() })
	write := func(records ...kafka.Message) {
		t.Helper()
		if err := w.WriteMessages(t.Context(), records...); err != nil {
			t.Fatal(err)
		}
	}
	rows, want, names := badRecords(), map[string]schemas.RejectReason{}, map[string]string{}
	good, next := messages(len(rows)), int64(0)
	var events []string
	for i, row := range rows {
		write(row.records...)
		place := "0." + strconv.FormatInt(next, 10)
		want[place], names[place] = row.reason, row.name
		write(good[i].record(i%2 == 0))
		events = append(events, good[i].event())
		next += int64(len(row.records)) + 1
	}
	eventually(t, 2*time.Minute, "all good events arrive", func() bool { return len(s.missing(events)) == 0 })
	tr := g.settledTruth(len(events))
	tr.check(g, events, []string{endpoint}, 0)
	if len(tr.pairs) != len(events) {
		t.Errorf("%d deliveries, want those of the %d good events", len(tr.pairs), len(events))
	}

	got := map[string]schemas.RejectReason{}
	g.scan(g.broker().Topics().Rejected, func(r *kgo.Record) {
		header := map[string]string{}
		for _, h := range r.Headers {
			header[h.Key] = string(h.Value)
		}
		at := header["pr_origin_partition"] + "." + header["pr_origin_offset"]
		got[at] = schemas.RejectReason(header["pr_reason"])
		if header["pr_detail"] == "" || header["pr_origin_topic"] != g.broker().Topics().Events {
			t.Errorf("rejection of %s without detail or origin: %v", names[at], header)
		}
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rejected (-want +got):\n%s%v", diff, names)
	}
}
