package broker

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

// Bounds of a rejected record, so that it can always be written.
const (
	rejectedValue = 64 << 10
	rejectedKey   = 1 << 10
)

// RejectedRecord wraps a record that can't be handled for the topic rejected: its key
// cut to 1 KiB, its value to 64 KiB, none of its headers, and where it stands.
func RejectedRecord(topic string, r *kgo.Record, reason schemas.RejectReason, detail string) *kgo.Record {
	key, value := r.Key[:min(len(r.Key), rejectedKey)], r.Value[:min(len(r.Value), rejectedValue)]
	truncated := len(key) < len(r.Key) || len(value) < len(r.Value) || reason == schemas.RejectOversized
	headers := schemas.AppendRejection[kgo.RecordHeader](nil, reason, detail, truncated)
	headers = schemas.AppendOrigin(headers, r.Topic, r.Partition, r.Offset)
	return &kgo.Record{Topic: topic, Key: key, Value: value, Headers: headers}
}
