package schemas

import (
	"encoding/json"
	"fmt"
)

// Ticket is what the token of a thin delivery stands for: the right to fetch one
// event until a time.
type Ticket struct {
	// Tenant, Event (the webhook-id) and Position name the event in the topic
	// events.
	Tenant   string   `json:"t"`
	Event    string   `json:"e"`
	Position Position `json:"p"`
	// ExpiresAt is when the right ends, in Unix seconds.
	ExpiresAt int64 `json:"x"`
	// Inline is the event itself, as it is to be answered, where no topic has it.
	Inline json.RawMessage `json:"i,omitempty"`
}

// Encode returns the ticket as bytes to seal: the same for the same ticket.
func (t *Ticket) Encode() []byte {
	out, err := json.Marshal(t)
	if err != nil { // Inline is the only field that could be no JSON
		panic(fmt.Sprintf("encode ticket: %v", err))
	}
	return out
}

// DecodeTicket reads what Encode wrote.
func DecodeTicket(plain []byte) (Ticket, error) {
	var t Ticket
	if err := json.Unmarshal(plain, &t); err != nil {
		return Ticket{}, fmt.Errorf("ticket: %w", err)
	}
	return t, nil
}

// Events that control sends to one endpoint: they stand in the topic deliveries
// alone.
const (
	// TestType is their type.
	TestType = "postrider.test"
	// TestSource is their source.
	TestSource = "/postrider/control"
)

// Bounds of an event that a ticket may carry, in bytes: it is a part of a URL.
const (
	maxInlineData       = 512
	maxInlineAttributes = 768
)

// Unlogged reports whether the delivery's event stands in no topic but deliveries
// itself: a small test event without a place of its own.
func (d *Delivery) Unlogged() bool {
	e := &d.Event
	return e.Type == TestType && e.Source == TestSource && d.Position == (Position{}) &&
		len(e.Data) <= maxInlineData && e.attributesSize() <= maxInlineAttributes
}
