package e2e

import (
	"context"
	varint "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/schemas"
)

// place is where a record stands.
type place struct {
	partition int32
	offset    int64
}

// made is a record of deliveries.
type made struct {
	delivery, event, endpoint string
	attempt                   int
	position                  schemas.Position
}

// ended is a record of attempts.
type ended struct {
	schemas.Attempt
	at time.Time // when Kafka got it
}

// owning is an owner record of lanes.
type owning struct {
	instance string
	at       time.Time
}

// topicLog is what the gateway's topics say. It is read on as they grow, so that
// nothing is missed that compaction takes away.
type topicLog struct {
	g      *gateway
	adm    *kadm.Client
	cl     *kgo.Client
	reader *broker.PointReader
	next   map[string]map[int32]int64 // topic → partition → offset to read on from

	mu         sync.Mutex
	events     map[string]string // position → event id
	deliveries map[place]made
	homes      map[string]int32   // delivery → partition
	attempts   map[string][]ended // delivery → outcomes
	finished   map[place]ended    // record of deliveries → its outcome
	ranges     map[int32][]schemas.Attempt
	scheduled  map[place]made
	chunks     map[int32]map[string][]byte
	ready      map[int32]int64
	owners     map[int32][]owning
	decisions  map[string][]schemas.Decision // position → decisions
	rejected   map[string]string             // "topic position" → reason
	faults     []string                      // what could not be read
}

func newTopicLog(g *gateway) (*topicLog, error) {
	cl, err := g.broker().NewClient()
	if err != nil {
		return nil, err
	}
	reader, err := broker.NewPointReader(g.broker())
	if err != nil {
		cl.Close()
		return nil, err
	}
	g.t.Cleanup(func() { reader.Close(); cl.Close() })
	return &topicLog{
		g: g, cl: cl, adm: kadm.NewClient(cl), reader: reader, next: map[string]map[int32]int64{},
		events: map[string]string{}, deliveries: map[place]made{}, homes: map[string]int32{}, attempts: map[string][]ended{}, finished: map[place]ended{},
		ranges: map[int32][]schemas.Attempt{}, scheduled: map[place]made{}, chunks: map[int32]map[string][]byte{},
		ready: map[int32]int64{}, owners: map[int32][]owning{}, decisions: map[string][]schemas.Decision{}, rejected: map[string]string{},
	}, nil
}

// follow reads on until ctx ends; what can't be read now is read later.
func (l *topicLog) follow(ctx context.Context) {
	tick := time.NewTicker(3 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			short, cancel := context.WithTimeout(ctx, 5*time.Second)
			_ = l.advance(short) // a broker may be away
			cancel()
		}
	}
}

// advance reads every topic to its end. The order matters: what a record leads
// to is read after it.
func (l *topicLog) advance(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	topics := l.g.broker().Topics()
	for _, one := range []struct {
		topic string
		fn    func(*kgo.Record)
	}{
		{topics.Events, l.event},
		{topics.Deliveries, l.delivery},
		{topics.Decisions, l.decision},
		{topics.Rejected, l.rejection},
		{topics.Schedule, l.schedule},
		{topics.Lanes, l.lane},
		{topics.Attempts, l.attempt},
	} {
		if err := l.readOn(ctx, one.topic, one.fn); err != nil {
			return fmt.Errorf("read %s: %w", one.topic, err)
		}
	}
	return nil
}

func (l *topicLog) readOn(ctx context.Context, topic string, fn func(*kgo.Record)) error {
	next := l.next[topic]
	if next == nil {
		next = map[int32]int64{}
		details, err := l.adm.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		for p := range details[topic].Partitions {
			next[p] = 0
		}
		if len(next) == 0 {
			return errors.New("no partitions")
		}
		l.next[topic] = next
	}
	ends, err := l.adm.ListCommittedOffsets(ctx, topic)
	if err = errors.Join(err, ends.Error()); err != nil {
		return err
	}
	for p := range next {
		end, _ := ends.Lookup(topic, p)
		for next[p] < end.Offset {
			s, err := l.reader.Read(ctx, topic, p, next[p], 8<<20)
			if err != nil {
				return err
			}
			for _, r := range s.Records {
				fn(r)
			}
			if s.Next <= next[p] {
				break
			}
			next[p] = s.Next
		}
	}
	return nil
}

func (l *topicLog) unreadable(r *kgo.Record, err error) {
	l.faults = append(l.faults, fmt.Sprintf("%s/%d/%d: %v", r.Topic, r.Partition, r.Offset, err))
}

func (l *topicLog) event(r *kgo.Record) {
	e, err := schemas.DecodeEvent(r.Value, r.Headers)
	at := schemas.Position{Partition: r.Partition, Offset: r.Offset}.String()
	if err != nil { // meant to be: it must be in rejected
		l.events[at] = ""
		return
	}
	l.events[at] = e.EventID()
}

func (l *topicLog) delivery(r *kgo.Record) {
	d, err := schemas.DecodeDelivery(r.Key, r.Value, r.Headers)
	if err != nil {
		l.unreadable(r, err)
		return
	}
	l.deliveries[place{r.Partition, r.Offset}] = madeOf(r, &d)
	l.homes[d.ID] = r.Partition
}

