package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
)

// lossesNamed is how many partitions a Losses names.
const lossesNamed = 8

// Losses remembers what a stage could not read because Kafka does not have it any
// more. It is never forgotten: somebody has to look at it and restart the process.
// The zero value is ready; it is safe for concurrent use.
type Losses struct {
	mu    sync.Mutex
	first []error // one for each partition, as many as are named
	known map[place]bool
}

// Tell is Note that logs the first loss of each partition.
func (l *Losses) Tell(ctx context.Context, log *slog.Logger, topic string, partition int32, loss error) {
	if l.Note(topic, partition, loss) {
		log.ErrorContext(ctx, "records were lost", "topic", topic, "partition", partition, "error", loss)
	}
}

// Note remembers a loss and reports whether it is the first one of its partition.
func (l *Losses) Note(topic string, partition int32, loss error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := place{topic, partition}
	if l.known[at] {
		return false
	}
	if l.known == nil {
		l.known = map[place]bool{}
	}
	l.known[at] = true
	if len(l.first) < lossesNamed {
		l.first = append(l.first, loss)
	}
	return true
}

// Check is a readiness check: it fails for good from the first loss on, and names
// the first one of up to 8 partitions.
func (l *Losses) Check(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	errs := l.first
	if more := len(l.known) - len(l.first); more > 0 {
		errs = append(slices.Clip(errs), fmt.Errorf("and %d partitions more", more))
	}
	return errors.Join(errs...)
}
