package control

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/postrider/postrider/schemas"
)

// Bounds of fetching events.
const (
	// maxFetches bounds the events that are read at once: each may unpack a batch
	// of up to broker.MaxBatchBytes.
	maxFetches = 8
	// fetchWait is how long a fetch waits for its turn.
	fetchWait = 3 * time.Second
	// oneBatch asks the point reader for no more than the batch that has the event.
	oneBatch = 1
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

// readEvent reads the event from its place in Kafka, one of a bounded number at
// once.
func (s *Server) readEvent(ctx context.Context, ticket *schemas.Ticket) ([]byte, error) {
	turn := time.NewTimer(fetchWait)
	defer turn.Stop()
	select {
	case s.fetches <- struct{}{}:
		defer func() { <-s.fetches }()
	case <-turn.C:
		f := refuse(http.StatusServiceUnavailable, codeBusy, "too many events are being fetched")
		f.retryAfter = time.Second
		return nil, f
	case <-ctx.Done():
		return nil, unavailable(ctx.Err())
	}
	gone := refuse(http.StatusGone, codeEventGone, "the event is no longer kept")
	at := ticket.Position
	slice, err := s.reader.Read(ctx, s.topics.Events, at.Partition, at.Offset, oneBatch)
	if errors.Is(err, kerr.OffsetOutOfRange) {
		return nil, gone
	}
	if err != nil {
		f := unavailable(err)
		f.detail = "the event can't be read now"
		return nil, f
	}
	for _, r := range slice.Records {
		if r.Offset != at.Offset {
			continue
		}
		ev, err := schemas.DecodeEvent(r.Value, r.Headers)
		if err != nil || ev.EventID() != ticket.Event {
			break // another log under the same name
		}
		return schemas.AppendPublic(nil, &ev, false), nil
	}
	return nil, gone
}
