package control

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

// Bounds of fetching events.
const (
	// maxFetches bounds the events that are read at once: each may unpack a batch
	// of up to broker.MaxBatchBytes. maxTenantFetches are those of one tenant, and
	// maxTenantFetchers also those of it that wait.
	maxFetches        = 8
	maxTenantFetches  = 2
	maxTenantFetchers = 64
	// fetchWait is how long a fetch waits for its turn.
	fetchWait = 3 * time.Second
	// keptBatches bounds the batches that are kept in memory, in bytes; for keptFor
	// at most, since the events may be deleted meanwhile.
	keptBatches = 64 << 20
	keptFor     = 30 * time.Second
)

// Codes of refused fetches.
const (
	codeInvalidToken = "invalid_token"
	codeTokenExpired = "token_expired"
	codeEventGone    = "event_gone"
)

type fetchInput struct {
	Event string `path:"event" maxLength:"64"`
	Token string `query:"token" maxLength:"8192" doc:"As it stands in the url of the delivery."`
}

// fetched is an event as a receiver gets it.
type fetched struct {
	ContentType  string `header:"Content-Type"`
	CacheControl string `header:"Cache-Control"`
	Body         []byte
}

func (s *Server) registerThin(api huma.API) {
	const path = "/v1/events/{event}"
	handle(s, api, operation{
		method: http.MethodGet, path: path, id: "fetch-event", tag: "events", status: http.StatusOK, access: byTicket,
		summary: "Fetch the event of a thin delivery",
		description: "Needs no key: the token, from the url of a delivery in the format thin, is good for its event alone. " +
			"The answer is a CloudEvent in JSON. It ends, with 410, when the event may no longer be kept.",
	}, s.fetchEvent)
	op := api.OpenAPI().Paths[path].Get
	op.Security = []map[string][]string{{}}
	op.Responses["200"].Content = map[string]*huma.MediaType{schemas.ContentTypeStructured: {Schema: &huma.Schema{Type: huma.TypeObject}}}
}

// fetchEvent answers the event that the token is a ticket for. All that is wrong
// with a token has one answer.
func (s *Server) fetchEvent(ctx context.Context, in *fetchInput) (*fetched, error) {
	bad := refuse(http.StatusUnauthorized, codeInvalidToken, "the token is not valid for this event")
	plain, err := s.deps.Sealer.OpenToken(in.Token)
	if err != nil {
		return nil, bad
	}
	ticket, err := schemas.DecodeTicket(plain)
	if err != nil || ticket.Event != in.Event {
		return nil, bad
	}
	if s.now().Unix() >= ticket.ExpiresAt {
		return nil, refuse(http.StatusGone, codeTokenExpired, "the token has ended")
	}
	body := []byte(ticket.Inline)
	if body == nil {
		if body, err = s.readEvent(ctx, &ticket); err != nil {
			return nil, err
		}
	}
	return &fetched{ContentType: schemas.ContentTypeStructured, CacheControl: "no-store", Body: body}, nil
}

// readEvent reads the event from its place in Kafka.
func (s *Server) readEvent(ctx context.Context, ticket *schemas.Ticket) ([]byte, error) {
	r, err := s.readRecord(ctx, ticket)
	if err != nil {
		return nil, err
	}
	gone := refuse(http.StatusGone, codeEventGone, "the event is no longer kept")
	if r == nil {
		return nil, gone
	}
	ev, err := schemas.DecodeEvent(r.Value, r.Headers)
	if err != nil || ev.EventID() != ticket.Event {
		return nil, gone // another log under the same name
	}
	return schemas.AppendPublic(nil, &ev, false), nil
}

// readRecord returns the record at the ticket's place, nil if there is none. What is
// in memory takes no turn; nor does what came there during the wait.
func (s *Server) readRecord(ctx context.Context, ticket *schemas.Ticket) (*kgo.Record, error) {
	at := ticket.Position
	if r, found := s.events.Cached(s.topics.Events, at.Partition, at.Offset); found {
		return r, nil
	}
	leave, err := s.gate.enter(ctx, ticket.Tenant)
	if err != nil {
		return nil, err
	}
	defer leave()
	r, err := s.events.Record(ctx, s.topics.Events, at.Partition, at.Offset)
	if err != nil {
		f := unavailable(err)
		f.detail = "the event can't be read now"
		return nil, f
	}
	return r, nil
}

func fetchBusy() error {
	f := refuse(http.StatusServiceUnavailable, codeBusy, "too many events are being fetched")
	f.retryAfter = time.Second
	return f
}
