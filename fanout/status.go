package fanout

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/postrider/postrider/internal/broker"
)

// Bounds of what Ready reports.
const (
	waitGrace  = 2 * time.Second  // a shorter wait is normal
	noteMemory = 10 * time.Second // how long an error stays visible
)

// status is what the loop tells the readiness check.
type status struct {
	mu      sync.Mutex
	waitFor error // what the loop waits for
	since   time.Time
	last    error // the newest trouble with Kafka
	lastAt  time.Time
	losses  broker.Losses
	oldest  time.Time
}

// waiting says that the loop waits, because of err.
func (s *status) waiting(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waitFor == nil {
		s.since = time.Now()
	}
	s.waitFor = err
}

// going says that the loop no longer waits.
func (s *status) going() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waitFor = nil
}

// note remembers trouble with Kafka for a while.
func (s *status) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.lastAt = err, time.Now()
}

func (s *status) clearAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waitFor, s.last, s.oldest = nil, nil, time.Time{}
}

// unread says since when the oldest record that is polled and not committed has
// been in Kafka; zero if there is none.
func (s *status) unread(oldest time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oldest = oldest
}

// unreadAge returns the age of the oldest record not yet committed, 0 without one.
func (s *status) unreadAge() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.oldest.IsZero() {
		return 0
	}
	return max(0, time.Since(s.oldest))
}

func (s *status) ready(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if err := s.losses.Check(ctx); err != nil {
		errs = append(errs, err)
	}
	if s.waitFor != nil && time.Since(s.since) >= waitGrace {
		errs = append(errs, fmt.Errorf("waiting since %s: %w", s.since.UTC().Format(time.RFC3339), s.waitFor))
	}
	if s.last != nil && time.Since(s.lastAt) < noteMemory {
		errs = append(errs, s.last)
	}
	return errors.Join(errs...)
}
