package main

import (
	"context"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
)

// index counts the records that are written to topic lanes: chunks of parked
// offsets, their tombstones, and what else stands there (docs: deliver/DESIGN.md).
type index struct {
	Chunks     int64 `json:"chunks"`
	Tombstones int64 `json:"tombstones"`
	Others     int64 `json:"others"`
	Bytes      int64 `json:"bytes"` // keys and values of all
}

func (x index) records() int64 { return x.Chunks + x.Tombstones + x.Others }

func (x index) minus(y index) index {
	return index{x.Chunks - y.Chunks, x.Tombstones - y.Tombstones, x.Others - y.Others, x.Bytes - y.Bytes}
}

// add counts one record. A chunk stands under <endpoint>/<epoch>/<number>.
func (x *index) add(key, value []byte) {
	x.Bytes += int64(len(key) + len(value))
	parts := strings.Split(string(key), "/")
	switch {
	case len(parts) != 3 || parts[1] == "cancel":
		x.Others++
	case value == nil:
		x.Tombstones++
	default:
		x.Chunks++
	}
}

// indexReader follows topic lanes from its end on.
type indexReader struct {
	client *kgo.Client

	mu  sync.Mutex
	sum index
}

// newIndexReader begins at the present end of the topic.
func newIndexReader(g *gateway) (*indexReader, error) {
	client, err := g.kafka(
		kgo.ConsumeTopics(broker.Names(g.prefix).Lanes), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	if err != nil {
		return nil, err
	}
	return &indexReader{client: client}, nil
}

// run counts until stop ends.
func (r *indexReader) run(stop context.Context) error {
	for stop.Err() == nil {
		fetches := r.client.PollFetches(stop)
		if err := fetches.Err0(); err != nil && stop.Err() == nil {
			return err
		}
		r.mu.Lock()
		fetches.EachRecord(func(rec *kgo.Record) { r.sum.add(rec.Key, rec.Value) })
		r.mu.Unlock()
	}
	return nil
}

func (r *indexReader) count() index {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sum
}
