package deliver

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/schemas"
)

// cut deletes deliveries below an offset, as retention does; -1 is the end.
func (r *rig) cut(partition int32, below int64) {
	r.t.Helper()
	var at kadm.Offsets
	at.AddOffset(r.topics.Deliveries, partition, below, -1)
	if _, err := kadm.NewClient(r.client).DeleteRecords(r.t.Context(), at); err != nil {
		r.t.Fatal(err)
	}
}

// committed returns what the group has committed for a partition.
func (r *rig) committed(partition int32) kadm.Offset {
	r.t.Helper()
	commits, err := kadm.NewClient(r.client).FetchOffsets(r.t.Context(), r.kafka.Group(group))
	if err != nil {
		r.t.Fatal(err)
	}
	at, _ := commits.Lookup(r.topics.Deliveries, partition)
	return at.Offset
}

// loss returns what the check of lost records says, "" while it does not fail.
func loss(t *testing.T, h *telemetry.Health) string {
	t.Helper()
	for _, c := range h.Ready(t.Context()).Checks {
		if c.Name == "deliver.data_loss" && c.Status == telemetry.StatusFailing {
			return c.Detail
		}
	}
	return ""
}

// Deliveries that retention deletes before they are read are told of for good, and
// what is left is delivered; a new process begins behind the gap.
func TestLogBeginsAboveCommit(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		e, _ := r.endpoint(s.URL)
		p := r.layout.Partition(e.ID)
		r.send(r.deliveries(e.ID, 10)...)
		r.cut(p, 4)
		var health *telemetry.Health
		note := func(_ *Config, d *Deps) { health = d.Health }
		_, stop := r.worker("w1", note)
		r.eventually("what is left is delivered", func() bool { return s.len() == 6 })
		want := fmt.Sprintf("lost_by_retention: %s/%d: offsets 0 to 3", r.topics.Deliveries, p)
		if got := loss(t, health); !strings.Contains(got, want) {
			t.Errorf("ready says %q, want %q", got, want)
		}
		stop()
		r.send(r.deliveries(e.ID, 5)...)
		r.cut(p, -1) // nothing is left
		_, stop = r.worker("w1", note)
		r.eventually("the commit is behind the gap", func() bool { return r.committed(p).At == 15 })
		stop()
		r.send(r.deliveries(e.ID, 1)...)
		_, stop = r.worker("w1", note)
		defer stop()
		r.eventually("a later one is delivered", func() bool { return s.len() == 7 })
		if got := loss(t, health); got != "" {
			t.Errorf("ready after a restart says %q", got)
		}
	})
}

// A partition whose log ends below the commit waits and holds up nobody; it goes on
// once its log has grown.
func TestLogEndsBelowCommit(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		short, _ := r.endpoint(s.URL)
		p := r.layout.Partition(short.ID)
		other, _ := r.endpoint(s.URL)
		for r.layout.Partition(other.ID) == p {
			other, _ = r.endpoint(s.URL)
		}
		var at kadm.Offsets
		at.AddOffset(r.topics.Deliveries, p, 3, -1)
		if err := kadm.NewClient(r.client).CommitAllOffsets(t.Context(), r.kafka.Group(group), at); err != nil {
			t.Fatal(err)
		}
		var health *telemetry.Health
		r.worker("w1", func(_ *Config, d *Deps) { health = d.Health })
		want := fmt.Sprintf("truncated: %s/%d: offset 3 is to be read next, but the log ends at 0", r.topics.Deliveries, p)
		r.eventually("not ready", func() bool { return strings.Contains(loss(t, health), want) })
		r.send(r.deliveries(other.ID, 1)...)
		r.eventually("the other one is delivered", func() bool { return s.len() == 1 })
		ds := r.deliveries(short.ID, 4)
		r.send(ds...)
		r.eventually("it goes on", func() bool { return s.counts()[ds[3].EventID] == 1 })
		if loss(t, health) == "" || s.len() != 2 {
			t.Errorf("ready after a loss, or %d requests", s.len())
		}
	})
}

// After the end of the log was cut off, the records from there on are others: what is
// known of these offsets (done, parked) does not count for them.
func TestLogIsCutOff(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		e, _ := r.endpoint(s.URL)
		p := r.layout.Partition(e.ID)
		paused, _ := r.endpoint(s.URL, func(e *registry.Endpoint) { e.State = registry.StatePaused })
		for r.layout.Partition(paused.ID) != p {
			paused, _ = r.endpoint(s.URL, func(e *registry.Endpoint) { e.State = registry.StatePaused })
		}
		var health *telemetry.Health
		w, _ := r.worker("w1", func(_ *Config, d *Deps) { health = d.Health })
		r.send(r.deliveries(e.ID, 5)...)
		r.send(r.deliveries(paused.ID, 3)...)
		r.eventually("delivered and parked", func() bool { return r.outcomes()[schemas.OutcomeDelivered] == 5 && w.parkedNow() == 3 })
		epoch := w.epochOf(p)
		w.cutOff(t.Context(), &kgo.ErrDataLoss{Topic: r.topics.Deliveries, Partition: p, ConsumedTo: 9, ResetTo: 3})
		r.eventually("taken over again", func() bool { return w.epochOf(p) > epoch })
		// Nothing was really cut off, so they are the same deliveries again, and dropped as
		// copies where it is not known that the owner before had made the attempt.
		taken := func() int { return r.outcomes()[schemas.OutcomeDelivered] + r.outcomes()[schemas.OutcomeRepeat] }
		r.eventually("the records from there on are taken for others", func() bool { return taken() == 5+2 && w.parkedNow() == 3 })
		if loss(t, health) == "" {
			t.Error("ready after a loss")
		}
		paused.State = registry.StateEnabled
		r.store(paused)
		r.eventually("each is delivered", func() bool { return taken() == 5+2+3 })
		r.eventually("committed", func() bool { return r.committed(p).At == 8 })
	})
}

// A commit tells the leader epoch of what it stands at: by it a consumer learns
// that the log was cut off below.
func TestCommitsHaveALeaderEpoch(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		e, _ := r.endpoint(s.URL)
		r.worker("w1")
		r.send(r.deliveries(e.ID, 3)...)
		p := r.layout.Partition(e.ID)
		r.eventually("committed", func() bool { return r.committed(p).At == 3 })
		if at := r.committed(p); at.LeaderEpoch < 0 {
			t.Errorf("leader epoch %d", at.LeaderEpoch)
		}
	})
}

// A commit stands behind the markers of transactions: else it would be below the
// start of a log that was emptied since, and look like a loss.
func TestCommitPassesMarkers(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := newSink(t, nil)
		e, _ := r.endpoint(s.URL)
		p := r.layout.Partition(e.ID)
		tx, err := r.kafka.NewClient(kgo.TransactionalID(r.kafka.Group("other")), kgo.RecordPartitioner(partitioner(r.topics)))
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Close()
		d := r.delivery(e.ID)
		if err := tx.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		rec := &kgo.Record{
			Topic: r.topics.Deliveries, Partition: p, Key: []byte(e.ID), Value: d.Event.Data,
			Headers: schemas.AppendDeliveryHeaders[kgo.RecordHeader](nil, d),
		}
		if err := tx.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := tx.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
		r.worker("w1")
		r.eventually("committed behind the marker, with its epoch", func() bool {
			at := r.committed(p)
			return s.len() == 1 && at.At == 2 && at.LeaderEpoch >= 0
		})
	})
}
