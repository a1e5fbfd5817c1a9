package telemetry

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"os"
	"sync"
	"time"
)

const (
	// stdlogEvery is how often a line of the package log is written at most.
	stdlogEvery = time.Second
	// stdlogMax bounds such a line, in bytes.
	stdlogMax = 500
)

// stdlog takes what libraries write with the package log, and hands on one line a
// second: net/http writes one for each HTTP/2 frame of a kind that it does not know,
// so that an endpoint could fill a disk.
type stdlog struct {
	logger *slog.Logger

	mu      sync.Mutex
	next    time.Time
	dropped int // lines since the last one that was handed on
}

// setupStdlog has the lines of the package log go to a logger until Shutdown.
func (t *Telemetry) setupStdlog(logger *slog.Logger) {
	log.SetFlags(0)
	log.SetOutput(&stdlog{logger: logger})
	t.stop = append(t.stop, func(context.Context) error {
		log.SetFlags(log.LstdFlags)
		log.SetOutput(os.Stderr)
		return nil
	})
}

// Write takes one line.
func (l *stdlog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Before(l.next) {
		l.dropped++
		return len(line), nil
	}
	text := bytes.TrimSpace(line)
	l.logger.Warn("library", "message", string(text[:min(len(text), stdlogMax)]), "dropped", l.dropped)
	l.next, l.dropped = now.Add(stdlogEvery), 0
	return len(line), nil
}
