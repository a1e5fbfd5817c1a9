package broker

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// clientLogger shows the client's messages through slog. What kgo calls info
// (every rebalance step, every new connection) is debug here.
type clientLogger struct{ log *slog.Logger }

// Level follows the slog level, so that kgo doesn't format what nobody reads.
func (l clientLogger) Level() kgo.LogLevel {
	ctx := context.Background()
	switch {
	case l.log.Enabled(ctx, slog.LevelDebug):
		return kgo.LogLevelInfo
	case l.log.Enabled(ctx, slog.LevelWarn):
		return kgo.LogLevelWarn
	case l.log.Enabled(ctx, slog.LevelError):
		return kgo.LogLevelError
	}
	return kgo.LogLevelNone
}

// Log keeps the message static and puts kgo's own text into an attribute.
func (l clientLogger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	to := slog.LevelDebug
	switch level {
	case kgo.LogLevelError:
		to = slog.LevelError
	case kgo.LogLevelWarn:
		to = slog.LevelWarn
	default:
	}
	args := make([]any, 0, len(keyvals)+2)
	args = append(args, "detail", msg)
	args = append(args, keyvals...)
	l.log.Log(context.Background(), to, "kafka client", args...)
}

// embeddedLogger shows the embedded broker's messages through slog.
type embeddedLogger struct{ log *slog.Logger }

// Logf implements kfake.Logger.
func (l embeddedLogger) Logf(level kfake.LogLevel, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case kfake.LogLevelError:
		to = slog.LevelError
	case kfake.LogLevelWarn:
		to = slog.LevelWarn
	default:
	}
	ctx := context.Background()
	if l.log.Enabled(ctx, to) {
		l.log.Log(ctx, to, "embedded broker", "detail", fmt.Sprintf(msg, args...))
	}
}
