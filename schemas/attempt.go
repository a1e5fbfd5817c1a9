package schemas

import (
	"encoding/json"
	"fmt"
	"time"
)

// Outcome is how an attempt ended, or how a delivery ended without one. The
// set is closed; the values are also metric labels.
type Outcome string

// The outcomes. Scheduled and the final ones say what became of the delivery.
const (
	// OutcomeDelivered is an attempt that the receiver answered with 2xx.
	OutcomeDelivered Outcome = "delivered"
	// OutcomeRetry is a failed attempt; the next one is scheduled.
	OutcomeRetry Outcome = "retry"
	// OutcomeExhausted is the last failed attempt; the delivery is dead.
	OutcomeExhausted Outcome = "exhausted"
	// OutcomeExpired is a delivery that grew older than max_age; it is dead.
	OutcomeExpired Outcome = "expired"
	// OutcomeCancelled is a delivery whose endpoint or tenant was deleted, or
	// that was cancelled by hand.
	OutcomeCancelled Outcome = "cancelled"
	// OutcomeRepeat is a copy of a record already handled, dropped unsent.
	OutcomeRepeat Outcome = "repeat"
	// OutcomeRejected is a record that can't be read; it is in rejected.
	OutcomeRejected Outcome = "rejected"
	// OutcomeLostByRetention is a parked record whose payload Kafka deleted.
	OutcomeLostByRetention Outcome = "lost_by_retention"
)

// Final reports whether the delivery ends with this outcome.
func (o Outcome) Final() bool { return o != OutcomeRetry && o != OutcomeRepeat }

// Attempt is a record of the topic attempts: one outcome. It is the completion
// log of deliveries: a record of deliveries is done when an Attempt names its
// offset and does not say that it stays in its place.
type Attempt struct {
	// Version is the format's version.
	Version int `json:"v"`
	// Offset is the record's offset in the same partition of deliveries.
	Offset int64 `json:"offset"`
	// Tenant, Endpoint, Event (the webhook-id), Type, Position and Delivery
	// name what was attempted.
	Tenant   string   `json:"tenant"`
	Endpoint string   `json:"endpoint_id"`
	Shard    int      `json:"shard,omitempty"`
	Event    string   `json:"event_id"`
	Type     string   `json:"event_type"`
	Position Position `json:"position"`
	Delivery string   `json:"delivery_id"`
	Replay   string   `json:"replay_id,omitempty"`
	// Attempt is the attempt's number, from 1.
	Attempt int `json:"attempt"`
	// Outcome is how it ended.
	Outcome Outcome `json:"outcome"`
	// Status is the HTTP status, 0 without an answer.
	Status int `json:"status,omitempty"`
	// Error is the class of the failure (a closed set) and Detail its text.
	Error  string `json:"error,omitempty"`
	Detail string `json:"detail,omitempty"`
	// StartedAt is when the POST began; Duration is how long the whole exchange
	// took, in milliseconds.
	StartedAt time.Time `json:"started_at"`
	Duration  float64   `json:"duration_ms"`
	// NextAt is when the next attempt is due, if there is one.
	NextAt *time.Time `json:"next_at,omitempty"`
	// InPlace says that the delivery waits for its next attempt where it stands
	// (ordered endpoints): its record is not done.
	InPlace bool `json:"in_place,omitempty"`
	// Response is the beginning of the receiver's answer.
	Response  string `json:"response,omitempty"`
	Truncated bool   `json:"response_truncated,omitempty"`
	// TraceID and SpanID are those of the attempt's span.
	TraceID string `json:"trace_id,omitempty"`
	SpanID  string `json:"span_id,omitempty"`
	// Count, First and Last stand only in a record that ends many parked
	// records at once (cancelled): their number and offsets.
	Count int64 `json:"count,omitempty"`
	First int64 `json:"first_offset,omitempty"`
	Last  int64 `json:"last_offset,omitempty"`
}

// EncodeAttempt returns the record's value.
func EncodeAttempt(a *Attempt) ([]byte, error) {
	a.Version = Version
	value, err := appendAttempt(make([]byte, 0, attemptSize), a)
	if err != nil {
		return nil, fmt.Errorf("attempt record: %w", err)
	}
	return value, nil
}

// attemptSize is what a record without the receiver's answer takes, in bytes.
const attemptSize = 480

// DecodeAttempt reads the value of a record of attempts.
func DecodeAttempt(value []byte) (Attempt, error) {
	var a Attempt
	if err := json.Unmarshal(value, &a); err != nil {
		return Attempt{}, fmt.Errorf("attempt record: %w", err)
	}
	if a.Endpoint == "" || a.Outcome == "" {
		return Attempt{}, fieldError("endpoint_id", "and outcome are required")
	}
	return a, nil
}

// Reason says why an event became no delivery for an endpoint or tenant.
type Reason string

// The reasons of a decision.
const (
	// ReasonMatched counts the deliveries that were made.
	ReasonMatched Reason = "matched"
	// ReasonUnmatched is an event whose type no subscription names.
	ReasonUnmatched Reason = "unmatched"
	// ReasonFiltered is a subscription whose filter said no.
	ReasonFiltered Reason = "filtered"
	// ReasonFilterError is a subscription whose filter failed or was too costly.
	ReasonFilterError Reason = "filter_error"
	// ReasonDisabled is an endpoint that was disabled.
	ReasonDisabled Reason = "disabled"
	// ReasonDuplicate is a repeat of an event inside the window.
	ReasonDuplicate Reason = "duplicate"
	// ReasonConflict is a repeat with another payload.
	ReasonConflict Reason = "conflict"
	// ReasonTenantDeleted is an event of a tenant that is being deleted.
	ReasonTenantDeleted Reason = "tenant_deleted"
)

// MaxDecisionIDs bounds the ids that a decision lists per reason; Count is
// exact beyond it.
const MaxDecisionIDs = 20

// Decision is a record of the topic decisions: what fan-out decided about one
// event.
type Decision struct {
	Version  int       `json:"v"`
	Tenant   string    `json:"tenant"`
	Event    string    `json:"event_id"`
	Type     string    `json:"event_type"`
	Position Position  `json:"position"`
	Registry int64     `json:"registry_offset"`
	At       time.Time `json:"at"`
	TraceID  string    `json:"trace_id,omitempty"`
	// First is the position that came first, for duplicates and conflicts.
	First   *Position              `json:"first_position,omitempty"`
	Reasons map[Reason]ReasonCount `json:"reasons"`
}

// ReasonCount is how often a reason applied, with up to 20 ids of the
// endpoints or subscriptions concerned.
type ReasonCount struct {
	Count int      `json:"count"`
	IDs   []string `json:"ids,omitempty"`
}

// EncodeDecision returns the record's value.
func EncodeDecision(d *Decision) ([]byte, error) {
	d.Version = Version
	return json.Marshal(d)
}

// DecodeDecision reads the value of a record of decisions.
func DecodeDecision(value []byte) (Decision, error) {
	var d Decision
	if err := json.Unmarshal(value, &d); err != nil {
		return Decision{}, fmt.Errorf("decision record: %w", err)
	}
	return d, nil
}