// madeOf takes the endpoint from the record's key, behind which the number of a
// shard may stand.
func madeOf(r *kgo.Record, d *schemas.Delivery) made {
	endpoint, _, _ := strings.Cut(string(r.Key), "-")
	return made{d.ID, d.EventID, endpoint, d.Attempt, d.Position}
}

func (l *topicLog) schedule(r *kgo.Record) {
	d, err := schemas.DecodeDelivery(r.Key, r.Value, r.Headers)
	if err != nil {
		l.unreadable(r, err)
		return
	}
	l.scheduled[place{r.Partition, r.Offset}] = madeOf(r, &d)
}

func (l *topicLog) decision(r *kgo.Record) {
	d, err := schemas.DecodeDecision(r.Value)
	if err != nil {
		l.unreadable(r, err)
		return
	}
	at := d.Position.String()
	l.decisions[at] = append(l.decisions[at], d)
}

func (l *topicLog) rejection(r *kgo.Record) {
	header := map[string]string{}
	for _, h := range r.Headers {
		header[h.Key] = string(h.Value)
	}
	at := header["pr_origin_topic"] + " " + header["pr_origin_partition"] + "." + header["pr_origin_offset"]
	l.rejected[at] = header["pr_reason"]
}

func (l *topicLog) attempt(r *kgo.Record) {
	a, err := schemas.DecodeAttempt(r.Value)
	if err != nil {
		l.unreadable(r, err)
		return
	}
	if a.Count > 0 {
		l.ranges[r.Partition] = append(l.ranges[r.Partition], a)
		return
	}
	one := ended{a, r.Timestamp}
	l.attempts[a.Delivery] = append(l.attempts[a.Delivery], one)
	var v struct {
		InPlace bool `json:"in_place"` // its record is not done: it waits where it stands
	}
	if err := json.Unmarshal(r.Value, &v); err != nil || v.InPlace {
		return
	}
	at := place{r.Partition, a.Offset}
	if old, ok := l.finished[at]; !ok || old.Outcome == schemas.OutcomeRepeat {
		l.finished[at] = one
	}
}

func (l *topicLog) lane(r *kgo.Record) {
	key := string(r.Key)
	parts := strings.Split(key, "/")
	switch {
	case key == "owner":
		var v struct {
			Instance string `json:"instance"`
		}
		if err := json.Unmarshal(r.Value, &v); err != nil {
			l.unreadable(r, err)
		}
		l.owners[r.Partition] = append(l.owners[r.Partition], owning{v.Instance, r.Timestamp})
	case len(parts) == 2 && parts[0] == "ready":
		if epoch, err := strconv.ParseInt(parts[1], 10, 64); err == nil && r.Value != nil {
			l.ready[r.Partition] = max(l.ready[r.Partition], epoch)
		}
	case len(parts) == 3 && parts[1] != "cancel":
		if l.chunks[r.Partition] == nil {
			l.chunks[r.Partition] = map[string][]byte{}
		}
		if r.Value == nil {
			delete(l.chunks[r.Partition], key)
			return
		}
		l.chunks[r.Partition][key] = r.Value
	}
}

// parked returns the offsets in the chunks that count: those of the highest
// epoch that is ready.
func (l *topicLog) parked() map[place]bool {
	out := map[place]bool{}
	for partition, chunks := range l.chunks {
		for key, value := range chunks {
			epoch := strings.Split(key, "/")[1]
			if epoch != strconv.FormatInt(l.ready[partition], 10) {
				continue
			}
			offsets, err := chunkOffsets(value)
			if err != nil {
				l.faults = append(l.faults, fmt.Sprintf("chunk %s of partition %d: %v", key, partition, err))
			}
			for _, o := range offsets {
				out[place{partition, o}] = true
			}
		}
	}
	return out
}

// chunkOffsets reads a chunk: version, length of the tenant's id and the id,
// count, append time of the first, then each offset's distance from the last.
// What the second form has behind them, keys and retries, is of no interest.
func chunkOffsets(value []byte) ([]int64, error) {
	if len(value) == 0 || value[0] < 1 || value[0] > 2 {
		return nil, errors.New("a form of chunk that this test can't read")
	}
	rest := value[1:]
	next := func() int64 {
		n, size := varint.Uvarint(rest)
		rest = rest[max(size, 0):]
		return int64(n)
	}
	rest = rest[next():]
	count, last := next(), int64(0)
	next()
	out := make([]int64, 0, count)
	for range count {
		last += next()
		out = append(out, last)
	}
	return out, nil
}

// commits returns what a group has committed of a topic.
func (l *topicLog) commits(ctx context.Context, group, topic string) (map[int32]int64, error) {
	got, err := l.adm.FetchOffsets(ctx, l.g.broker().Group(group))
	if err != nil {
		return nil, fmt.Errorf("commits of %s: %w", group, err)
	}
	out := map[int32]int64{}
	for p, c := range got[topic] {
		out[p] = c.At
	}
	return out, nil
}
