package ingest

import (
	"github.com/gofiber/fiber/v2"

	"github.com/postrider/postrider/internal/httpd"
)

// result is what an answer says about one event: the body of a 202 for one, an
// element of results for a batch.
type result struct {
	// Status is the event's own HTTP status; only in batches.
	Status int `json:"status,omitempty"`
	// ID is the event id, which receivers see as webhook-id.
	ID            string `json:"id,omitempty"`
	CloudEventsID string `json:"cloudevents_id,omitempty"`
	// Position is where the event stands in the log.
	Position string `json:"position,omitempty"`
	// Problem is why the event was not accepted.
	Problem *httpd.Problem `json:"problem,omitempty"`
}

// batchAnswer is the body of a 202 or 207 to a batch.
type batchAnswer struct {
	// Accepted is the number of events with status 202.
	Accepted int `json:"accepted"`
	// Results holds one result per event, in the order of the request.
	Results []result `json:"results"`
}

// batchProblem is the body of a 429 or 503 to a batch of which nothing was
// accepted.
type batchProblem struct { //nolint:errname // a problem, in the word of RFC 9457
	httpd.Problem
	batchAnswer
}

func answer(c *fiber.Ctx, in *intake) error {
	if in.many {
		return answerMany(c, in)
	}
	it := &in.items[0]
	if p := it.problem; p != nil {
		if retryable(p.Status) {
			p.EventID, p.CloudEventsID = it.id, it.event.ID
		}
		return p
	}
	return sendJSON(c, fiber.StatusAccepted, result{
		ID: it.id, CloudEventsID: it.event.ID, Position: it.position.String(),
	})
}

func answerMany(c *fiber.Ctx, in *intake) error {
	body := batchAnswer{Results: make([]result, len(in.items))}
	for i := range in.items {
		it, r := &in.items[i], &body.Results[i]
		if it.problem == nil {
			body.Accepted++
			*r = result{Status: fiber.StatusAccepted, ID: it.id, CloudEventsID: it.event.ID, Position: it.position.String()}
			continue
		}
		p := it.problem.Complete()
		*r = result{Status: p.Status, ID: it.id, CloudEventsID: it.event.ID, Problem: &p}
	}
	if body.Accepted == len(in.items) {
		return sendJSON(c, fiber.StatusAccepted, body)
	}
	if p := in.commonProblem(); p != nil {
		whole := batchProblem{Problem: p.Complete(), batchAnswer: body}
		whole.Errors, whole.RequestID = nil, httpd.RequestID(c)
		out, err := httpd.EncodeJSON(&whole)
		if err != nil {
			return err
		}
		return httpd.SendProblem(c, &whole.Problem, out)
	}
	return sendJSON(c, fiber.StatusMultiStatus, body)
}

// commonProblem returns the problem of all events, if each was turned away for
// now and for the same reason. Then the whole request can be repeated, and a
// sender that looks at nothing but the status does so.
func (in *intake) commonProblem() *httpd.Problem {
	if len(in.items) == 0 {
		return nil
	}
	first := in.items[0].problem
	for i := range in.items {
		p := in.items[i].problem
		if p == nil || !retryable(p.Status) || p.Code != first.Code {
			return nil
		}
	}
	return first
}

func retryable(status int) bool {
	return status == fiber.StatusServiceUnavailable || status == fiber.StatusTooManyRequests
}

func sendJSON(c *fiber.Ctx, status int, body any) error {
	out, err := httpd.EncodeJSON(body)
	if err != nil {
		return err
	}
	c.Status(status).Set(fiber.HeaderContentType, fiber.MIMEApplicationJSON)
	return c.Send(out)
}
