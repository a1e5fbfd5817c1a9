package registry

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/postrider/postrider/internal/backoff"
	"github.com/postrider/postrider/internal/broker"
)

// TailConfig says what a [Tail] reads, and for whom.
type TailConfig struct {
	// Kafka is where the topic is. The tail opens its own client.
	Kafka broker.Config
	// From is the first offset to read; 0 is the log's start.
	From int64
	// Apply gets the records, in order, and the offset below which all have
	// been given to it; also without records when that offset moves. It is
	// called by Run, never twice at once, and must not keep the slice. Required.
	Apply func(records []Record, next int64)
	// Tick, if set, is called in every round, at most about a second apart while
	// all is well: a sign of life for a watchdog.
	Tick func()
	// Logger gets what is skipped and what fails; nil means silence.
	Logger *slog.Logger
}

// Tail follows topic registry from an offset on, without a group.
type Tail struct {
	cfg  TailConfig
	next atomic.Int64
}

// NewTail returns a tail that does nothing until Run.
func NewTail(cfg TailConfig) *Tail {
	setDefaults(&cfg.Tick, &cfg.Logger)
	t := &Tail{cfg: cfg}
	t.next.Store(cfg.From)
	return t
}

// Next returns the offset below which every record has been applied.
func (t *Tail) Next() int64 { return t.next.Load() }

// Run reads until ctx ends and then returns nil. It outlasts every failure of
// Kafka but one: if the log is not the one that it has read so far, it returns
// an error that wraps [ErrLogLost], and what was applied can't be trusted.
func (t *Tail) Run(ctx context.Context) error {
	cl, err := t.cfg.Kafka.NewClient()
	if err != nil {
		return err
	}
	defer cl.Close()
	r := newLogReader(cl, t.cfg.Kafka.Topics().Registry, t.cfg.From)
	pause := newBackoff()
	for ctx.Err() == nil {
		t.cfg.Tick()
		c, err := r.fetch(ctx, fetchWait)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, ErrLogLost):
			return err
		case err != nil:
			t.cfg.Logger.WarnContext(ctx, "registry tail waits for kafka", "error", err)
			pause.Wait(ctx)
		default:
			pause.Reset()
			t.apply(ctx, c)
		}
	}
	return nil
}

func (t *Tail) apply(ctx context.Context, c chunk) {
	if c.next == t.next.Load() {
		return
	}
	t.cfg.Apply(decodeAll(ctx, c, t.cfg.Logger), c.next)
	t.next.Store(c.next)
}

// decodeAll leaves out what can't be read: no one but an operator can have
// written it, and no version of the program knows what it means.
func decodeAll(ctx context.Context, c chunk, log *slog.Logger) []Record {
	records := make([]Record, 0, len(c.records))
	for _, r := range c.records {
		rec, err := DecodeRecord(r)
		if err != nil {
			log.WarnContext(ctx, "registry record skipped", "offset", r.Offset, "error", err)
			continue
		}
		records = append(records, rec)
	}
	return records
}

// setDefaults spares the loops the question whether somebody listens.
func setDefaults(tick *func(), log **slog.Logger) {
	if *tick == nil {
		*tick = func() {}
	}
	if *log == nil {
		*log = slog.New(slog.DiscardHandler)
	}
}

// newBackoff is the pause between tries.
func newBackoff() *backoff.Backoff {
	return &backoff.Backoff{First: 20 * time.Millisecond, Limit: time.Second}
}
