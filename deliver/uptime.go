package deliver

import "time"

// started is a moment of this process.
var started = time.Now() //nolint:gochecknoglobals // never changed

// uptime returns a moment of this process as the time since another one, by the
// clock that nobody sets: where the wall clock is set back by an hour, what was
// measured by it would wait for an hour. It takes a third of the room of a time.
func uptime(now time.Time) time.Duration { return now.Sub(started) }
