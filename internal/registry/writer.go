package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/backoff"
	"github.com/postrider/postrider/internal/broker"
)

// Errors of [Writer.Update] that a caller answers in different ways.
var (
	// ErrBusy says that another update of the tenant took too long. Nothing was
	// written.
	ErrBusy = errors.New("tenant is busy")
	// ErrUnavailable says that Redis or Kafka is away or the view is not complete.
	// Nothing was written.
	ErrUnavailable = errors.New("registry is unavailable")
	// ErrOutcomeUnknown says that the changes may be written, in part or as a
	// whole, now or a little later.
	ErrOutcomeUnknown = errors.New("outcome of the write is unknown")
)

// Timings of an update.
const (
	lockTTL = 10 * time.Second
	// lockReserve must remain of the lock when the records are produced: the
	// produce has that long.
	lockReserve = 5 * time.Second
	// lockWait is how long an update waits for the one before it, viewWait how
	// long for the view, before and after the write.
	lockWait = 5 * time.Second
	viewWait = 5 * time.Second
)

// WriterConfig says what a [Writer] works with. All but Logger is required.
type WriterConfig struct {
	// Client produces to topic registry and asks for its end. It must use
	// acks=all (broker.Config.Options do).
	Client *kgo.Client
	// Topic is the full name of topic registry.
	Topic string
	Redis redis.UniversalClient
	View  *View
	// Logger gets entities of a tenant that can't be decoded; nil means silence.
	Logger *slog.Logger
}

// Writer changes the registry: the only way for all records but endpoints'
// health and the layout. It is safe for concurrent use.
type Writer struct{ cfg WriterConfig }

// NewWriter returns a writer.
func NewWriter(cfg WriterConfig) *Writer {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Writer{cfg: cfg}
}

// Change is the new state of one entity.
type Change struct {
	// Tenant is the tenant of the update; "" means the same.
	Tenant, Entity string
	// Value is encoded as JSON; nil removes the entity.
	Value any
}

// encode returns the entity's JSON, nil for its removal.
func (c Change) encode() ([]byte, error) {
	if c.Value == nil {
		return nil, nil
	}
	value, err := json.Marshal(c.Value)
	if err == nil && bytes.Equal(value, []byte("null")) {
		err = errors.New("a typed nil is no entity")
	}
	return value, err
}

// Written is what an update has written.
type Written struct {
	// Offset is the version of the last change: the entity that is answered. It
	// is -1 if there was no change.
	Offset int64
	// Offsets are the versions of all changes, in order.
	Offsets []int64
}

// Update changes a tenant, alone: fn gets the newest state, and the changes it
// returns are written in their order (parts first, the answered entity last),
// each built on what fn saw. When Update returns without error the view has
// them. An error of fn is returned as it is, and nothing is written. Other
// errors wrap [ErrBusy], [ErrUnavailable] or [ErrOutcomeUnknown], or tell that
// fn's changes can't be written. It takes some milliseconds, at worst 15 s.
//
// fn may be called once only, and must not wait for other updates.
func (w *Writer) Update(ctx context.Context, tenant string, fn func(*TenantState) ([]Change, error)) (Written, error) {
	none := Written{Offset: -1}
	if err := checkName(tenant, TenantEntity); err != nil {
		return none, fmt.Errorf("update registry: %w: %w", ErrMalformed, err)
	}
	l := newLease(w.cfg.Redis, "lock:{"+tenant+"}", lockTTL)
	until, err := w.lock(ctx, l)
	if err != nil {
		l.release(ctx) // an answer may have been lost on the way
		return none, fmt.Errorf("update tenant %s: %w", tenant, err)
	}
	written, err := w.updateLocked(ctx, tenant, until, fn)
	// A record that may still arrive must not meet the next update: then the
	// lock stays until it ends by itself.
	if !errors.Is(err, errUnacknowledged) {
		l.release(ctx)
	}
	return written, err
}

