package signature

import (
	"crypto/sha256"
	"encoding/base64"
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
	version = "v1,"
	// signatureLen is the length of one signature: version and base64 of the MAC.
	signatureLen = len(version) + (sha256.Size+2)/3*4
)

// Sign returns the value of the webhook-signature header: for each key, in
// order, v1 and the base64 of HMAC-SHA256 over "id.timestamp.body", separated by
// spaces. Of timestamp only the whole seconds count. The body must be the exact
// bytes that are sent. Without keys the value is empty.
func Sign(keys []Key, id string, timestamp time.Time, body []byte) string {
	if len(keys) == 0 {
		return ""
	}
	var few [4 * (signatureLen + 1)]byte // four live keys need no second allocation
	value := few[:0]
	seconds := timestamp.Unix()
	for i, key := range keys {
		if i > 0 {
			value = append(value, ' ')
		}
		value = key.appendSignature(value, id, seconds, body)
	}
	return string(value)
}

// Timestamp returns the value of the webhook-timestamp header for t.
func Timestamp(t time.Time) string {
	return strconv.FormatInt(t.Unix(), 10)
}

func (k Key) appendSignature(dst []byte, id string, seconds int64, body []byte) []byte {
	m := k.macs.Get().(*mac)
	defer k.macs.Put(m)
	m.hash.Reset()
	m.prefix = append(m.prefix[:0], id...)
	m.prefix = append(m.prefix, '.')
	m.prefix = strconv.AppendInt(m.prefix, seconds, 10)
	m.prefix = append(m.prefix, '.')
	m.hash.Write(m.prefix)
	m.hash.Write(body)
	dst = append(dst, version...)
	return base64.StdEncoding.AppendEncode(dst, m.hash.Sum(m.sum[:0]))
}
