package schemas

import (
	"math"
	"strings"
	"time"
)

// Delivery is one event for one endpoint, as it stands in the topics
// deliveries, schedule and dead: self-contained, so that nothing else need be
// asked to make the next attempt. A first attempt is attempt 1.
type Delivery struct {
	// Event carries the attributes and the payload.
	Event Event
	// ID is the delivery id ("dlv_…"), EventID the webhook-id ("evt_…").
	ID      string
	EventID string
	// Endpoint is the id of the receiver, Shard the number of its lane where it
	// has several. Together they are the record's key (LaneName).
	Endpoint string
	Shard    int
	// Position is the event's place in the topic events.
	Position Position
	// Registry is the offset of the registry at which the event was matched: a
	// worker judges the delivery only with knowledge at least as new.
	Registry int64
	// Replay is the id of the replay that made the delivery, or empty.
	Replay string
	// Attempt is the number of the attempt that this record asks for, from 1.
	Attempt int
	// MadeAt is when the delivery was made; max_age counts from it.
	MadeAt time.Time
	// FirstAttemptAt is when attempt 1 began, zero before.
	FirstAttemptAt time.Time
	// DueAt is the earliest time of the attempt, zero for at once.
	DueAt time.Time
	// Levels are the wheel levels still to go, one bit per level.
	Levels uint32
	// LastTrace is the traceparent of the attempt before, to which a retry's
	// span is linked.
	LastTrace string
	// Reason says in the topic dead why the delivery ended there.
	Reason string
}

// Headers of a delivery beside the event's own.
const (
	headerVersion  = "pr_v"
	headerDelivery = "pr_delivery"
	headerEvent    = "pr_event"
	headerEndpoint = "pr_endpoint"
	headerPosition = "pr_position"
	headerRegistry = "pr_registry"
	headerReplay   = "pr_replay"
	headerAttempt  = "pr_attempt"
	headerMade     = "pr_made"
	headerFirst    = "pr_first"
	headerDue      = "pr_due"
	headerLevels   = "pr_levels"
	headerLast     = "pr_last"
	headerReason   = "pr_reason"
	ourPrefix      = "pr_"
)

// Lane returns the name of the lane that the delivery goes through.
func (d *Delivery) Lane() string { return LaneName(d.Endpoint, d.Shard) }

// AppendDeliveryHeaders appends all headers of the delivery's record. The value of the
// record is Event.Data, its key the lane's name. The size of the headers does
// not grow with the attempts.
func AppendDeliveryHeaders[H RecordHeader](dst []H, d *Delivery) []H {
	in := make(values, 0, d.Event.attributesSize()+len(d.Replay)+len(d.LastTrace)+len(d.Reason)+ours)
	dst = appendEventHeaders(dst, &in, &d.Event)
	dst = appendInt(dst, &in, headerVersion, Version)
	dst = appendHeader(dst, &in, headerDelivery, d.ID)
	dst = appendHeader(dst, &in, headerEvent, d.EventID)
	dst = appendHeader(dst, &in, headerPosition, d.Position.String())
	dst = appendInt(dst, &in, headerRegistry, d.Registry)
	dst = appendInt(dst, &in, headerAttempt, int64(d.Attempt))
	dst = appendInt(dst, &in, headerMade, millis(d.MadeAt))
	if !d.FirstAttemptAt.IsZero() {
		dst = appendInt(dst, &in, headerFirst, millis(d.FirstAttemptAt))
	}
	if !d.DueAt.IsZero() {
		dst = appendInt(dst, &in, headerDue, millis(d.DueAt))
	}
	if d.Levels != 0 {
		dst = appendInt(dst, &in, headerLevels, int64(d.Levels))
	}
	for _, h := range [...]struct{ key, value string }{
		{headerReplay, d.Replay}, {headerLast, d.LastTrace}, {headerReason, d.Reason},
	} {
		if h.value != "" {
			dst = appendHeader(dst, &in, h.key, h.value)
		}
	}
	return dst
}

