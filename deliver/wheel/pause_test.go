package wheel

import (
	"maps"
	"testing"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/schemas"
)

// A partition that waits for its head is not fetched. That ends with the assignment:
// one that is given away and comes back is fetched again.
func TestPausedLevelMovesOn(t *testing.T) {
	t.Parallel()
	_, cfg := embedded(t, broker.EmbeddedConfig{})
	topics := cfg.Topics()
	cl, report := prepared(t, cfg)
	all := broker.WheelLevels * int(report.Layout.ScheduleShards)
	first, stopFirst := startAs(t, "w1", cfg, report.Layout)
	defer stopFirst()
	await(t, "the first has all", func() bool { return len(first.levels()) == all })
	const soonest = 6 // 64 s
	waiting := map[int32]bool{}
	for level := soonest; level < broker.WheelLevels; level++ {
		d := schemas.Delivery{
			ID: "dlv_1", EventID: "evt_1", Endpoint: "ep_1", Attempt: 2, Levels: 1 << level,
			Event: schemas.Event{Tenant: "acme", Data: []byte("x")},
		}
		r := Record(&d, topics, report.Layout)
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		waiting[r.Partition] = true
	}
	await(t, "all that wait are paused", func() bool { return maps.Equal(paused(first.levels()), waiting) })

	second, stopSecond := startAs(t, "w2", cfg, report.Layout)
	await(t, "the second has some of them", func() bool { return len(paused(second.levels())) > 0 })
	stopSecond()
	await(t, "the first has read again what it has back", func() bool {
		levels := first.levels()
		held := map[int32]bool{}
		for p, l := range levels {
			if len(l.held) > 0 {
				held[p] = true
			}
		}
		return len(levels) == all && maps.Equal(held, waiting) && maps.Equal(paused(levels), waiting)
	})
}

// levels returns copies of the wheel's levels.
func (w *Wheel) levels() map[int32]level {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[int32]level{}
	for p, l := range w.parts {
		out[p] = *l
	}
	return out
}

func paused(levels map[int32]level) map[int32]bool {
	out := map[int32]bool{}
	for p, l := range levels {
		if l.paused {
			out[p] = true
		}
	}
	return out
}
