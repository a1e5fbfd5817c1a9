package main

import (
	"time"

	"github.com/valyala/fasthttp"
)

// hangLimit is how long a request hangs at most: longer than any time-out here.
const hangLimit = time.Minute

// conduct is how the endpoints of a run answer: at once with 204, unless a field
// says otherwise.
type conduct struct {
	Hang    bool  `json:"hang,omitempty"`     // accept and never answer
	Status  int   `json:"status,omitempty"`   // instead of 204
	DelayMS int64 `json:"delay_ms,omitempty"` // before the answer

	over chan struct{} // closed when another conduct takes its place
}

// meet waits as the conduct says and returns the status to answer. What hung
// when the conduct ended fails.
func (c *conduct) meet() int {
	delay, status := time.Duration(c.DelayMS)*time.Millisecond, c.Status
	if status == 0 {
		status = fasthttp.StatusNoContent
	}
	if c.Hang {
		delay, status = hangLimit, fasthttp.StatusInternalServerError
	}
	if delay <= 0 {
		return status
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-c.over:
	case <-timer.C:
	}
	return status
}
