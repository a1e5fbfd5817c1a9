package schemas

import (
	"fmt"
	"strconv"
	"time"
)

// Version is the version of every record format that this build writes.
// Readers accept any version: what a later one adds, they ignore.
const Version = 1

// Limits of an event. They hold for HTTP and for direct producers to Kafka.
const (
	// MaxAttributes bounds the names and values of all CloudEvents attributes
	// of an event together, in bytes.
	MaxAttributes = 32 << 10
	// MaxEventID bounds the CloudEvents id, in bytes.
	MaxEventID = 1 << 10
	// MaxSource bounds the CloudEvents source, in bytes.
	MaxSource = 2 << 10
	// MaxType bounds the event type, in bytes.
	MaxType = 255
	// MaxSubject bounds the CloudEvents subject, in bytes.
	MaxSubject = 2 << 10
	// MaxTenant bounds a tenant's id, in bytes.
	MaxTenant = 64
	// MaxPartitionKey bounds the partition key, in bytes.
	MaxPartitionKey = 1 << 10
	// MaxExtensions bounds the number of extension attributes.
	MaxExtensions = 64
	// MaxHops is the number of gateways an event may have passed. One more is
	// refused, so that a loop of gateways ends.
	MaxHops = 5
)

// Header is one Kafka record header.
type Header struct {
	Key   string
	Value []byte
}

// RecordHeader is satisfied by every Kafka client's header type that has the
// shape of Header, so that encoding needs no copy and no client import.
type RecordHeader interface {
	~struct {
		Key   string
		Value []byte
	}
}

// FieldError says which field of an event or record is wrong, and how.
type FieldError struct {
	// Pointer is the CloudEvents attribute or record header, such as "type".
	Pointer string
	// Detail says what is wrong with it.
	Detail string
}

// Error implements error.
func (e *FieldError) Error() string { return e.Pointer + ": " + e.Detail }

func fieldError(pointer, format string, args ...any) error {
	return &FieldError{Pointer: pointer, Detail: fmt.Sprintf(format, args...)}
}

func appendHeader[H RecordHeader](dst []H, key, value string) []H {
	return append(dst, H(Header{Key: key, Value: []byte(value)}))
}

func appendInt[H RecordHeader](dst []H, key string, n int64) []H {
	return append(dst, H(Header{Key: key, Value: strconv.AppendInt(nil, n, 10)}))
}

func parseInt(pointer string, value []byte) (int64, error) {
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return 0, fieldError(pointer, "not a whole number: %q", clip(string(value), 32))
	}
	return n, nil
}

// Times travel as Unix milliseconds; zero time is 0.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}
