package deliver

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// lossEnds is how a loss stops failing readiness.
const lossEnds = "look at what is gone (docs/operations.md), then restart this process"

// losses are parked records that Kafka deleted before they were delivered, as far as
// this process met it. They fail readiness for as long as it lives: it goes on working.
type losses struct {
	mu    sync.Mutex
	texts map[string]string // by partition
}

// note takes the place of what was noted under the key before.
func (l *losses) note(key, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.texts == nil {
		l.texts = map[string]string{}
	}
	l.texts[key] = text
}

// err names the losses, a few of many.
func (l *losses) err() error {
	const shown = 5
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.texts) == 0 {
		return nil
	}
	keys := slices.Sorted(maps.Keys(l.texts))
	var out []string
	for _, key := range keys[:min(len(keys), shown)] {
		out = append(out, l.texts[key])
	}
	if more := len(keys) - len(out); more > 0 {
		out = append(out, fmt.Sprintf("and %d more", more))
	}
	return errors.New(strings.Join(append(out, lossEnds), "; "))
}

// loseParked notes a parked record whose payload is gone. The caller holds the lock.
func (w *Worker) loseParked(h *home, offset int64) {
	if h.lostParked == 0 {
		h.firstLost = offset
	}
	h.lostParked++
	h.firstLost, h.lastLost = min(h.firstLost, offset), max(h.lastLost, offset)
	w.meters.lose(h.ctx, 1)
	at := fmt.Sprintf("%s/%d", w.topics.Deliveries, h.partition)
	w.parkedLost.note(at, fmt.Sprintf("%s: %d parked records between offsets %d and %d were deleted before they were delivered (lost_by_retention); attempts has one record for each",
		at, h.lostParked, h.firstLost, h.lastLost))
}
