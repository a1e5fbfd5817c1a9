package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

// post sends a body of many events and returns the ids of the answer, in order.
func (g *gateway) post(contentType string, body []byte) ([]string, error) {
	req, err := http.NewRequest(http.MethodPost, "http://"+g.proc("ingest-1").listen+"/v1/events", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+adminKey)
	req.Header.Set("Content-Type", contentType)
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusAccepted {
		return nil, fmt.Errorf("%d: %.500s (%w)", resp.StatusCode, answer, err)
	}
	var got struct {
		Results []struct {
			ID string `json:"id"`
		} `json:"results"`
	}
	if err := json.Unmarshal(answer, &got); err != nil {
		return nil, err
	}
	ids := make([]string, len(got.Results))
	for i, item := range got.Results {
		ids[i] = item.ID
	}
	return ids, nil
}

// truth is what the topics say.
type truth struct {
	deliveries map[string]int             // delivery id → records of attempt 1
	pairs      map[string]int             // event/endpoint → deliveries made
	outcomes   map[string]int             // delivery/attempt → outcomes, without repeats
	ends       map[schemas.Outcome]int    // how often each outcome
	final      map[string]schemas.Outcome // event/endpoint → how it ended
	repeats    int                        // records dropped as copies
}

// truth reads deliveries and attempts.
func (g *gateway) truth() truth {
	g.t.Helper()
	tr := truth{
		deliveries: map[string]int{}, pairs: map[string]int{}, outcomes: map[string]int{},
		ends: map[schemas.Outcome]int{}, final: map[string]schemas.Outcome{},
	}
	topics := g.broker().Topics()
	g.scan(topics.Deliveries, func(r *kgo.Record) {
		d, err := schemas.DecodeDelivery(r.Key, r.Value, r.Headers)
		if err != nil {
			g.t.Errorf("delivery record: %v", err)
			return
		}
		if d.Attempt == 1 {
			tr.deliveries[d.ID]++
			tr.pairs[d.EventID+"/"+d.Endpoint]++
		}
	})
	g.scan(topics.Attempts, func(r *kgo.Record) {
		a, err := schemas.DecodeAttempt(r.Value)
		if err != nil {
			g.t.Errorf("attempt record: %v", err)
			return
		}
		tr.ends[a.Outcome]++
		if a.Outcome == schemas.OutcomeRepeat {
			tr.repeats++
			return
		}
		tr.outcomes[schemas.AttemptID(a.Delivery, a.Attempt)]++
		if a.Outcome.Final() && a.Event != "" { // what can't be read has no event
			tr.final[a.Event+"/"+a.Endpoint] = a.Outcome
		}
	})
	return tr
}

// check holds what must be true after any disturbance: every accepted event
// became one delivery per endpoint, no delivery record was made twice, and each
// attempt has one recorded outcome. twice allows for attempts whose outcome was
// on its way to Kafka when its worker was killed (P3): they may have two.
func (tr *truth) check(g *gateway, events, endpoints []string, twice int) {
	g.t.Helper()
	bad := 0
	complain := func(format string, args ...any) {
		if bad++; bad <= 10 {
			g.t.Errorf(format, args...)
		}
	}
	for _, e := range events {
		for _, ep := range endpoints {
			if n := tr.pairs[e+"/"+ep]; n != 1 {
				complain("event %s became %d deliveries for %s", e, n, ep)
			}
			if o := tr.final[e+"/"+ep]; o != schemas.OutcomeDelivered {
				complain("event %s for %s ended as %q", e, ep, o)
			}
		}
	}
	for id, n := range tr.deliveries {
		if n != 1 {
			complain("delivery %s was made %d times", id, n)
		}
	}
	if n := tr.ends[schemas.OutcomeLostByRetention]; n > 0 {
		complain("%d parked records were taken for lost", n)
	}
	double := 0
	for id, n := range tr.outcomes {
		if n != 1 {
			double++
			if double > twice {
				complain("attempt %s has %d outcomes", id, n)
			}
		}
	}
	g.t.Logf("%d events, %d deliveries, %d attempts, outcomes %v, %d copies dropped, %d attempts with two outcomes",
		len(events), len(tr.deliveries), len(tr.outcomes), tr.ends, tr.repeats, double)
}
