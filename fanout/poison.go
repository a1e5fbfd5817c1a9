package fanout

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/schemas"
)

// strikesOut is how often a batch may be refused because of its records before
// these are tried one by one.
const strikesOut = 3

// maxSuspects bounds the records that wait for their rejection.
const maxSuspects = 1000

// place is where a record stands.
type place struct {
	topic     string
	partition int32
	offset    int64
}

func placeOf(r *kgo.Record) place { return place{r.Topic, r.Partition, r.Offset} }

// suspects finds the record that makes its transactions abort. It belongs to the
// loop and outlives sessions.
type suspects struct {
	strikes int // refusals in a row
	alone   int // records still to be tried one by one
	guilty  map[place]*rejection
}

// verdict returns the rejection of a record that failed alone, or nil.
func (s *suspects) verdict(r *kgo.Record) *rejection { return s.guilty[placeOf(r)] }

// poll returns how many records to poll where size is wanted.
func (s *suspects) poll(size int) int {
	if s.alone > 0 {
		return 1
	}
	return size
}

// aborted takes up why a transaction of these records was aborted. Only an error
// that blames a record counts: Kafka being away or fencing us says nothing about
// the records.
func (s *suspects) aborted(records []*kgo.Record, err error) {
	if !blames(err) {
		return
	}
	s.strikes++
	if len(records) != 1 {
		if s.strikes >= strikesOut {
			s.strikes, s.alone = 0, len(records)
		}
		return
	}
	if s.guilty == nil || len(s.guilty) >= maxSuspects {
		s.guilty = map[place]*rejection{}
	}
	r := &rejection{reason: schemas.RejectAborting, detail: err.Error()}
	if errors.Is(err, kerr.MessageTooLarge) {
		r.reason = schemas.RejectOversized
	}
	at := placeOf(records[0])
	r.bare = s.guilty[at] != nil // even its rejection was refused
	s.guilty[at] = r
}

// committed takes up that these records are done.
func (s *suspects) committed(records []*kgo.Record) {
	s.strikes = 0
	s.alone = max(0, s.alone-len(records))
	if len(s.guilty) > 0 {
		for _, r := range records {
			delete(s.guilty, placeOf(r))
		}
	}
}

// blames reports whether Kafka refused what was written, rather than us.
func blames(err error) bool {
	for _, of := range [...]error{
		kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.CorruptMessage,
		kerr.InvalidTimestamp, kerr.UnsupportedForMessageFormat,
	} {
		if errors.Is(err, of) {
			return true
		}
	}
	return false
}

// rejectBatch appends the rejection of a batch that can't be decompressed within
// bounds. What it holds can't be told; it is named by its offsets.
func (o *outbox) rejectBatch(bomb *kgo.ErrDecompressTooLarge) {
	rec := &kgo.Record{Topic: o.topics.Rejected, Partition: o.turn}
	rec.Headers = schemas.AppendRejection(rec.Headers, schemas.RejectUndecodable,
		fmt.Sprintf("the batch of offsets %d to %d unpacks to more than %d bytes", bomb.Offset, bomb.NextOffset-1, broker.MaxBatchBytes), true)
	rec.Headers = schemas.AppendOrigin(rec.Headers, bomb.Topic, bomb.Partition, bomb.Offset)
	o.add(rec, nil, recordSize(nil, nil, rec.Headers))
	o.results[resultRejected]++
}

// commitPast returns a function that sets the commit of the partitions of bombs and
// gaps past them, in the request that commits the transaction's offsets.
func commitPast(b *batch) func(*kmsg.TxnOffsetCommitRequest) error {
	return func(req *kmsg.TxnOffsetCommitRequest) error {
		for _, bomb := range b.bombs {
			p := partitionOf(req, bomb.Topic, bomb.Partition)
			p.Offset, p.LeaderEpoch, p.Metadata = bomb.NextOffset, bomb.Epoch, &req.MemberID
		}
		for _, gap := range b.gaps {
			p := partitionOf(req, gap.Topic, gap.Partition)
			p.Offset, p.LeaderEpoch, p.Metadata = gap.Start, -1, &req.MemberID
		}
		return nil
	}
}

func partitionOf(req *kmsg.TxnOffsetCommitRequest, topic string, partition int32) *kmsg.TxnOffsetCommitRequestTopicPartition {
	var t *kmsg.TxnOffsetCommitRequestTopic
	for i := range req.Topics {
		if req.Topics[i].Topic == topic {
			t = &req.Topics[i]
		}
	}
	if t == nil {
		fresh := kmsg.NewTxnOffsetCommitRequestTopic()
		fresh.Topic = topic
		req.Topics = append(req.Topics, fresh)
		t = &req.Topics[len(req.Topics)-1]
	}
	for i := range t.Partitions {
		if t.Partitions[i].Partition == partition {
			return &t.Partitions[i]
		}
	}
	fresh := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	fresh.Partition = partition
	t.Partitions = append(t.Partitions, fresh)
	return &t.Partitions[len(t.Partitions)-1]
}
