package deliver

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/telemetry"
)

// readiness returns what /readyz says of the worker; "" if nothing is wrong.
func (l *life) readiness() string {
	var out []string
	for _, c := range l.w.deps.Health.Ready(l.ctx).Checks {
		if c.Status != telemetry.StatusOK {
			out = append(out, c.Name+": "+c.Detail)
		}
	}
	return strings.Join(out, "\n")
}

// A partition whose take-over can't succeed fails readiness, with the reason,
// until it does.
func TestTakeOverThatFailsIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return false }
		s.endpoint(registry.Endpoint{ID: "ep_1"})
		broken := &kgo.Record{Topic: s.topics.Lanes, Key: chunkKey("ep_1", 1, 1), Value: []byte("\x01\xff")}
		s.append(&kgo.Record{Topic: s.topics.Lanes, Key: readyRecordKey(1), Value: ownerValue("w")})
		s.append(broken)
		l := s.start("w0")
		sleep(t.Context(), takeOverLimit/2)
		if got := l.readiness(); got != "" {
			t.Errorf("not ready after %s: %s", takeOverLimit/2, got)
		}
		sleep(t.Context(), takeOverLimit)
		if got := l.readiness(); !strings.Contains(got, "deliver: partition 0 is being taken over for") || !strings.Contains(got, "malformed chunk") {
			t.Errorf("readiness says %q", got)
		}
		s.append(&kgo.Record{Topic: s.topics.Lanes, Key: broken.Key})
		sleep(t.Context(), 10*time.Second)
		if got := l.readiness(); got != "" {
			t.Errorf("not ready once the chunk is gone: %s", got)
		}
		l.die()
	})
}

// A worker whose commits are not taken has no lease and starts nothing: that fails
// readiness, too.
func TestRefusedCommitsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		s.failing = func(string, int) bool { return false }
		s.endpoint(registry.Endpoint{ID: "ep_1"})
		l := s.start("w0")
		refuse := func(refuse bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.refuse = refuse
		}
		sleep(t.Context(), 2*commitLimit)
		if got := l.readiness(); got != "" {
			t.Errorf("not ready: %s", got)
		}
		refuse(true)
		sleep(t.Context(), 2*commitLimit)
		if got := l.readiness(); !strings.Contains(got, "deliver: partition 0 has no accepted commit for") {
			t.Errorf("readiness says %q", got)
		}
		refuse(false)
		sleep(t.Context(), 2*time.Second)
		if got := l.readiness(); got != "" {
			t.Errorf("not ready with commits: %s", got)
		}
		l.die()
	})
}
