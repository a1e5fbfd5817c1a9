package wheel

import (
	"log/slog"
	"math/bits"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric/noop"
	"pgregory.net/rapid"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/schemas"
)

// A delay is never shorter than its step, at most 1.27 times it and a second,
// takes at most four hops, and is the same for a copy.
func TestDelayLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		step := time.Duration(rapid.Int64Range(0, int64(MaxStep)).Draw(t, "step"))
		id, attempt := rapid.String().Draw(t, "delivery"), rapid.IntRange(1, 100).Draw(t, "attempt")
		levels := Delay(step, id, attempt)
		got := Duration(levels)
		if got < step || got < time.Second {
			t.Fatalf("delay %s of step %s", got, step)
		}
		if got > WorstCase(step) || got > MaxDelay {
			t.Fatalf("delay %s of step %s, worst case %s", got, step, WorstCase(step))
		}
		if n := bits.OnesCount32(levels); n > 4 {
			t.Fatalf("%d hops for %s", n, got)
		}
		if Delay(step, id, attempt) != levels {
			t.Fatal("a copy goes another way")
		}
	})
}

// Passing every level takes exactly the delay; each level is passed once, longest
// first; the last hop leads to the endpoint's home.
func TestHopsAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		layout := broker.Layout{Deliveries: 8, ScheduleShards: 3, Version: 1}
		topics := broker.Names("")
		d := schemas.Delivery{
			ID: "dlv_1", EventID: "evt_1", Endpoint: "ep_1", Attempt: 2, Event: schemas.Event{Tenant: "acme", Data: []byte("x")},
			Levels: rapid.Uint32Range(1, 1<<Levels-1).Draw(t, "levels"),
		}
		want := Duration(d.Levels)
		var waited, last time.Duration = 0, 1 << 62
		for range Levels + 1 {
			r := Record(&d, topics, layout)
			next, err := schemas.DecodeDelivery(r.Key, r.Value, r.Headers)
			if err != nil {
				t.Fatal(err)
			}
			if r.Topic == topics.Deliveries {
				if r.Partition != layout.Partition("ep_1") || waited != want || next.Levels != 0 {
					t.Fatalf("home after %s in partition %d, want %s", waited, r.Partition, want)
				}
				return
			}
			l := newLevel(r.Partition)
			if l.wait >= last || r.Partition >= broker.WheelLevels*layout.ScheduleShards {
				t.Fatalf("level of %s after one of %s", l.wait, last)
			}
			waited, last, d = waited+l.wait, l.wait, next
		}
		t.Fatal("never home")
	})
}

// Levels that no version of ours writes don't lead anywhere.
func TestForeignLevels(t *testing.T) {
	if _, _, ok := Next(1 << Levels); ok {
		t.Error("a level above the last one is a hop")
	}
	if level, rest, ok := Next(1<<31 | 5); level != 2 || rest != 1 || !ok {
		t.Errorf("level %d, rest %d, %t", level, rest, ok)
	}
}

// Progress stops at the first hop that is not acknowledged, and what the
// coordinator has not accepted is reported again.
func TestProgress(t *testing.T) {
	l := newLevel(0)
	if _, ok := l.progress(); ok {
		t.Error("progress without a hop")
	}
	hops := []*hop{{offset: 3, epoch: 1}, {offset: 7, epoch: 1}, {offset: 9, epoch: 2}}
	l.moving = append(l.moving, hops...)
	hops[0].done, hops[2].done = true, true
	for range 2 {
		if at, ok := l.progress(); !ok || at != (kgo.EpochOffset{Epoch: 1, Offset: 4}) {
			t.Fatalf("progress %+v, %t", at, ok)
		}
	}
	if l.committed = 4; hops[1].done {
		t.Fatal("not reached")
	}
	if _, ok := l.progress(); ok {
		t.Error("progress past a hop that is not acknowledged")
	}
	hops[1].done = true
	if at, ok := l.progress(); !ok || at != (kgo.EpochOffset{Epoch: 2, Offset: 10}) {
		t.Errorf("progress %+v, %t", at, ok)
	}
}

// What a partition holds, and what is on its way, is bounded in bytes, too: of the
// largest records only a few are in memory, and all of them go on in the end.
func TestBytesAreBounded(t *testing.T) {
	const large, n = 1 << 20, 100
	w, err := New(Config{Instance: "w1"}, Deps{Layout: broker.Layout{Deliveries: 8, ScheduleShards: 1, Version: 1}, Logger: slog.New(slog.DiscardHandler), Meter: noop.NewMeterProvider().Meter("")})
	if err != nil {
		t.Fatal(err)
	}
	for _, cl := range []**kgo.Client{&w.consumer, &w.producer} { // neither ever has a broker
		if *cl, err = kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1")); err != nil {
			t.Fatal(err)
		}
		defer (*cl).Close()
	}
	l := newLevel(0)
	w.parts[0] = l
	now := time.Now()
	for i := range n {
		l.hold([]*kgo.Record{{Offset: int64(i), Timestamp: now, Value: make([]byte, large)}})
	}
	w.advance(t.Context(), now)
	if !l.paused || len(l.moving) != 0 {
		t.Errorf("paused %t with %d MiB in memory, %d on their way before they are due", l.paused, l.bytes>>20, len(l.moving))
	}
	moved := 0
	for range n {
		w.advance(t.Context(), now.Add(time.Second))
		if got := len(l.moving); got == 0 || got > movingBytes/large {
			t.Fatalf("%d records of a MiB on their way, %d went before", got, moved)
		}
		if len(l.held) == 0 {
			break
		}
		for _, h := range l.moving { // as an acknowledgement does
			h.done = true
			w.moving -= h.size
		}
		moved += len(l.moving)
	}
	if len(l.held) > 0 || l.bytes != 0 || l.paused {
		t.Errorf("%d records, %d bytes left, paused %t", len(l.held), l.bytes, l.paused)
	}
}
