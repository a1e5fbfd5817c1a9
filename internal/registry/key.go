package registry

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

// HeaderPrev is the header of a registry record that names the offset of the
// entity's version it was built on, [PrevAbsent] if there was none.
const HeaderPrev = "prev"

// Values of [Record.Prev] that are no offset.
const (
	// PrevAbsent is a record that creates its entity.
	PrevAbsent int64 = -1
	// PrevUnknown is a record without the header; it is not judged.
	PrevUnknown int64 = -2
)

// maxEntity bounds the entity part of a key, in bytes.
const maxEntity = 128

// ErrMalformed is wrapped by every error about the form of a registry record.
var ErrMalformed = errors.New("malformed registry record")

// Record is one record of topic registry: the whole state of an entity from its
// offset on, or its end.
type Record struct {
	Offset int64
	// Tenant and Entity are the two parts of the key.
	Tenant, Entity string
	// Value is the entity's JSON, nil for a tombstone.
	Value []byte
	// Prev is the offset that the record was built on; see [PrevAbsent] and
	// [PrevUnknown].
	Prev int64
	// Time is when the broker appended the record.
	Time time.Time
}

// EncodeKey returns the key of an entity's records, "<tenant>/<entity>".
func EncodeKey(tenant, entity string) []byte { return []byte(tenant + "/" + entity) }

// DecodeRecord reads a record of topic registry. It knows nothing of the
// entity's kind, so that kinds of later versions pass; what it refuses wraps
// [ErrMalformed]. The value is the record's, not a copy.
func DecodeRecord(r *kgo.Record) (Record, error) {
	tenant, entity, _ := strings.Cut(string(r.Key), "/")
	if err := checkName(tenant, entity); err != nil {
		return Record{}, fmt.Errorf("%w at offset %d: %w", ErrMalformed, r.Offset, err)
	}
	if r.Value != nil && len(r.Value) == 0 {
		return Record{}, fmt.Errorf("%w at offset %d: an empty value is neither an entity nor a tombstone", ErrMalformed, r.Offset)
	}
	rec := Record{Offset: r.Offset, Tenant: tenant, Entity: entity, Value: r.Value, Prev: PrevUnknown, Time: r.Timestamp}
	for _, h := range r.Headers {
		if h.Key != HeaderPrev {
			continue
		}
		n, err := strconv.ParseInt(string(h.Value), 10, 64)
		if err != nil || n < PrevAbsent {
			return Record{}, fmt.Errorf("%w at offset %d: header prev is no offset", ErrMalformed, r.Offset)
		}
		rec.Prev = n
	}
	return rec, nil
}

// checkName checks both parts of a key. An entity is one or two words of
// letters, digits, '_' and '-', with a '/' between them.
func checkName(tenant, entity string) error {
	if tenant != Platform {
		if err := schemas.CheckTenant(tenant); err != nil {
			return err
		}
	}
	if len(entity) > maxEntity {
		return fmt.Errorf("entity of %d bytes, at most %d are allowed", len(entity), maxEntity)
	}
	first, second, two := strings.Cut(entity, "/")
	if !isWord(first) || two && !isWord(second) {
		return fmt.Errorf("entity %q", entity)
	}
	return nil
}

func isWord(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
	}) < 0
}

// newRecord returns the Kafka record of one version of an entity.
func newRecord(topic string, r Record) *kgo.Record {
	k := &kgo.Record{Topic: topic, Key: EncodeKey(r.Tenant, r.Entity), Value: r.Value}
	if r.Prev != PrevUnknown {
		k.Headers = []kgo.RecordHeader{{Key: HeaderPrev, Value: []byte(formatInt(r.Prev))}}
	}
	return k
}

// standsAlone reports whether the entity is looked up without its tenant and
// therefore stands in the view under its own id, too.
func standsAlone(entity string) bool {
	return strings.HasPrefix(entity, schemas.PrefixKey+"_") || strings.HasPrefix(entity, schemas.PrefixSource+"_")
}

// hashesOf returns the names of the view's hashes in which an entity stands: its
// tenant's, and one of its own if it is looked up without the tenant. A report
// stands in its endpoint's alone.
func hashesOf(tenant, entity string) []string {
	switch {
	case isReport(entity):
		return []string{ReportRef(strings.TrimSuffix(entity, ReportSuffix)).Tenant}
	case standsAlone(entity):
		return []string{tenant, entity}
	}
	return []string{tenant}
}

// isHealth reports whether the entity is an endpoint's health record.
func isHealth(entity string) bool { return strings.HasSuffix(entity, HealthSuffix) }

// isReport reports whether the entity is a report about an endpoint. It stands
// in the view under the endpoint's id alone: reports come often and decide
// nothing, so they must not make everyone read the tenant again.
func isReport(entity string) bool { return strings.HasSuffix(entity, ReportSuffix) }

// ReportRef names the report of an endpoint's lane (schemas.LaneName).
func ReportRef(lane string) Ref {
	endpoint, _ := schemas.SplitLane(lane)
	return Ref{Tenant: endpoint, Entity: lane + ReportSuffix}
}
