package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// abortLeftovers writes the abort markers that a killed embedded broker owes.
//
// kfake aborts a transaction that a kill left open in memory only: on disk its
// records stay without a marker. After one more kill it would take the commit of
// the id's next transaction for theirs, and half a transaction would show. So
// every idle transactional id gets an abort marker in every partition that has
// records; a marker with nothing to abort is only a hole in the offsets.
func abortLeftovers(ctx context.Context, addrs []string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.DisableClientMetrics())
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	txns, err := adm.DescribeTransactions(ctx)
	if err != nil {
		return fmt.Errorf("list transactions: %w", err)
	}
	ends, err := adm.ListEndOffsets(ctx)
	if err = errors.Join(err, ends.Error()); err != nil {
		return fmt.Errorf("list log ends: %w", err)
	}
	written := kadm.TopicsSet{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			written.Add(o.Topic, o.Partition)
		}
	})
	var markers []kadm.TxnMarkers
	for _, tx := range txns {
		if tx.Err == nil && tx.State != "Ongoing" {
			markers = append(markers, kadm.TxnMarkers{ProducerID: tx.ProducerID, ProducerEpoch: tx.ProducerEpoch, Topics: written})
		}
	}
	if len(markers) == 0 || len(written) == 0 {
		return nil
	}
	answers, err := adm.WriteTxnMarkers(ctx, markers...)
	if err != nil {
		return fmt.Errorf("write abort markers: %w", err)
	}
	for _, producer := range answers {
		for _, topic := range producer.Topics {
			for _, p := range topic.Partitions {
				if p.Err != nil {
					return fmt.Errorf("write abort marker to %s/%d: %w", p.Topic, p.Partition, p.Err)
				}
			}
		}
	}
	return nil
}
