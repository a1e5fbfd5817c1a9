package main

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/internal/testkit"
)

// A projector in a process without control writes lost updates to the audit, as
// control does.
func TestLostUpdateWithoutControl(t *testing.T) {
	kafka := testkit.EmbeddedKafka(t)
	client, err := kafka.NewClient()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if _, err := broker.Ensure(t.Context(), client, kafka); err != nil {
		t.Fatal(err)
	}
	p := &process{cfg: &Config{}, health: telemetry.NewHealth(), kafka: kafka, client: client, log: slog.New(slog.DiscardHandler)}
	p.addProjector()
	p.onLostUpdate(registry.Record{Tenant: "acme", Entity: "ep_1", Offset: 7, Prev: 3, Value: []byte(`{"secrets":[{"sealed":"hush"}]}`)})
	audit := kafka.Topics().Audit
	reader, err := kafka.NewReader(map[string]map[int32]int64{audit: {0: 0}})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var got *kgo.Record
	for got == nil {
		fetches := reader.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { got = r })
	}
	type audited struct {
		V                         int
		Who, What, Tenant, Entity string
		Old, New                  any
		Offset                    int64
		At                        time.Time
	}
	rec, err := registry.Decode[audited](got.Value)
	if err != nil || rec.At.IsZero() {
		t.Fatal(string(got.Value), err)
	}
	rec.At = time.Time{}
	want := &audited{V: 1, Who: "projector", What: "lost_update", Tenant: "acme", Entity: "ep_1", Offset: 7}
	if diff := cmp.Diff(want, rec); diff != "" || string(got.Key) != "acme/ep_1" {
		t.Errorf("key %s (-want +got):\n%s", got.Key, diff)
	}
}