// DecodeDelivery reads a record of deliveries, schedule or dead. Event.Data is
// the record's value, not a copy. A record without the fields that a worker
// needs is a *FieldError.
func DecodeDelivery[H RecordHeader](key, value []byte, headers []H) (Delivery, error) {
	d := Delivery{Attempt: 1, Registry: -1}
	d.Endpoint, d.Shard = SplitLane(string(key))
	rest := texts(headers)
	for i := range headers {
		h := Header(headers[i])
		text := rest[:len(h.Value)]
		rest = rest[len(h.Value):]
		var err error
		if strings.HasPrefix(h.Key, ourPrefix) && h.Key != headerHops {
			err = d.readHeader(h.Key, text)
		} else {
			err = d.Event.readHeader(h.Key, text)
		}
		if err != nil {
			return Delivery{}, err
		}
	}
	d.Event.Data = value
	switch {
	case d.Endpoint == "":
		return Delivery{}, fieldError("key", "the endpoint id is missing")
	case d.ID == "":
		return Delivery{}, fieldError(headerDelivery, "is required")
	case d.EventID == "":
		return Delivery{}, fieldError(headerEvent, "is required")
	case d.Event.Tenant == "":
		return Delivery{}, fieldError("ce_tenant", "is required")
	case d.Attempt < 1:
		return Delivery{}, fieldError(headerAttempt, "must be at least 1")
	}
	return d, nil
}

func (d *Delivery) readHeader(key, value string) error {
	switch key {
	case headerDelivery:
		d.ID = value
	case headerEvent:
		d.EventID = value
	case headerReplay:
		d.Replay = value
	case headerLast:
		d.LastTrace = value
	case headerReason:
		d.Reason = value
	case headerPosition:
		p, err := ParsePosition(value)
		if err != nil {
			return fieldError(headerPosition, "%v", err)
		}
		d.Position = p
	case headerRegistry, headerAttempt, headerMade, headerFirst, headerDue, headerLevels:
		n, err := parseInt(key, value)
		if err != nil {
			return err
		}
		return d.setNumber(key, n)
	}
	return nil
}

func (d *Delivery) setNumber(key string, n int64) error {
	if key != headerRegistry && n < 0 {
		return fieldError(key, "must not be negative")
	}
	switch key {
	case headerRegistry:
		d.Registry = n
	case headerAttempt:
		if n > 1<<30 {
			return fieldError(key, "%d is out of range", n)
		}
		d.Attempt = int(n)
	case headerMade:
		d.MadeAt = fromMillis(n)
	case headerFirst:
		d.FirstAttemptAt = fromMillis(n)
	case headerDue:
		d.DueAt = fromMillis(n)
	case headerLevels:
		if n < 0 || n > math.MaxUint32 {
			return fieldError(key, "%d is out of range", n)
		}
		d.Levels = uint32(n)
	}
	return nil
}

// Page is a part of one very wide event: the event and the endpoints that this
// record still has to be expanded for (topic pages), each by the name of its lane.
type Page struct {
	Event     Event
	EventID   string
	Position  Position
	Registry  int64
	MadeAt    time.Time
	Endpoints []string
}

// MaxPageEndpoints bounds the endpoints of one record of the topic pages.
const MaxPageEndpoints = 1000

const headerEndpoints = "pr_endpoints"

// AppendPageHeaders appends all headers of a page; the record's value is the
// event's data.
func AppendPageHeaders[H RecordHeader](dst []H, p *Page) []H {
	endpoints := strings.Join(p.Endpoints, " ")
	in := make(values, 0, p.Event.attributesSize()+len(endpoints)+ours)
	dst = appendEventHeaders(dst, &in, &p.Event)
	dst = appendInt(dst, &in, headerVersion, Version)
	dst = appendHeader(dst, &in, headerEvent, p.EventID)
	dst = appendHeader(dst, &in, headerPosition, p.Position.String())
	dst = appendInt(dst, &in, headerRegistry, p.Registry)
	dst = appendInt(dst, &in, headerMade, millis(p.MadeAt))
	return appendHeader(dst, &in, headerEndpoints, endpoints)
}

