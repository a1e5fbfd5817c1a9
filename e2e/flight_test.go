package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postrider/postrider/schemas"
)

// slowSink holds requests until it is released, and counts those that it holds.
func slowSink(t *testing.T) (s *sink, held *atomic.Int64, release func()) {
	t.Helper()
	held = &atomic.Int64{}
	open := make(chan struct{})
	s = newSink(t, func(r *http.Request) int {
		held.Add(1)
		defer held.Add(-1)
		select {
		case <-open:
		case <-r.Context().Done():
		}
		return http.StatusOK
	})
	return s, held, func() { close(open) }
}

// Deleted with attempts in flight: these finish and count, everything that
// waits ends as cancelled, and nothing more is sent.
func TestDeletedInFlight(t *testing.T) {
	const events, flying = 50, 2
	g := newGateway(t).startAll()
	g.tenant()
	s, held, release := slowSink(t)
	endpoint := g.endpoint(s.URL, settings{"max_in_flight": flying, "timeout": "60s"})
	ids := g.batch("order.paid", events)
	eventually(t, time.Minute, "two are in flight and the others parked", func() bool {
		return held.Load() == flying && g.lanesOf(endpoint).parked == events-flying
	})
	g.insist("DELETE", "/v1/tenants/acme/endpoints/"+endpoint, nil, nil)
	ends := func() (delivered, cancelled int) {
		for _, a := range g.attemptsOf()[endpoint] {
			switch {
			case a.Outcome == schemas.OutcomeDelivered:
				delivered++
			case a.Outcome == schemas.OutcomeCancelled && a.Error == "endpoint_deleted":
				cancelled += max(1, int(a.Count))
			default:
				t.Errorf("outcome %s %s", a.Outcome, a.Error)
			}
		}
		return delivered, cancelled
	}
	eventually(t, time.Minute, "what waits is cancelled", func() bool { _, cancelled := ends(); return cancelled == events-flying })
	release()
	eventually(t, time.Minute, "what was in flight counts", func() bool { delivered, _ := ends(); return delivered == flying })
	if n := len(s.arrivals()); n != flying {
		t.Errorf("%d of %d events were sent, want the %d in flight", n, len(ids), flying)
	}
}

// Paused with attempts in flight: these finish, nothing more is sent until the
// endpoint is resumed, and then everything is, once.
func TestPausedInFlight(t *testing.T) {
	const events, flying = 50, 2
	g := newGateway(t).startAll()
	g.tenant()
	s, held, release := slowSink(t)
	endpoint := g.endpoint(s.URL, settings{"max_in_flight": flying, "timeout": "60s"})
	ids := g.batch("order.paid", events)
	eventually(t, time.Minute, "two are in flight and the others parked", func() bool {
		return held.Load() == flying && g.lanesOf(endpoint).parked == events-flying
	})
	g.verb(endpoint, "pause")
	// The worker learns it from the log, at the latest for a delivery made after it.
	ids = append(ids, g.batch("order.paid", 1)...)
	eventually(t, time.Minute, "what came after the pause is parked, too", func() bool { return g.lanesOf(endpoint).parked == len(ids)-flying })
	release()
	eventually(t, time.Minute, "what was in flight counts", func() bool { return len(g.attemptsOf()[endpoint]) == flying })
	wait(t.Context(), 2*time.Second)
	if n := len(s.arrivals()); n != flying {
		t.Errorf("%d requests, want the %d in flight", n, flying)
	}
	g.verb(endpoint, "resume")
	eventually(t, time.Minute, "everything arrives", func() bool { return len(s.missing(ids)) == 0 })
	tr := g.settledTruth(len(ids))
	tr.check(g, ids, []string{endpoint}, 0)
	if s.repeats() > 0 {
		t.Errorf("%d requests were repeated", s.repeats())
	}
}

// Edited while its deliveries wait for their retries and in the lane: the next
// attempts go to the new URL, signed with the new secret alone.
func TestEditedInFlight(t *testing.T) {
	const events = 8 // fewer failures than open a breaker
	g := newGateway(t).startAll()
	g.tenant()
	before, after := newSink(t, func(*http.Request) int { return http.StatusInternalServerError }), newSink(t, nil)
	before.keep, after.keep = true, true
	endpoint := g.endpoint(before.URL, settings{"max_in_flight": 1, "retry": map[string]any{"schedule": []string{"4s", "4s"}}})
	first := g.secret(endpoint)
	ids := g.batch("order.paid", events)
	eventually(t, time.Minute, "all have failed once", func() bool { return len(before.arrivals()) >= events })
	path := "/v1/tenants/acme/endpoints/" + endpoint
	// The URL last: what comes to the new one is signed with the new secret.
	g.insist("POST", path+"/rotate-secret", settings{"overlap": "0s"}, nil)
	g.insist("PATCH", path, settings{"url": after.URL}, nil)
	second := g.secret(endpoint)
	eventually(t, time.Minute, "everything arrives at the new URL", func() bool { return len(after.missing(ids)) == 0 })
	if first == second {
		t.Fatal("the secret is the same")
	}
	checkSigned(t, before.arrivals()[:1], first, second)
	checkSigned(t, after.arrivals(), second, first)
	attempts := map[string]bool{}
	for _, a := range after.arrivals() {
		attempts[a.Attempt] = true
	}
	if attempts["1"] {
		t.Error("a first attempt came to the new URL: there was none left")
	}
	if tr := g.settledTruth(events); tr.ends[schemas.OutcomeDelivered] != events {
		t.Errorf("outcomes %v", tr.ends)
	}
}

// checkSigned holds that requests are signed with one secret and not with another.
func checkSigned(t *testing.T, requests []arrival, with, without string) {
	t.Helper()
	for _, a := range requests {
		body, err := base64.StdEncoding.DecodeString(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		given := a.Header.Get("Webhook-Signature")
		if given != macOf(t, with, &a, body) {
			t.Errorf("request %s attempt %s is not signed with its secret: %s", a.ID, a.Attempt, given)
		}
		if given == macOf(t, without, &a, body) {
			t.Errorf("request %s attempt %s is signed with the other secret", a.ID, a.Attempt)
		}
	}
}

// macOf is the signature that a request must have, after Standard Webhooks.
func macOf(t *testing.T, secret string, a *arrival, body []byte) string {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, key)
	_, _ = fmt.Fprintf(mac, "%s.%s.%s", a.ID, a.Header.Get("Webhook-Timestamp"), body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
