package schemas

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"

	"github.com/google/uuid"
)

// Prefixes of ids. Entities have TypeIDs (prefix, underscore, UUIDv7 in
// base32); events and deliveries are named by a hash of what they are.
const (
	PrefixEvent        = "evt"
	PrefixDelivery     = "dlv"
	PrefixEndpoint     = "ep"
	PrefixSubscription = "sub"
	PrefixSource       = "src"
	PrefixKey          = "key"
	PrefixReplay       = "rpl"
	PrefixRequest      = "req"
)

// suffixLen is the length of the base32 part of an id: 26 characters hold the
// 128 bits of a UUID (two leading bits unused) or 130 bits of a hash.
const suffixLen = 26

// alphabet is Crockford's base32 in lower case, as TypeID uses it.
const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// ErrMalformedID is wrapped by every error about the form of an id.
var ErrMalformedID = errors.New("malformed id")

var encoding = sync.OnceValue(func() *base32.Encoding { //nolint:gochecknoglobals // immutable table
	return base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)
})

// NewID returns a fresh TypeID such as "ep_01h455vb4pex5vsknk084sn02q": the
// prefix and a UUIDv7 in base32 (TypeID specification 0.3). It sorts by time.
func NewID(prefix string) string {
	id := uuid.Must(uuid.NewV7())
	return prefix + "_" + encodeUUID(id)
}

func encodeUUID(id uuid.UUID) string {
	// 128 bits in 26 characters: two zero bits lead.
	hi := binary.BigEndian.Uint64(id[:8])
	lo := binary.BigEndian.Uint64(id[8:])
	var out [suffixLen]byte
	for i := suffixLen - 1; i >= 0; i-- {
		out[i] = alphabet[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return string(out[:])
}

// CheckID reports whether id is a well-formed id with the given prefix, with
// an error that wraps ErrMalformedID where it is not.
func CheckID(prefix, id string) error {
	suffix, ok := strings.CutPrefix(id, prefix+"_")
	if !ok {
		return fmt.Errorf("%w: %q does not start with %q", ErrMalformedID, clip(id, 64), prefix+"_")
	}
	if len(suffix) != suffixLen {
		return fmt.Errorf("%w: %q wants %d characters after the prefix, has %d", ErrMalformedID, clip(id, 64), suffixLen, len(suffix))
	}
	if i := strings.IndexFunc(suffix, func(r rune) bool { return !strings.ContainsRune(alphabet, r) }); i >= 0 {
		return fmt.Errorf("%w: %q has a character outside base32", ErrMalformedID, clip(id, 64))
	}
	return nil
}

// EventID returns the id of an event: "evt_" and the first 130 bits of the
// SHA-256 over the length-prefixed tenant, source and CloudEvents id. It is
// the same for HTTP and Kafka, for the first send and each repeat, and across
// clusters; receivers see it as the webhook-id.
func EventID(tenant, source, id string) string {
	return hashID(PrefixEvent, tenant, source, id)
}

// DeliveryID returns the id of one event for one endpoint; replay is the id of
// the replay job, or empty for the delivery that fan-out made.
func DeliveryID(event, endpoint, replay string) string {
	return hashID(PrefixDelivery, event, endpoint, replay)
}

// AttemptID returns the id of attempt number n (from 1) of a delivery, such as
// "dlv_…/3".
func AttemptID(delivery string, n int) string {
	return delivery + "/" + strconv.Itoa(n)
}

func hashID(prefix string, parts ...string) string {
	var stack [512]byte
	buf := stack[:0]
	for _, p := range parts {
		buf = binary.BigEndian.AppendUint32(buf, uint32(len(p))) //nolint:gosec // a record's attribute is far below 4 GiB
		buf = append(buf, p...)
	}
	sum := sha256.Sum256(buf)
	// 17 bytes give 27.2 characters; 26 of them are the first 130 bits.
	var out [28]byte
	encoding().Encode(out[:], sum[:17])
	return prefix + "_" + string(out[:suffixLen])
}

// EventKey returns the first 16 bytes (128 of the 130 bits) that an event id
// stands for: the compact key under which fan-out claims the event.
func EventKey(event string) ([16]byte, error) {
	if err := CheckID(PrefixEvent, event); err != nil {
		return [16]byte{}, err
	}
	return IDBytes(event), nil
}

// IDBytes returns the first 16 bytes that the base32 part of an id stands for.
// An id without the usual form is hashed, so that ids never share a value by
// accident.
func IDBytes(id string) [16]byte {
	var out [16]byte
	if i := strings.IndexByte(id, '_'); i >= 0 && len(id)-i-1 == suffixLen {
		var raw [17]byte
		var text [28]byte
		copy(text[:], id[i+1:])
		text[26], text[27] = '0', '0'
		if _, err := encoding().Decode(raw[:], text[:]); err == nil {
			copy(out[:], raw[:16])
			return out
		}
	}
	sum := sha256.Sum256([]byte(id))
	copy(out[:], sum[:16])
	return out
}

// Position is the place of an event in the topic events.
type Position struct {
	Partition int32
	Offset    int64
}

// String returns the position as "<partition>.<offset>".
func (p Position) String() string {
	var buf [32]byte
	return string(p.append(buf[:0]))
}

func (p Position) append(dst []byte) []byte {
	dst = strconv.AppendInt(dst, int64(p.Partition), 10)
	return strconv.AppendInt(append(dst, '.'), p.Offset, 10)
}

// MarshalText implements encoding.TextMarshaler.
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Position) UnmarshalText(text []byte) error {
	q, err := ParsePosition(string(text))
	if err != nil {
		return err
	}
	*p = q
	return nil
}

// ParsePosition reads the form that String writes.
func ParsePosition(s string) (Position, error) {
	partition, offset, ok := strings.Cut(s, ".")
	if !ok {
		return Position{}, fmt.Errorf("position %q: want <partition>.<offset>", clip(s, 64))
	}
	p, err := strconv.ParseInt(partition, 10, 32)
	if err != nil || p < 0 {
		return Position{}, fmt.Errorf("position %q: bad partition", clip(s, 64))
	}
	o, err := strconv.ParseInt(offset, 10, 64)
	if err != nil || o < 0 {
		return Position{}, fmt.Errorf("position %q: bad offset", clip(s, 64))
	}
	return Position{Partition: int32(p), Offset: o}, nil
}

// clip cuts s to at most n bytes for use in an error.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// laneSeparator stands between an endpoint's id and the number of a shard.
const laneSeparator = "-"

// LaneName returns the name of an endpoint's lane: the key of its records in
// deliveries and schedule, and what decides about their partition. Shard 0 has
// the endpoint's own id.
func LaneName(endpoint string, shard int) string {
	if shard == 0 {
		return endpoint
	}
	return endpoint + laneSeparator + strconv.Itoa(shard)
}

// SplitLane is the inverse of LaneName. A name without a number is shard 0.
func SplitLane(lane string) (endpoint string, shard int) {
	endpoint, number, found := strings.Cut(lane, laneSeparator)
	if !found {
		return lane, 0
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return lane, 0
	}
	return endpoint, int(n)
}

// ShardOf returns which of an endpoint's shards an event goes to: the same for
// every repeat of the event.
func ShardOf(eventID string, shards int) int {
	if shards <= 1 {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(eventID))
	return int(h.Sum32() % uint32(shards)) //nolint:gosec // smaller than shards
}