// DecodePage reads a record of the topic pages.
func DecodePage[H RecordHeader](value []byte, headers []H) (Page, error) {
	var d Delivery
	var p Page
	for i := range headers {
		h := Header(headers[i])
		var err error
		switch {
		case h.Key == headerEndpoints:
			p.Endpoints = strings.Fields(string(h.Value))
		case strings.HasPrefix(h.Key, ourPrefix) && h.Key != headerHops:
			err = d.readHeader(h.Key, string(h.Value))
		default:
			err = d.Event.readHeader(h.Key, string(h.Value))
		}
		if err != nil {
			return Page{}, err
		}
	}
	d.Event.Data = value
	p.Event, p.EventID, p.Position, p.Registry, p.MadeAt = d.Event, d.EventID, d.Position, d.Registry, d.MadeAt
	switch {
	case p.EventID == "":
		return Page{}, fieldError(headerEvent, "is required")
	case len(p.Endpoints) == 0 || len(p.Endpoints) > MaxPageEndpoints:
		return Page{}, fieldError(headerEndpoints, "want 1 to %d endpoints, have %d", MaxPageEndpoints, len(p.Endpoints))
	}
	return p, nil
}

// CancelKey returns the key of the record in the topic lanes by which control
// asks the owner of an endpoint to cancel a delivery.
func CancelKey(endpoint, delivery string) []byte {
	return []byte(endpoint + "/cancel/" + delivery)
}

// AppendOrigin appends the headers that say where a record of rejected or dead came
// from: topic, partition and offset.
func AppendOrigin[H RecordHeader](dst []H, topic string, partition int32, offset int64) []H {
	in := make(values, 0, len(topic)+32)
	dst = appendHeader(dst, &in, "pr_origin_topic", topic)
	dst = appendInt(dst, &in, "pr_origin_partition", int64(partition))
	return appendInt(dst, &in, "pr_origin_offset", offset)
}

// AppendRejection appends the headers of a record of the topic rejected: the
// reason (a closed set, see Reject…), a detail for people, and whether the
// record was cut to fit.
func AppendRejection[H RecordHeader](dst []H, reason RejectReason, detail string, truncated bool) []H {
	in := make(values, 0, ours+min(len(detail), 1024))
	dst = appendInt(dst, &in, headerVersion, Version)
	dst = appendHeader(dst, &in, headerReason, string(reason))
	dst = appendHeader(dst, &in, "pr_detail", clip(detail, 1024))
	if truncated {
		dst = appendHeader(dst, &in, "pr_truncated", "true")
	}
	return dst
}

// RejectReason says why a record stands in the topic rejected.
type RejectReason string

// The reasons of rejected records.
const (
	// RejectMalformed is a record that is no CloudEvent or no delivery.
	RejectMalformed RejectReason = "malformed"
	// RejectInvalid is an event whose envelope breaks a rule or limit.
	RejectInvalid RejectReason = "invalid"
	// RejectOversized is a record that the stage could read but not write.
	RejectOversized RejectReason = "oversized"
	// RejectUndecodable is a batch that can't be decompressed within bounds.
	RejectUndecodable RejectReason = "undecodable"
	// RejectPanic is a record whose handling panicked.
	RejectPanic RejectReason = "panic"
	// RejectUnknownTenant is an event of a tenant that does not exist.
	RejectUnknownTenant RejectReason = "unknown_tenant"
	// RejectHops is an event that passed too many gateways.
	RejectHops RejectReason = "too_many_hops"
	// RejectAborting is a record that alone makes its transaction abort.
	RejectAborting RejectReason = "aborting"
)
