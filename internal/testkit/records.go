package testkit

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
)

// Bomb writes one batch of 3 records that unpacks to more than readers take.
func Bomb(tb testing.TB, c broker.Config, topic string, partition int32) {
	tb.Helper()
	cl, err := c.NewClient(
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.WithCompressor(nil),
		kgo.ProducerBatchMaxBytes(80<<20),
		kgo.ProducerLinger(time.Second),
	)
	if err != nil {
		tb.Fatal(err)
	}
	defer cl.Close()
	part := func() *kgo.Record {
		return &kgo.Record{Topic: topic, Partition: partition, Value: make([]byte, broker.MaxBatchBytes/2)}
	}
	if err := cl.ProduceSync(tb.Context(), part(), part(), part()).FirstErr(); err != nil {
		tb.Fatal(err)
	}
}

// Header returns a header of a record, "" where it has none of that name.
func Header(r *kgo.Record, key string) string {
	i := slices.IndexFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == key })
	if i < 0 {
		return ""
	}
	return string(r.Headers[i].Value)
}
