package deliver

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/schemas"
)

// loss returns what readiness says of lost records, "" if it is well.
func loss(h *telemetry.Health, t *testing.T) string {
	t.Helper()
	for _, c := range h.Ready(t.Context()).Checks {
		if c.Name == "deliver.loss" {
			return c.Detail
		}
	}
	t.Fatal("no check of lost records")
	return ""
}

// apart returns two endpoints in different partitions.
func (r *rig) apart(url string) (a, b *registry.Endpoint, partition int32) {
	r.t.Helper()
	a, _ = r.endpoint(url)
	for partition = r.layout.Partition(a.ID); ; {
		if b, _ = r.endpoint(url); r.layout.Partition(b.ID) != partition {
			return a, b, partition
		}
	}
}

// deleteBelow has Kafka delete records of a partition of deliveries.
func (r *rig) deleteBelow(partition int32, offset int64) {
	r.t.Helper()
	var cut kadm.Offsets
	cut.AddOffset(r.topics.Deliveries, partition, offset, -1)
	if got, err := kadm.NewClient(r.client).DeleteRecords(r.t.Context(), cut); err != nil || got.Error() != nil {
		r.t.Fatal(err, got.Error())
	}
}

// Records that Kafka deleted before they were read fail readiness, with their place.
// The rest is delivered, and the worker that comes next is well.
func TestGoesOnBehindLostRecords(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		a, b, partition := r.apart(s.URL)
		r.send(r.deliveries(a.ID, 20)...)
		r.send(r.deliveries(b.ID, 5)...)
		r.deleteBelow(partition, 13)
		health := telemetry.NewHealth()
		_, stop := r.worker("w1", func(_ *Config, d *Deps) { d.Health = health })
		r.eventually("all that is left", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == 12 })
		at := fmt.Sprintf("%s/%d: ", r.topics.Deliveries, partition)
		if want := at + "offsets 0 to 12 were deleted before they were read (lost_by_retention); it went on at 13; " + lossEnds; loss(health, t) != want {
			t.Errorf("readiness says %q, want %q", loss(health, t), want)
		}
		if got := health.Ready(t.Context()).Status; got != telemetry.StatusFailing {
			t.Errorf("status %s", got)
		}
		stop()
		fresh := telemetry.NewHealth()
		r.worker("w1", func(_ *Config, d *Deps) { d.Health = fresh })
		r.send(r.deliveries(a.ID, 3)...)
		r.eventually("what came later", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == 15 })
		if got := loss(fresh, t); got != "" || s.len() != 15 {
			t.Errorf("%d requests; the worker that came later says %q", s.len(), got)
		}
	})
}

// A gap that all of a partition's records fell into is passed, too.
func TestGoesOnAtTheEnd(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		a, _, partition := r.apart(s.URL)
		r.send(r.deliveries(a.ID, 20)...)
		r.deleteBelow(partition, 20)
		w, _ := r.worker("w1")
		r.eventually("it is told", func() bool { return w.losses.err() != nil })
		r.eventually("it is committed past", func() bool {
			commits, err := kadm.NewClient(r.client).FetchOffsets(t.Context(), r.kafka.Group(group))
			at, ok := commits.Lookup(r.topics.Deliveries, partition)
			return err == nil && ok && at.At == 20
		})
	})
}

// A log that ends below what was read is not taken up again: its offsets have had
// other records. The other partitions go on.
func TestHoldsATruncatedPartition(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		a, b, partition := r.apart(s.URL)
		r.send(r.deliveries(a.ID, 5)...)
		r.send(r.deliveries(b.ID, 5)...)
		var ahead kadm.Offsets
		ahead.AddOffset(r.topics.Deliveries, partition, 100, -1)
		if err := kadm.NewClient(r.client).CommitAllOffsets(t.Context(), r.kafka.Group(group), ahead); err != nil {
			t.Fatal(err)
		}
		w, _ := r.worker("w1")
		r.eventually("the other partition is delivered", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == 5 })
		want := fmt.Sprintf("%s/%d: Kafka lost records at the end of its log, which is at offset 5, where 100 was read", r.topics.Deliveries, partition)
		r.eventually("it is told", func() bool { return w.losses.err() != nil })
		if text := w.losses.err().Error(); !strings.Contains(text, want) || s.len() != 5 {
			t.Errorf("%d requests; %s", s.len(), text)
		}
	})
}

// Readiness names a few of many losses, and each of them once.
func TestLossesAreBounded(t *testing.T) {
	var l losses
	for range 3 {
		for i := range 100 {
			l.note(fmt.Sprintf("deliveries/%02d", i), fmt.Sprintf("lost in %02d", i))
		}
	}
	if want := "lost in 00; lost in 01; lost in 02; lost in 03; lost in 04; and 95 more; " + lossEnds; l.err().Error() != want {
		t.Errorf("%s, want %s", l.err(), want)
	}
}
