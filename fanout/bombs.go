package fanout

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// bombWatch notices when the client keeps a decompression bomb to itself. It stops
// the partition and tells of it in one poll; but whatever makes it throw away its
// buffers in between, such as going back after an abort, throws that word away as
// well. The only other trace is a line in its log. So bombWatch is the client's
// logger, and hands everything on to slog.
type bombWatch struct {
	log  *slog.Logger
	seen atomic.Int64 // partitions that were stopped
	// told counts those that a poll told of; since is when seen went beyond.
	told  int64
	since time.Time
}

// bombLine begins the line that kgo logs when it stops a partition.
const bombLine = "batch decompresses larger than MaxDecompressBatchBytes"

// tellWait is how long a poll may take to tell of a bomb.
const tellWait = 2 * time.Second

var errUntold = errors.New("a partition was stopped and no poll told of it")

// untold returns an error if a partition stands still without a word: only another
// session gets it going.
func (w *bombWatch) untold() error {
	switch {
	case w.seen.Load() <= w.told:
		w.since = time.Time{}
	case w.since.IsZero():
		w.since = time.Now()
	case time.Since(w.since) > tellWait:
		return errUntold
	}
	return nil
}

// Level implements kgo.Logger. What kgo calls info is debug here.
func (w *bombWatch) Level() kgo.LogLevel {
	if w.log.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelWarn
}

// Log implements kgo.Logger.
func (w *bombWatch) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	to := slog.LevelDebug
	switch level {
	case kgo.LogLevelError:
		to = slog.LevelError
		if strings.HasPrefix(msg, bombLine) {
			w.seen.Add(1)
		}
	case kgo.LogLevelWarn:
		to = slog.LevelWarn
	default:
	}
	w.log.Log(context.Background(), to, "kafka client", append([]any{"detail", msg}, keyvals...)...)
}
