package signature

import (
	"crypto/hmac"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// DefaultTolerance is the clock difference that the specification proposes.
const DefaultTolerance = 5 * time.Minute

// maxTimestamp keeps a timestamp far from the limits of time.Time (year 9999).
const maxTimestamp = 253402300799

// The reasons why Verify refuses a request.
var (
	ErrMissingHeader = errors.New("missing webhook header")
	ErrBadTimestamp  = errors.New("webhook-timestamp is not a time in Unix seconds")
	ErrTooOld        = errors.New("webhook-timestamp is too old")
	ErrTooNew        = errors.New("webhook-timestamp is in the future")
	ErrNoMatch       = errors.New("no signature matches")
)

// Verify reports whether one of the keys signed the request: nil if so, else an
// error that wraps one of the errors above. A timestamp that differs from now by
// exactly the tolerance is still good. Signatures of other versions than v1 are
// passed over. The comparison takes the same time wherever signatures differ.
func Verify(keys []Key, header http.Header, body []byte, now time.Time, tolerance time.Duration) error {
	id, stamp, given := header.Get(HeaderID), header.Get(HeaderTimestamp), header.Get(HeaderSignature)
	for _, h := range [...]struct{ name, value string }{
		{HeaderID, id}, {HeaderTimestamp, stamp}, {HeaderSignature, given},
	} {
		if h.value == "" {
			return fmt.Errorf("%w: %s", ErrMissingHeader, strings.ToLower(h.name))
		}
	}
	seconds, err := parseTimestamp(stamp)
	if err != nil {
		return err
	}
	switch age := now.Sub(time.Unix(seconds, 0)); {
	case age > tolerance:
		return ErrTooOld
	case age < -tolerance:
		return ErrTooNew
	}
	for _, key := range keys {
		want := key.appendSignature(nil, id, seconds, body)
		for candidate := range strings.SplitSeq(given, " ") {
			if hmac.Equal([]byte(candidate), want) {
				return nil
			}
		}
	}
	return ErrNoMatch
}

// parseTimestamp accepts digits without sign or leading zero only: the text that
// was signed must be the text that is signed here again.
func parseTimestamp(s string) (int64, error) {
	seconds, err := strconv.ParseInt(s, 10, 64)
	if err != nil || seconds <= 0 || seconds > maxTimestamp || s[0] < '1' || s[0] > '9' {
		return 0, ErrBadTimestamp
	}
	return seconds, nil
}
