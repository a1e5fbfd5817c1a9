package control

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// thinRig is a control role whose API receivers can reach.
type thinRig struct {
	*rig
	seal *registry.Sealer
}

func newThinRig(t *testing.T) *thinRig {
	t.Helper()
	r := newRig(t, func(c *Config) { c.PublicURL = "https://api.example" })
	seal, ok := r.deps.Sealer.(*registry.Sealer)
	if !ok {
		t.Fatal("no sealer that can make tokens")
	}
	return &thinRig{r, seal}
}

// publish writes events as one batch and returns their tickets.
func (r *thinRig) publish(ids ...string) []schemas.Ticket {
	r.t.Helper()
	cl, err := r.kafka.NewClient(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(50*time.Millisecond))
	if err != nil {
		r.t.Fatal(err)
	}
	defer cl.Close()
	var records []*kgo.Record
	var tickets []schemas.Ticket
	for _, id := range ids {
		e := &schemas.Event{ID: id, Source: "/shop", Type: "order.paid", Tenant: "acme", DataContentType: "application/json", Data: []byte(`{"id": "` + id + `"}`)}
		records = append(records, &kgo.Record{
			Topic: r.kafka.Topics().Events, Partition: 1, Value: e.Data, Headers: schemas.AppendEventHeaders[kgo.RecordHeader](nil, e),
		})
		tickets = append(tickets, schemas.Ticket{Tenant: "acme", Event: e.EventID(), ExpiresAt: time.Now().Add(time.Hour).Unix()})
	}
	for i, res := range cl.ProduceSync(r.t.Context(), records...) {
		if res.Err != nil {
			r.t.Fatal(res.Err)
		}
		tickets[i].Position = schemas.Position{Partition: 1, Offset: res.Record.Offset}
	}
	return tickets
}

// fetch asks for an event without any key.
func (r *thinRig) fetch(event, token string) reply {
	r.t.Helper()
	return r.call(http.MethodGet, "/v1/events/"+event+"?"+url.Values{"token": {token}}.Encode(), nil, func(q *http.Request) { q.Header.Del("Authorization") })
}

func (r *thinRig) token(t schemas.Ticket) string {
	r.t.Helper()
	token, err := r.seal.SealToken(t.Encode())
	if err != nil {
		r.t.Fatal(err)
	}
	return token
}

// TestFetchEvent: a ticket gets its own event, whole, and nothing but that.
func TestFetchEvent(t *testing.T) {
	r := newThinRig(t)
	tickets := r.publish("a", "b", "c")
	for i, ticket := range tickets {
		got := r.fetch(ticket.Event, r.token(ticket))
		want := map[string]any{
			"specversion": "1.0", "id": string(rune('a' + i)), "source": "/shop", "type": "order.paid", "datacontenttype": "application/json",
			"data": map[string]any{"id": string(rune('a' + i))},
		}
		if diff := cmp.Diff(want, got.body); got.status != http.StatusOK || diff != "" {
			t.Errorf("%d %s (-want +got):\n%s", got.status, got.raw, diff)
		}
		if got.header.Get("Content-Type") != schemas.ContentTypeStructured || got.header.Get("Cache-Control") != "no-store" || !strings.Contains(string(got.raw), `{"id": "`) {
			t.Errorf("%v %s", got.header, got.raw)
		}
	}
	inline := schemas.Ticket{Tenant: "acme", Event: "evt_t", ExpiresAt: time.Now().Add(time.Hour).Unix(), Inline: json.RawMessage(`{"id":"t"}`)}
	if got := r.fetch("evt_t", r.token(inline)); got.status != http.StatusOK || got.text("id") != "t" {
		t.Errorf("an event that no topic has: %d %s", got.status, got.raw)
	}
}

