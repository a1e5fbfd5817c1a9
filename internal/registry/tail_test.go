package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/testkit"
)

// heard collects what a tail applies.
type heard struct {
	mu      sync.Mutex
	offsets []int64
	next    int64
}

func (h *heard) apply(records []Record, next int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range records {
		h.offsets = append(h.offsets, r.Offset)
	}
	h.next = next
}

func (h *heard) all() []int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]int64{}, h.offsets...)
}

func TestTail(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for i := range 5 {
			r.write("acme", fmt.Sprintf("ep_%d", i), "{}", PrevAbsent)
		}
		var h heard
		var ticks atomic.Int64
		tail := NewTail(TailConfig{Kafka: r.kafka, From: 2, Apply: h.apply, Tick: func() { ticks.Add(1) }})
		if tail.Next() != 2 {
			t.Errorf("next before the start: %d", tail.Next())
		}
		testkit.Background(t, tail.Run)
		testkit.Eventually(t, "the tail is at the end", func() bool { return tail.Next() == 5 })
		k := newRecord(r.topic, Record{Tenant: "?", Entity: "x"}) // not understood, but passed
		if err := r.client.ProduceSync(t.Context(), k).FirstErr(); err != nil {
			t.Fatal(err)
		}
		r.write("acme", "ep_1", "", PrevUnknown)
		testkit.Eventually(t, "the tail follows", func() bool { return tail.Next() == 7 })
		if diff := cmp.Diff([]int64{2, 3, 4, 6}, h.all()); diff != "" {
			t.Errorf("offsets (-want +got):\n%s", diff)
		}
		if h.next != 7 || ticks.Load() == 0 {
			t.Errorf("applied up to %d, %d ticks", h.next, ticks.Load())
		}
	})
}

// Control records of a transaction are holes: the position passes them without
// a record to show for it, as the barrier asks.
func TestTailPassesHoles(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		producer, err := r.kafka.NewClient(kgo.TransactionalID(r.kafka.Topics().Registry + "-test"))
		if err != nil {
			t.Fatal(err)
		}
		defer producer.Close()
		var h heard
		tail := NewTail(TailConfig{Kafka: r.kafka, Apply: h.apply})
		testkit.Background(t, tail.Run)
		for _, commit := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
			if err := producer.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			k := newRecord(r.topic, Record{Tenant: "acme", Entity: "ep_1", Value: []byte("{}"), Prev: PrevAbsent})
			if err := producer.ProduceSync(t.Context(), k).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := producer.EndTransaction(t.Context(), commit); err != nil {
				t.Fatal(err)
			}
		}
		testkit.Eventually(t, "the tail is behind the last marker", func() bool { return tail.Next() == 4 && r.end() == 4 })
		if diff := cmp.Diff([]int64{2}, h.all()); diff != "" {
			t.Errorf("offsets (-want +got):\n%s", diff)
		}
	})
}

func TestTailEndsWhenTheLogIsLost(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		ignore := func([]Record, int64) {}
		t.Run("offset beyond the end", func(t *testing.T) {
			err := NewTail(TailConfig{Kafka: r.kafka, From: 99, Apply: ignore}).Run(t.Context())
			if !errors.Is(err, ErrLogLost) {
				t.Errorf("have %v, want %v", err, ErrLogLost)
			}
		})
		t.Run("topic created anew", func(t *testing.T) {
			r.write("acme", "tenant", "{}", PrevAbsent)
			tail := NewTail(TailConfig{Kafka: r.kafka, Apply: ignore})
			done := make(chan error, 1)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() { done <- tail.Run(ctx) }()
			testkit.Eventually(t, "the tail reads", func() bool { return tail.Next() == 1 })
			adm := kadm.NewClient(r.client)
			if _, err := adm.DeleteTopics(ctx, r.topic); err != nil {
				t.Fatal(err)
			}
			testkit.Eventually(t, "the topic is there again", func() bool {
				_, err := adm.CreateTopic(ctx, 1, 1, nil, r.topic)
				return err == nil
			})
			if err := <-done; !errors.Is(err, ErrLogLost) {
				t.Errorf("have %v, want %v", err, ErrLogLost)
			}
		})
	})
}
