package schemas

import (
	"fmt"
	"strconv"
	"strings"
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

// values is where the values of a record's headers stand, one after the other: an
// allocation for all of them. A larger one is made when it does not suffice.
type values []byte

func appendHeader[H RecordHeader](dst []H, in *values, key, value string) []H {
	start := len(*in)
	*in = append(*in, value...)
	return append(dst, H(Header{Key: key, Value: (*in)[start:len(*in):len(*in)]}))
}

func appendInt[H RecordHeader](dst []H, in *values, key string, n int64) []H {
	start := len(*in)
	*in = strconv.AppendInt(*in, n, 10)
	return append(dst, H(Header{Key: key, Value: (*in)[start:len(*in):len(*in)]}))
}

// ours is room for the values of all headers that are no attributes of the event.
const ours = 192

// texts returns the values of all headers, one after the other, in one string:
// an allocation for all of them. The value of each header is a piece of it.
func texts[H RecordHeader](headers []H) string {
	n := 0
	for i := range headers {
		n += len(Header(headers[i]).Value)
	}
	var all strings.Builder
	all.Grow(n)
	for i := range headers {
		all.Write(Header(headers[i]).Value)
	}
	return all.String()
}

func parseInt(pointer, value string) (int64, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return 0, fieldError(pointer, "not a whole number: %q", clip(value, 32))
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
