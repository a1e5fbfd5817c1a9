package control

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/schemas"
)

// subscriber is one reader of the live stream.
type subscriber struct {
	streamOf
	// attempts holds what is to be sent, as whole events of the stream.
	attempts chan []byte
	// dropped counts what did not fit since the last event was sent.
	dropped atomic.Int64
	// ready is closed when every later attempt will be seen.
	ready chan struct{}
}

// streamOf is what a stream shows, and for whom.
type streamOf struct {
	tenant, endpoint string
	outcome          schemas.Outcome
	// platform says that the reader has a key of the platform, not the tenant's.
	platform bool
}

func (u *subscriber) wants(a *schemas.Attempt) bool {
	return a.Tenant == u.tenant && (u.endpoint == "" || a.Endpoint == u.endpoint) && (u.outcome == "" || a.Outcome == u.outcome)
}

// hub feeds all open streams from one reader of the topic attempts, which runs
// while there are any and starts at the end of the log.
type hub struct {
	kafka   broker.Config
	admin   *kgo.Client
	topic   string
	buffer  int
	limits  streamLimits
	metrics instruments
	log     *slog.Logger

	mu   sync.Mutex
	subs map[*subscriber]struct{}
	// reading says that the reader runs and will go on; stop ends it.
	reading bool
	stop    context.CancelFunc
	// over is closed when run ends, and with it every stream.
	over   chan struct{}
	closed bool
	// wake tells run that there is a subscriber and no reader.
	wake chan struct{}
}

func newHub(cfg Config, admin *kgo.Client, metrics instruments, log *slog.Logger) *hub {
	return &hub{
		kafka: cfg.Kafka, admin: admin, topic: cfg.Kafka.Topics().Attempts, buffer: cfg.StreamBuffer, limits: streamLimits{tenant: cfg.MaxTenantStreams, tenants: cfg.MaxStreams, platform: cfg.MaxStreams},
		metrics: metrics, log: log, subs: map[*subscriber]struct{}{}, over: make(chan struct{}), wake: make(chan struct{}, 1),
	}
}

// add opens a stream. Its error is a failure that says why there can't be one more.
func (h *hub) add(of streamOf) (*subscriber, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, noStream(http.StatusServiceUnavailable, "no more streams can be opened here now")
	}
	if err := h.limits.check(h.subs, of); err != nil {
		return nil, err
	}
	u := &subscriber{streamOf: of, attempts: make(chan []byte, h.buffer), ready: make(chan struct{})}
	h.subs[u] = struct{}{}
	if h.reading {
		close(u.ready)
	} else {
		h.wakeLocked()
	}
	return u, nil
}

// remove ends a stream, and the reader with the last one.
func (h *hub) remove(u *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs, u)
	if len(h.subs) == 0 && h.reading {
		h.reading = false
		h.stop()
	}
}

func (h *hub) wakeLocked() {
	select {
	case h.wake <- struct{}{}:
	default: // run has not yet seen the last one
	}
}

// run reads while there are streams, until ctx ends; then it ends the streams.
func (h *hub) run(ctx context.Context) error {
	defer h.close()
	pause := newBackoff()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.wake:
		}
		err := h.read(ctx)
		if err == nil {
			pause.Reset()
			continue
		}
		h.log.ErrorContext(ctx, "the stream of attempts was interrupted", slog.Any("error", err))
		if !pause.Wait(ctx) {
			return nil
		}
		h.mu.Lock()
		h.wakeLocked()
		h.mu.Unlock()
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	close(h.over)
}

// read follows the topic from its end until no stream is left.
func (h *hub) read(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ends, err := kadm.NewClient(h.admin).ListCommittedOffsets(ctx, h.topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("look up the end of %s: %w", h.topic, err)
	}
	from := map[string]map[int32]int64{h.topic: {}}
	ends.Each(func(o kadm.ListedOffset) { from[h.topic][o.Partition] = o.Offset })
	reader, err := h.kafka.NewReader(from)
	if err != nil {
		return err
	}
	defer reader.Close()
	if !h.begin(cancel) {
		return nil
	}
	for {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		fetches.EachRecord(h.dispatch)
		if errs := fetches.Errors(); len(errs) > 0 {
			h.mu.Lock()
			h.reading = false
			h.mu.Unlock()
			return fmt.Errorf("read %s/%d: %w", errs[0].Topic, errs[0].Partition, errs[0].Err)
		}
	}
}

// begin tells the streams that the reader's place is fixed; false if none is left.
func (h *hub) begin(cancel context.CancelFunc) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.subs) == 0 {
		return false
	}
	h.reading, h.stop = true, cancel
	for u := range h.subs {
		select {
		case <-u.ready: // of a reader before
		default:
			close(u.ready)
		}
	}
	return true
}

// dispatch hands a record to the streams that want it. It never waits for one.
func (h *hub) dispatch(r *kgo.Record) {
	a, err := schemas.DecodeAttempt(r.Value)
	if err != nil {
		return // another version's kind of record
	}
	h.mu.Lock()
	subs := slices.Collect(maps.Keys(h.subs))
	h.mu.Unlock()
	var event []byte
	for _, u := range subs {
		if !u.wants(&a) {
			continue
		}
		if event == nil {
			event = attemptEvent(r)
		}
		select {
		case u.attempts <- event:
		default:
			u.dropped.Add(1)
			h.metrics.dropped.Add(context.Background(), 1)
		}
	}
}

// attemptEvent is the record as an event of the stream: its id is the record's
// place, its data the record itself.
func attemptEvent(r *kgo.Record) []byte {
	event := []byte("event: attempt\nid: ")
	event = strconv.AppendInt(event, int64(r.Partition), 10)
	event = append(event, '.')
	event = strconv.AppendInt(event, r.Offset, 10)
	event = append(event, "\ndata: "...)
	// A line end would end the data; JSON knows it only between tokens.
	event = append(event, bytes.Map(oneLine, r.Value)...)
	return append(event, "\n\n"...)
}

func oneLine(c rune) rune {
	if c == '\n' || c == '\r' {
		return ' '
	}
	return c
}
