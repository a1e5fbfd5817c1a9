package deliver

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// laneState is the part of a lane that outlives its owner, under
// "<endpoint>/state".
type laneState struct {
	Version int `json:"v"`
	// Tenant is whose endpoint it is, so that a lane without deliveries can be read.
	Tenant string `json:"tenant,omitempty"`
	// Hold is until when the lane starts nothing (Retry-After), and the next three
	// are since when, why, and which receiver asked for it.
	Hold         time.Time `json:"hold_until,omitzero"`
	HoldSince    time.Time `json:"hold_since,omitzero"`
	HoldReason   string    `json:"hold_reason,omitempty"`
	HoldReceiver uint32    `json:"hold_receiver,omitempty"`
	// FailingSince is since when the endpoint does nothing but fail.
	FailingSince time.Time `json:"failing_since,omitzero"`
	// Failures is how often it failed since, counted up to what matters.
	Failures int `json:"failures,omitempty"`
	// OpenSince is since when the breaker is open, zero while it is closed, and
	// OpenReason why it opened.
	OpenSince  time.Time `json:"open_since,omitzero"`
	OpenReason string    `json:"open_reason,omitempty"`
	// Reported says that the registry has a report of the lane.
	Reported bool `json:"reported,omitempty"`
	// EnabledAfter is that of the endpoint's version under which all this was
	// found: an enable since then makes the failures void.
	EnabledAfter int64 `json:"enabled_after,omitempty"`
}

// ownership is the value of the records owner and ready.
type ownership struct {
	Version  int    `json:"v"`
	Instance string `json:"instance,omitempty"`
}

func ownerValue(instance string) []byte { return mustJSON(ownership{Version: 1, Instance: instance}) }

// readyRecordKey returns the key of the record that makes an epoch's chunks count.
func readyRecordKey(epoch int64) []byte {
	return append([]byte(readyPrefix), strconv.FormatInt(epoch, 10)...)
}

// mustJSON encodes a value of a type of ours that always can be.
func mustJSON(v any) []byte {
	out, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return out
}

// ledger folds the records of one partition of lanes.
type ledger struct {
	ready   int64 // the highest ready epoch, -1 for none
	readies []int64
	chunks  map[string][]byte // key → value
	states  map[string]laneState
	cancels *cancels
}

func newLedger() *ledger {
	return &ledger{ready: -1, chunks: map[string][]byte{}, states: map[string]laneState{}, cancels: newCancels(cancelSlack)}
}

func (l *ledger) apply(r *kgo.Record) {
	key := string(r.Key)
	switch kind, endpoint, delivery := laneKind(key); kind {
	case kindOwner:
	case kindReady:
		// Each epoch has a key of its own: an owner that was overtaken between
		// owner and ready writes its ready late, and compaction would keep that
		// one alone if they shared a key. The highest epoch counts.
		if epoch, err := strconv.ParseInt(delivery, 10, 64); err == nil && r.Value != nil {
			l.ready = max(l.ready, epoch)
			l.readies = append(l.readies, epoch)
		}
	case kindState:
		var s laneState
		if r.Value == nil || json.Unmarshal(r.Value, &s) != nil {
			delete(l.states, endpoint)
			return
		}
		l.states[endpoint] = s
	case kindCancel:
		if r.Value == nil {
			l.cancels.remove(endpoint, delivery)
			return
		}
		l.cancels.add(endpoint, delivery, r.Timestamp)
	case kindChunk:
		if r.Value == nil {
			delete(l.chunks, key)
			return
		}
		l.chunks[key] = r.Value
	}
}

// estate returns what counts for an owner of the given epoch: the chunks of that
// which committed, or of the newest ready one where that is not known (-1). A chunk
// that can't be read is an error: what it holds would be lost.
func (l *ledger) estate(epoch, committed int64) (*estate, error) {
	if committed < 0 {
		committed = l.ready
	}
	s := &estate{
		chunks: map[string]*parked{}, states: l.states, cancels: l.cancels, overfull: l.cancels.dropped > 0,
		finished: map[int64]struct{}{}, failed: map[int64]retry{}, ranges: map[string][]finishedRange{},
	}
	for _, ready := range l.readies {
		s.garbage = append(s.garbage, string(readyRecordKey(ready)))
	}
	found := map[string][]*parked{}
	for key, value := range l.chunks {
		name, of, _, ok := parseChunkKey(key)
		if !ok {
			continue
		}
		if of != epoch {
			s.garbage = append(s.garbage, key)
		}
		if of != committed {
			continue
		}
		p, err := decodeChunk(value)
		if err != nil {
			return nil, fmt.Errorf("chunk %s: %w", key, err)
		}
		found[name] = append(found[name], &p)
	}
	for name, parts := range found {
		s.chunks[name] = gather(parts)
	}
	return s, nil
}

// recordKind is what a record of the topic lanes is.
type recordKind int

const (
	kindChunk recordKind = iota
	kindOwner
	kindReady
	kindState
	kindCancel
)

// laneKind reads the key of a record of lanes. rest is the epoch of a ready
// record and the delivery of a cancel.
func laneKind(key string) (kind recordKind, endpoint, rest string) {
	if key == ownerKey {
		return kindOwner, "", ""
	}
	if epoch, ok := strings.CutPrefix(key, readyPrefix); ok {
		return kindReady, "", epoch
	}
	if endpoint, ok := strings.CutSuffix(key, stateSuffix); ok {
		return kindState, endpoint, ""
	}
	if endpoint, delivery, ok := strings.Cut(key, cancelInfix); ok {
		return kindCancel, endpoint, delivery
	}
	return kindChunk, "", ""
}
