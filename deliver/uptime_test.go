package deliver

import (
	"context"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric/noop"
)

// setBack returns a moment as a clock shows it whose wall clock was set back since
// the process started: its seconds, above the 30 bits of its nanoseconds, are
// fewer, its monotonic time is the same.
func setBack(t *testing.T, now time.Time, by time.Duration) time.Time {
	t.Helper()
	was := now
	*(*uint64)(unsafe.Pointer(&now)) -= uint64(by/time.Second) << 30
	if now.Sub(was) != 0 || !now.Round(0).Equal(was.Round(0).Add(-by)) {
		t.Fatalf("%s set back by %s is %s, %s later", was, by, now, now.Sub(was))
	}
	return now
}

// Parked offsets are written when they have waited for company for long enough, and
// lanes at rest are forgotten, whatever happens to the wall clock.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	m, err := newMeters(noop.NewMeterProvider().Meter(""), false)
	if err != nil {
		t.Fatal(err)
	}
	w := &Worker{
		cfg: Config{}.withDefaults(), homes: map[int32]*home{}, slots: newSlots(4, 64, 100), alarms: newAlarms(), meters: m,
		pending: map[*lane]struct{}{}, unreported: map[*lane]struct{}{}, out: silent{}, life: t.Context(),
	}
	h := newHome(t.Context(), 0)
	defer h.cancel()
	w.homes[0] = h
	now := time.Now()
	l := w.lane(h, "ep_1", "acme", now)
	w.park(l, &entry{offset: 1, lane: l})
	w.flush(setBack(t, now.Add(flushLatest), time.Hour))
	if len(l.pending) > 0 {
		t.Errorf("after %s parked offsets wait for the wall clock to catch up", flushLatest)
	}
	for i := range keepLanes {
		w.lane(h, strconv.Itoa(i), "acme", now)
	}
	w.retire(setBack(t, now.Add(retireAfter+time.Second), time.Hour))
	if len(h.lanes) != keepLanes {
		t.Errorf("%d lanes, want %d: the others have been at rest for %s", len(h.lanes), keepLanes, retireAfter)
	}
}

// silent acknowledges nothing.
type silent struct{}

func (silent) TryProduce(context.Context, *kgo.Record, func(*kgo.Record, error)) {}

func (silent) ProduceSync(context.Context, ...*kgo.Record) kgo.ProduceResults { return nil }
