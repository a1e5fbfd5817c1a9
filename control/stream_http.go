package control

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"

	"github.com/postrider/postrider/schemas"
)

type streamInput struct {
	TenantPath
	Endpoint string `query:"endpoint" maxLength:"64" doc:"Only attempts of this endpoint."`
	Outcome  string `query:"outcome" enum:"delivered,retry,exhausted,expired,cancelled,repeat,rejected,lost_by_retention" doc:"Only attempts that ended so."`
}

type streamOutput struct {
	Body func(huma.Context)
}

func (s *Server) registerStream(api huma.API) {
	const path = "/v1/tenants/{tenant}/attempts/stream"
	handle(s, api, operation{
		method: http.MethodGet, path: path, id: "stream-attempts", tag: "attempts", status: http.StatusOK,
		summary: "Follow the attempts as they are made",
		description: "Server-sent events: attempt (data: the record of the topic attempts, id: its place), " +
			"dropped (data: {\"count\": n}) where this reader was too slow, and comments as a sign of life. It begins now: nothing of the past is sent.",
	}, s.streamAttempts)
	ok := api.OpenAPI().Paths[path].Get.Responses["200"]
	ok.Content = map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}}
}

func (s *Server) streamAttempts(ctx context.Context, in *streamInput) (*streamOutput, error) {
	if _, err := s.existing(ctx, in.Tenant); err != nil {
		return nil, err
	}
	u, err := s.hub.add(streamOf{
		tenant: in.Tenant, endpoint: in.Endpoint, outcome: schemas.Outcome(in.Outcome), platform: callOf(ctx).platform(),
	})
	if err != nil {
		return nil, err
	}
	return &streamOutput{Body: func(ctx huma.Context) {
		ctx.SetStatus(http.StatusOK)
		ctx.SetHeader("Content-Type", "text/event-stream")
		ctx.SetHeader("X-Accel-Buffering", "no")
		humafiber.Unwrap(ctx).Context().SetBodyStreamWriter(func(w *bufio.Writer) { s.feed(w, u) })
	}}, nil
}

// feed writes the stream until the client or the server ends it. A client that
// left is noticed by the next write, a heartbeat at the latest.
func (s *Server) feed(w *bufio.Writer, u *subscriber) {
	defer s.hub.remove(u)
	heartbeat := time.NewTicker(s.cfg.Heartbeat)
	defer heartbeat.Stop()
	ready := u.ready
	if !send(w, []byte("retry: 2000\n: connected\n\n")) {
		return
	}
	for {
		var out []byte
		select {
		case <-s.hub.over:
			return
		case <-ready:
			ready, out = nil, []byte(": ready\n\n")
		case <-heartbeat.C:
			out = []byte(": alive\n\n")
		case out = <-u.attempts:
		}
		if n := u.dropped.Swap(0); n > 0 {
			out = append(fmt.Appendf(nil, "event: dropped\ndata: {\"count\":%d}\n\n", n), out...)
		}
		if !send(w, out) {
			return
		}
	}
}

func send(w *bufio.Writer, out []byte) bool {
	if _, err := w.Write(out); err != nil {
		return false
	}
	return w.Flush() == nil
}
