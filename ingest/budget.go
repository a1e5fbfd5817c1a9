package ingest

import "sync"

// budget bounds what waits for Kafka. It refuses instead of blocking, so that
// producers learn at once that they are too fast.
type budget struct {
	maxEvents, maxBytes int64

	mu            sync.Mutex
	events, bytes int64
}

// take reports whether there was room, and if so takes it.
func (b *budget) take(events, bytes int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.events+int64(events) > b.maxEvents || b.bytes+int64(bytes) > b.maxBytes {
		return false
	}
	b.events += int64(events)
	b.bytes += int64(bytes)
	return true
}

func (b *budget) give(events, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events -= int64(events)
	b.bytes -= int64(bytes)
}

// used returns what is taken.
func (b *budget) used() (events, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.events, b.bytes
}
