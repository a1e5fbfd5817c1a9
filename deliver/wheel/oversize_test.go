package wheel

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/testkit"
	"github.com/postrider/postrider/schemas"
)

// What a level can read it can pass on, if only to rejected: a record that is too large
// for the next topic, or can't be read and is large, holds nothing up.
func TestTooLargeForTheNextHop(t *testing.T) {
	_, cfg := embedded(t, broker.EmbeddedConfig{})
	topics := cfg.Topics()
	cl, report := prepared(t, cfg)
	adm, limit := kadm.NewClient(cl), "1000"
	if _, err := adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: &limit}}, topics.Deliveries); err != nil {
		t.Fatal(err)
	}
	d := schemas.Delivery{ID: "dlv_1", EventID: "evt_1", Endpoint: "ep_1", Attempt: 2, Levels: 1, Event: schemas.Event{Tenant: "acme", Data: make([]byte, 2000)}}
	large := Record(&d, topics, report.Layout)
	unreadable := &kgo.Record{Topic: topics.Schedule, Partition: large.Partition, Key: make([]byte, 500_000), Value: make([]byte, 500_000)}
	if err := cl.ProduceSync(t.Context(), unreadable, large).FirstErr(); err != nil {
		t.Fatal(err)
	}
	_, stop := start(t, cfg, report.Layout)
	defer stop()
	await(t, "committed behind both", func() bool {
		commits, err := adm.FetchOffsets(t.Context(), cfg.Group(Group))
		at, _ := commits.Lookup(topics.Schedule, large.Partition)
		return err == nil && at.At == 2
	})
	rejected := map[string]int{}
	reader, err := broker.NewPointReader(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	s, err := reader.Read(t.Context(), topics.Rejected, 0, 0, 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range s.Records {
		rejected[testkit.Header(r, "pr_reason")] = len(r.Key) + len(r.Value)
	}
	if rejected["malformed"] != 65<<10 || rejected["oversized"] != len("ep_1") || len(s.Records) != 2 {
		t.Errorf("%d records rejected, bytes by reason %v", len(s.Records), rejected)
	}
}