// lock takes the tenant's lock, and returns until when it is ours for sure.
func (w *Writer) lock(ctx context.Context, l *lease) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	p := newPoll()
	for {
		until := time.Now().Add(lockTTL)
		got, err := l.acquire(ctx)
		switch {
		case got:
			return until, nil
		case ctx.Err() != nil:
			return time.Time{}, fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
		case err != nil:
			return time.Time{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		p.Wait(ctx)
	}
}

func (w *Writer) updateLocked(ctx context.Context, tenant string, until time.Time, fn func(*TenantState) ([]Change, error)) (Written, error) {
	none := Written{Offset: -1}
	state, err := w.newest(ctx, tenant)
	if err != nil {
		return none, fmt.Errorf("update tenant %s: %w", tenant, err)
	}
	changes, err := fn(state)
	if err != nil {
		return none, err
	}
	records, err := w.encode(tenant, state, changes)
	if err != nil || len(records) == 0 {
		return none, err
	}
	if time.Until(until) < lockReserve {
		return none, fmt.Errorf("update tenant %s: %w", tenant, ErrBusy)
	}
	written, err := w.produce(ctx, records)
	if err != nil {
		return none, fmt.Errorf("update tenant %s: %w", tenant, err)
	}
	if err := w.awaitView(ctx, tenant, changes, written.Offset+1); err != nil {
		return written, fmt.Errorf("update tenant %s: %w", tenant, err)
	}
	return written, nil
}

// newest returns the tenant's state with all that was in the log when it was
// asked: with the lock held, all that any update has written.
func (w *Writer) newest(ctx context.Context, tenant string) (*TenantState, error) {
	end, err := broker.LastStableOffset(ctx, w.cfg.Client, w.cfg.Topic, 0)
	if err != nil {
		return nil, unavailable(err)
	}
	ctx, cancel := context.WithTimeout(ctx, viewWait)
	defer cancel()
	p := newPoll()
	for {
		snapshots, err := w.cfg.View.Load(ctx, []string{tenant})
		if err != nil {
			return nil, unavailable(err)
		}
		if snapshots[0].Reached(end) {
			state, err := snapshots[0].Decode()
			if err != nil {
				w.cfg.Logger.WarnContext(ctx, "registry entities not understood", "tenant", tenant, "error", err)
			}
			return state, nil
		}
		// The tenant may be large: it is read again when that is of use.
		p.Wait(ctx)
		if err := w.reach(ctx, []int{bucketOf(tenant)}, end); err != nil {
			return nil, fmt.Errorf("%w: the view has not reached offset %d: %w", ErrUnavailable, end, err)
		}
	}
}

func unavailable(err error) error {
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// encode returns the records of the changes. An entity may change only once:
// the second version's prev can't be known.
func (w *Writer) encode(tenant string, state *TenantState, changes []Change) ([]*kgo.Record, error) {
	records := make([]*kgo.Record, 0, len(changes))
	seen := make(map[string]bool, len(changes))
	for _, c := range changes {
		if c.Tenant != "" && c.Tenant != tenant {
			return nil, fmt.Errorf("change %s/%s: the update is of tenant %s", c.Tenant, c.Entity, tenant)
		}
		if err := checkName(tenant, c.Entity); err != nil {
			return nil, fmt.Errorf("change %s/%s: %w: %w", tenant, c.Entity, ErrMalformed, err)
		}
		if seen[c.Entity] {
			return nil, fmt.Errorf("change %s/%s: twice in one update", tenant, c.Entity)
		}
		seen[c.Entity] = true
		r := Record{Tenant: tenant, Entity: c.Entity, Prev: PrevAbsent}
		if at, ok := state.Offsets[c.Entity]; ok {
			r.Prev = at
		}
		var err error
		if r.Value, err = c.encode(); err != nil {
			return nil, fmt.Errorf("encode %s/%s: %w", tenant, c.Entity, err)
		}
		records = append(records, newRecord(w.cfg.Topic, r))
	}
	return records, nil
}

// errUnacknowledged is the part of ErrOutcomeUnknown in which a record may
// still arrive in the log.
var errUnacknowledged = errors.New("kafka has not acknowledged")

// produce writes the records while the lock surely is ours. A caller that goes
// away does not stop it halfway.
func (w *Writer) produce(ctx context.Context, records []*kgo.Record) (Written, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lockReserve)
	defer cancel()
	results := w.cfg.Client.ProduceSync(ctx, records...)
	written := Written{Offsets: make([]int64, len(records))}
	refused := 0
	for i, r := range records { // results come in the order of acknowledgement
		written.Offsets[i], written.Offset = r.Offset, r.Offset
	}
	for _, r := range results {
		if isRefusal(r.Err) {
			refused++
		}
	}
	err := results.FirstErr()
	switch {
	case err == nil:
		return written, nil
	case refused == len(results) && errors.Is(err, kerr.MessageTooLarge):
		return written, fmt.Errorf("write to registry: %w", err)
	case refused == len(results):
		return written, fmt.Errorf("%w: write to registry: %w", ErrUnavailable, err)
	}
	return written, fmt.Errorf("%w: %w: %w", ErrOutcomeUnknown, errUnacknowledged, err)
}

// isRefusal reports whether the record surely is not in the log.
func isRefusal(err error) bool {
	return slices.ContainsFunc([]error{
		kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.PolicyViolation,
		kerr.TopicAuthorizationFailed, kerr.UnknownTopicOrPartition, kgo.ErrMaxBuffered, kgo.ErrClientClosed,
	}, func(refusal error) bool { return errors.Is(err, refusal) })
}

// awaitView waits until the buckets of the changes have reached offset end.
func (w *Writer) awaitView(ctx context.Context, tenant string, changes []Change, end int64) error {
	var buckets []int
	for _, c := range changes {
		for _, name := range hashesOf(tenant, c.Entity) {
			buckets = append(buckets, bucketOf(name))
		}
	}
	slices.Sort(buckets)
	ctx, cancel := context.WithTimeout(ctx, viewWait)
	defer cancel()
	if err := w.reach(ctx, slices.Compact(buckets), end); err != nil {
		return fmt.Errorf("%w: written, but the view has not reached offset %d: %w", ErrOutcomeUnknown, end, err)
	}
	return nil
}

// reach waits until the buckets have reached offset end. It returns an error only
// when ctx ends.
func (w *Writer) reach(ctx context.Context, buckets []int, end int64) error {
	p := newPoll()
	for {
		markers, err := w.cfg.View.markersOf(ctx, buckets)
		if err == nil && !slices.ContainsFunc(markers, func(m Marker) bool { return !m.Reached(end) }) {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		p.Wait(ctx)
	}
}

// newPoll is the pause between questions whose answer is milliseconds away.
func newPoll() *backoff.Backoff {
	return &backoff.Backoff{First: 500 * time.Microsecond, Limit: 20 * time.Millisecond}
}
