package schemas

import (
	"encoding/json"
	"time"
)

// Audit is a record of the topic audit: who changed what.
type Audit struct {
	// Version is the format's version.
	Version int `json:"v"`
	// At is when it was written.
	At time.Time `json:"at"`
	// Who is the key, or the part of the gateway; What is what it did, such as
	// endpoint.pause.
	Who  string `json:"who"`
	What string `json:"what"`
	// Tenant and Entity name what was changed.
	Tenant string `json:"tenant"`
	Entity string `json:"entity"`
	// Old and New are the entity before and after, without what is secret; null is
	// "did not exist", "was deleted" or "is not known here".
	Old json.RawMessage `json:"old"`
	New json.RawMessage `json:"new"`
	// Offset is the change's in the topic registry.
	Offset int64 `json:"offset"`
	// RequestID is that of the request, if there was one.
	RequestID string `json:"request_id,omitempty"`
}