// TestBadTickets: every bad token has the same answer; an event that Kafka no
// longer has is gone.
func TestBadTickets(t *testing.T) {
	r := newThinRig(t)
	deleted := r.publish("z")[0]
	tickets := r.publish("a", "b", "c", "d")
	first, last := tickets[0], tickets[3]
	good := r.token(last)
	refused := r.fetch(last.Event, "x")
	delete(refused.body, "request_id")
	for name, q := range map[string][2]string{
		"none": {last.Event, ""}, "no base64": {last.Event, "%"}, "cut": {last.Event, good[:20]}, "longer": {last.Event, good + "A"},
		"of another event": {first.Event, good}, "of no ticket": {last.Event, r.sealed("not a ticket")},
		"a sealed secret": {last.Event, strings.TrimRight(r.secret(), "=")}, "an API key": {last.Event, adminKey},
	} {
		got := r.fetch(q[0], q[1])
		delete(got.body, "request_id")
		if diff := cmp.Diff(refused.body, got.body); diff != "" || got.status != http.StatusUnauthorized || got.text("code") != "invalid_token" {
			t.Errorf("%s: %d (-want +got):\n%s", name, got.status, diff)
		}
	}
	elsewhere, above, ended := last, last, last
	elsewhere.Position = first.Position
	above.Position.Offset += 1000
	ended.ExpiresAt = time.Now().Add(-time.Second).Unix()
	for name, tt := range map[string]struct {
		ticket schemas.Ticket
		code   string
	}{"expired": {ended, "token_expired"}, "another event there": {elsewhere, "event_gone"}, "above the end": {above, "event_gone"}} {
		if got := r.fetch(tt.ticket.Event, r.token(tt.ticket)); got.status != http.StatusGone || got.text("code") != tt.code {
			t.Errorf("%s: %d %s", name, got.status, got.raw)
		}
	}
	cut := kadm.Offsets{}
	cut.AddOffset(r.kafka.Topics().Events, 1, first.Position.Offset, -1)
	if _, err := kadm.NewClient(r.client).DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	if got := r.fetch(deleted.Event, r.token(deleted)); got.status != http.StatusGone || got.text("code") != "event_gone" {
		t.Errorf("deleted by retention: %d %s", got.status, got.raw)
	}
	if got := r.fetch(last.Event, good); got.status != http.StatusOK {
		t.Errorf("what is left: %d %s", got.status, got.raw)
	}
}

func (r *thinRig) sealed(text string) string {
	r.t.Helper()
	token, err := r.seal.SealToken([]byte(text))
	if err != nil {
		r.t.Fatal(err)
	}
	return token
}

func (r *thinRig) secret() string {
	r.t.Helper()
	sealed, err := r.seal.Seal([]byte("x"), "acme", "ep_1", registry.SecretField)
	if err != nil {
		r.t.Fatal(err)
	}
	return sealed
}

// TestFetchesAreBounded: those above the bound wait for a place, and are told to
// come again if there is none. A tenant that has all of its places, or too many that
// wait, holds up nobody else, and what was read is there for all.
func TestFetchesAreBounded(t *testing.T) {
	r := newThinRig(t)
	event := func(id, tenant string) schemas.Ticket {
		ticket := r.publish(id)[0]
		ticket.Tenant = tenant
		return ticket
	}
	a, other := event("a", "acme"), event("b", "other")
	busy := func(name string) {
		t.Helper()
		if got := r.fetch(a.Event, r.token(a)); got.status != http.StatusServiceUnavailable || got.text("code") != "busy" || got.header.Get("Retry-After") != "1" {
			t.Errorf("%s: %d %s", name, got.status, got.raw)
		}
	}
	var leave []func()
	for range maxTenantFetches {
		one, err := r.server.gate.enter(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, one)
	}
	busy("no place for the tenant")
	if got := r.fetch(other.Event, r.token(other)); got.status != http.StatusOK {
		t.Errorf("another tenant: %d %s", got.status, got.raw)
	}
	for range maxTenantFetchers - maxTenantFetches {
		r.server.gate.join("acme")
	}
	busy("too many wait")
	for range maxTenantFetchers - maxTenantFetches {
		r.server.gate.part("acme", r.server.gate.tenants["acme"])
	}
	leave[0]()
	var group sync.WaitGroup
	for range 4 { // each has 3 s to come to its turn
		group.Go(func() {
			if got := r.fetch(a.Event, r.token(a)); got.status != http.StatusOK {
				t.Errorf("one place for all: %d %s", got.status, got.raw)
			}
		})
	}
	group.Wait()
	leave[1]()
	if n := len(r.server.gate.tenants); n != 0 || len(r.server.gate.places) != 0 {
		t.Errorf("%d tenants and %d places are left behind", n, len(r.server.gate.places))
	}
	for range maxFetches {
		r.server.gate.places <- struct{}{}
	}
	a = event("c", "acme")
	busy("no place at all")
	if got := r.fetch(other.Event, r.token(other)); got.status != http.StatusOK {
		t.Errorf("in memory: %d %s", got.status, got.raw)
	}
}

// TestThinNeedsPublicURL: with it the format can be set; TestBadReceivers has it
// refused without.
func TestThinNeedsPublicURL(t *testing.T) {
	r := newThinRig(t)
	made := r.must(http.StatusCreated, http.MethodPost, r.tenant("acme")+"/endpoints", `{"url":"https://example.com/","format":"thin"}`)
	if made.text("format") != "thin" {
		t.Errorf("%s", made.raw)
	}
}
