package control

import (
	"net/http"
	"time"
)

// streamLimits bounds the streams open at once: those that one tenant's keys opened,
// those of all tenants' keys, and, apart, those of the platform's, which must not find
// all places taken by tenants, nor take a tenant's.
type streamLimits struct{ tenant, tenants, platform int }

// check says why there can't be one more, as a failure.
func (l streamLimits) check(open map[*subscriber]struct{}, next streamOf) error {
	var tenant, tenants, platform int
	for u := range open {
		switch {
		case u.platform:
			platform++
		case u.tenant == next.tenant:
			tenant++
			tenants++
		default:
			tenants++
		}
	}
	switch {
	case next.platform && platform >= l.platform:
		return noStream(http.StatusServiceUnavailable, "%d streams are open here with keys of the platform, at most %d are allowed", platform, l.platform)
	case next.platform:
		return nil
	case tenant >= l.tenant:
		return noStream(http.StatusTooManyRequests, "the tenant has %d streams open here, at most %d are allowed", tenant, l.tenant)
	case tenants >= l.tenants:
		return noStream(http.StatusServiceUnavailable, "no more streams can be opened here now")
	}
	return nil
}

func noStream(status int, format string, args ...any) *failure {
	f := refuse(status, codeTooManyStreams, format, args...)
	f.retryAfter = 5 * time.Second
	return f
}
