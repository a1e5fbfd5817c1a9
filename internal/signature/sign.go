package signature

import (
	"crypto/sha256"
	"strconv"
	"time"
)

// The headers of Standard Webhooks, in the canonical form of net/http: they can
// be used as keys of an http.Header directly.
const (
	// HeaderID carries the webhook id, the same for every attempt.
	HeaderID = "Webhook-Id"
	// HeaderTimestamp carries the time of the attempt in Unix seconds.
	HeaderTimestamp = "Webhook-Timestamp"
	// HeaderSignature carries the signatures, separated by spaces.
	HeaderSignature = "Webhook-Signature"
)

const (
	version  = "v1,"  // HMAC-SHA256
	versionA = "v1a," // ed25519
	// standardTemplate is what Standard Webhooks signs.
	standardTemplate = "{id}.{timestamp}.{body}"
	// signatureLen is the length of a v1 signature: version and base64 of the MAC.
	signatureLen = len(version) + (sha256.Size+2)/3*4
)

// Sign returns the value of the webhook-signature header: for each key, in
// order, v1 and the base64 of HMAC-SHA256 over "id.timestamp.body", or v1a and
// that of the ed25519 signature over the same, separated by spaces. Of timestamp
// only the whole seconds count. The body must be the exact bytes that are sent.
// Without keys the value is empty.
func Sign(keys []Key, id string, timestamp time.Time, body []byte) string {
	var digits [20]byte
	stamp := string(strconv.AppendInt(digits[:0], timestamp.Unix(), 10))
	s := shared().standard
	return s.value(&s.forms[0], keys, &Message{ID: id, Body: body}, stamp)
}

// Timestamp returns the value of the webhook-timestamp header for t.
func Timestamp(t time.Time) string {
	return strconv.FormatInt(t.Unix(), 10)
}
