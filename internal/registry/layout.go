package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/schemas"
)

// ErrLayoutMismatch says that topics were laid out in another way than this
// process is configured for.
var ErrLayoutMismatch = errors.New("topic layout mismatch")

// layoutWait bounds one fetch of EnsureLayout: at the end of the log there is
// nothing to wait for.
const layoutWait = 10 * time.Millisecond

// EnsureLayout makes sure that want is the layout that topic registry records,
// and records it if it is the first. Another one is an error that wraps
// [ErrLayoutMismatch] and names both. It is called at start, before anything
// else uses the topics; it reads the log as far as the layout's record, which
// is the first one written.
func EnsureLayout(ctx context.Context, cfg broker.Config, want broker.Layout) error {
	if err := want.Valid(); err != nil {
		return err
	}
	cl, err := cfg.NewClient()
	if err != nil {
		return err
	}
	defer cl.Close()
	topic := cfg.Topics().Registry
	find := func() (*LayoutRecord, error) { return findLayout(ctx, newLogReader(cl, topic, 0)) }
	write := func(l *LayoutRecord) error {
		value, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("encode layout: %w", err)
		}
		// Not judged: processes that start together all write it, and lose nothing.
		r := newRecord(topic, Record{Tenant: Platform, Entity: LayoutEntity, Value: value, Prev: PrevUnknown})
		if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
			return fmt.Errorf("write layout: %w", err)
		}
		return nil
	}

	have, err := find()
	if err != nil || have != nil {
		return errors.Join(err, compareLayout(have, want))
	}
	now := time.Now().UTC()
	if err := write(&LayoutRecord{
		Meta:       Meta{Version: schemas.Version, CreatedAt: now, UpdatedAt: now},
		Deliveries: want.Deliveries, ScheduleShards: want.ScheduleShards, Partitioner: want.Version,
	}); err != nil {
		return err
	}
	// Somebody else may have been first. Theirs stays, also after compaction.
	if have, err = find(); err != nil {
		return err
	}
	mismatch := compareLayout(have, want)
	if mismatch != nil && have != nil {
		return errors.Join(mismatch, write(have))
	}
	return mismatch
}

func compareLayout(have *LayoutRecord, want broker.Layout) error {
	if have == nil {
		return nil
	}
	l := broker.Layout{Deliveries: have.Deliveries, ScheduleShards: have.ScheduleShards, Version: max(have.Partitioner, 1)}
	if l != want {
		return fmt.Errorf("%w: recorded are %s, configured are %s", ErrLayoutMismatch, describe(l), describe(want))
	}
	return nil
}

func describe(l broker.Layout) string {
	return fmt.Sprintf("%d partitions and %d schedule shards (version %d)", l.Deliveries, l.ScheduleShards, l.Version)
}

// findLayout returns the first layout in the log, or nil.
func findLayout(ctx context.Context, r *logReader) (*LayoutRecord, error) {
	want := string(EncodeKey(Platform, LayoutEntity))
	pause := newBackoff()
	for {
		c, err := r.fetch(ctx, layoutWait)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, ErrLogLost) || pause.Full() {
				return nil, fmt.Errorf("look for the layout: %w", err)
			}
			pause.Wait(ctx) // a new topic's leader may still be on its way
			continue
		}
		for _, rec := range c.records {
			if string(rec.Key) == want && rec.Value != nil {
				return Decode[LayoutRecord](rec.Value)
			}
		}
		if c.next >= c.end {
			return nil, nil //nolint:nilnil // none is not an error
		}
	}
}
