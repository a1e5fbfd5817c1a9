package deliver

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/deliver/wheel"
	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/schemas"
)

// Error classes of an answer; together with the classes of egress they are the
// closed set of values of an attempt's field error.
const (
	errorRedirect    = "http_3xx"
	errorClient      = "http_4xx"
	errorServer      = "http_5xx"
	errorGone        = "gone"
	errorBusy        = "too_many_requests"
	errorUnavailable = "unavailable"
	errorMaxAge      = "max_age"
)

// Reasons of deliveries that end without an attempt; they stand in the same
// field.
const (
	endedByHand  = "by_hand"
	endedDeleted = "endpoint_deleted"
	endedLost    = "retention"
)

// Why an endpoint was disabled, in its health.
const (
	disabledGone    = "gone"
	disabledFailing = "failing"
)

// verdict is what an attempt's result means, for the delivery and for its lane.
type verdict struct {
	outcome schemas.Outcome
	class   string // error class, empty when delivered
	levels  uint32 // wheel levels of the next attempt's delay
	// hold is how long the whole lane waits (Retry-After).
	hold time.Duration
	// disable says that the receiver wants no more (410).
	disable bool
	// congested says that the lane should make do with fewer attempts at once.
	congested bool
	// undone says that the attempt did not happen, for a reason of ours: it is
	// made again under the same number.
	undone bool
}

// judge classifies the result of an attempt. It is the outcome table of
// docs/delivery.md: 2xx is success; everything else is retried on the
// endpoint's schedule until that is exhausted; 410 disables the endpoint; 429
// and 503 hold the lane for Retry-After.
func judge(t *target, d *schemas.Delivery, res *egress.Result, now time.Time) verdict {
	v := verdict{class: errorClass(res)}
	if v.class == "" {
		v.outcome = schemas.OutcomeDelivered
		return v
	}
	switch v.class {
	case string(egress.ClassLocal), string(egress.ClassCanceled):
		v.undone = true
		return v
	case errorGone:
		v.disable = true
	case errorBusy, errorUnavailable:
		v.congested = true
		v.hold = retryAfter(res.RetryAfter, now)
	}
	if res.Err != nil && res.Err.Timeout {
		v.congested = true
	}
	if d.Attempt > len(t.schedule) && !t.blocks {
		v.outcome = schemas.OutcomeExhausted
		return v
	}
	v.outcome = schemas.OutcomeRetry
	step := t.schedule[min(d.Attempt, len(t.schedule))-1]
	v.levels = wheel.Delay(max(step, v.hold), d.ID, d.Attempt)
	if v.hold >= step { // maxRetryAfter bounds what the receiver has of it, too
		v.levels = min(v.levels, uint32(maxRetryAfter/time.Second))
	}
	return v
}

// errorClass returns the class of a failure, or "" for success.
func errorClass(res *egress.Result) string {
	switch {
	case res.Err != nil:
		return string(res.Err.Class)
	case res.Status >= 200 && res.Status < 300:
		return ""
	case res.Status == http.StatusGone:
		return errorGone
	case res.Status == http.StatusTooManyRequests:
		return errorBusy
	case res.Status == http.StatusServiceUnavailable:
		return errorUnavailable
	case res.Status >= 500:
		return errorServer
	case res.Status >= 400:
		return errorClient
	case res.Status >= 300:
		return errorRedirect
	}
	return string(egress.ClassProtocol) // egress hands no interim answer on
}

// retryAfter reads a Retry-After header (RFC 9110, section 10.2.3): seconds or
// a date, at most an hour. What can't be read is no wait.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	var wait time.Duration
	if n, err := strconv.ParseUint(value, 10, 32); err == nil {
		wait = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}
