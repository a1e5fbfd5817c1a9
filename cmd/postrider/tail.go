package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/schemas"
)

const (
	// maxStreamLine bounds one line, and the data of one event, of a stream.
	maxStreamLine = 1 << 20
	// streamSilence is how long a stream may be quiet: the gateway sends a sign
	// of life every 15 s.
	streamSilence = 45 * time.Second
	minReconnect  = 500 * time.Millisecond
	maxReconnect  = 30 * time.Second
	// maxDetail bounds what is shown of why an attempt failed, in characters: all of
	// it, as the last words may be the ones that say it.
	maxDetail = 300
)

type tailCmd struct {
	connection `embed:""`

	Endpoint string `placeholder:"EP" help:"Only attempts of this endpoint."`
	Outcome  string `default:"" enum:",delivered,retry,exhausted,expired,cancelled,repeat,rejected,lost_by_retention" placeholder:"OUTCOME" help:"Only attempts that ended so: delivered, retry, exhausted, expired, cancelled, repeat, rejected or lost_by_retention."`
}

// Run shows attempts until ctx ends.
func (c *tailCmd) Run(ctx context.Context, conn *connection, std streams) error {
	client, err := conn.client()
	if err != nil {
		return err
	}
	path, err := conn.tenantPath("attempts", "stream")
	if err != nil {
		return err
	}
	query := url.Values{}
	for name, value := range map[string]string{"endpoint": c.Endpoint, "outcome": c.Outcome} {
		if value != "" {
			query.Set(name, value)
		}
	}
	show := attemptPrinter(conn.Output, newTerminal(std.out))
	s := newStream(client, apiRequest{method: http.MethodGet, path: path, query: query}, func(e streamEvent) error {
		switch e.name {
		case "attempt":
			return show([]byte(e.data))
		case "dropped":
			_, _ = fmt.Fprintf(std.err, "This terminal was too slow, attempts were left out: %s\n", clip(e.data, 80))
		}
		return nil
	})
	s.lost = func(err error, again time.Duration) {
		_, _ = fmt.Fprintf(std.err, "Stream interrupted (%v), again in %s.\n", err, again)
	}
	return s.follow(ctx)
}

// attemptPrinter shows records of attempts, one a line.
func attemptPrinter(output string, term *terminal) func([]byte) error {
	if output == "json" {
		return func(data []byte) error {
			_, err := fmt.Fprintf(term.out, "%s\n", data)
			return err
		}
	}
	row := "%-12s  %s  %-29s  %-30s  %-30s  %7s  %6s  %9s  %s"
	term.line(row, "TIME", fmt.Sprintf("%-17s", "OUTCOME"), "ENDPOINT", "EVENT", "TYPE", "ATTEMPT", "STATUS", "TOOK", "DETAIL")
	return func(data []byte) error {
		a, err := schemas.DecodeAttempt(data)
		if err != nil {
			return err
		}
		term.line(row, a.StartedAt.Local().Format("15:04:05.000"), term.paint(outcomeColour(a.Outcome), fmt.Sprintf("%-17s", a.Outcome)),
			clip(a.Endpoint, 29), clip(a.Event, 30), clip(a.Type, 30), strconv.Itoa(a.Attempt), attemptStatus(&a),
			fmt.Sprintf("%.0f ms", a.Duration), attemptDetail(&a))
		return nil
	}
}

func outcomeColour(o schemas.Outcome) string {
	switch o {
	case schemas.OutcomeDelivered:
		return green
	case schemas.OutcomeRetry:
		return yellow
	case schemas.OutcomeRepeat, schemas.OutcomeCancelled:
		return grey
	default:
		return red
	}
}

// attemptStatus is the status that was answered, "-" where nothing was.
func attemptStatus(a *schemas.Attempt) string {
	if a.Status == 0 {
		return "-"
	}
	return strconv.Itoa(a.Status)
}

func attemptDetail(a *schemas.Attempt) string {
	text := a.Detail
	if !strings.HasPrefix(text, a.Error+": ") {
		text = strings.TrimSpace(a.Error + " " + text)
	}
	text = clip(text, maxDetail)
	if a.NextAt != nil {
		text = strings.TrimSpace(text + " next at " + a.NextAt.Local().Format("15:04:05.0"))
	}
	return text
}

// streamEvent is one server-sent event, or a comment.
type streamEvent struct {
	name, data, id, comment string
}

// stream follows server-sent events over interruptions.
type stream struct {
	client  *apiClient
	request apiRequest
	handle  func(streamEvent) error
	lost    func(err error, again time.Duration)
	least   time.Duration // before the first try again
	silence time.Duration
}

func newStream(client *apiClient, r apiRequest, handle func(streamEvent) error) *stream {
	return &stream{
		client: client, request: r, handle: handle, least: minReconnect, silence: streamSilence,
		lost: func(error, time.Duration) {},
	}
}

// handlerError is an error of the handler: the stream ends with it.
type handlerError struct{ error }

// Unwrap returns the handler's error.
func (e handlerError) Unwrap() error { return e.error }

// follow hands on events until ctx ends, which is no error, the handler fails, or
// the gateway refuses for good. Anything else is tried again, at longer and
// longer intervals.
func (s *stream) follow(ctx context.Context) error {
	backoff := s.least
	for {
		alive, err := s.once(ctx)
		var failed handlerError
		var refused *problemError
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // asked to end
		case errors.As(err, &failed):
			return failed.error
		case errors.As(err, &refused) && refused.final():
			return err
		case alive:
			backoff = s.least
		}
		s.lost(err, backoff)
		if !wait(ctx, backoff) {
			return nil
		}
		backoff = min(2*backoff, maxReconnect)
	}
}

// final reports whether a repeat would be refused as well.
func (p *problemError) final() bool {
	return p.Status/100 == 4 && p.Status != http.StatusRequestTimeout && p.Status != http.StatusTooManyRequests
}

// once follows one connection; alive says that anything came.
func (s *stream) once(ctx context.Context) (alive bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(s.silence, func() { cancel(errors.New("no sign of life")) })
	defer watchdog.Stop()
	r := s.request
	r.header = map[string]string{"Accept": "text/event-stream"}
	res, err := s.client.open(ctx, r)
	if err != nil {
		return false, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(res.Body, maxStreamLine))
		if err != nil {
			return false, err
		}
		return false, readProblem(res, body)
	}
	err = readStream(res.Body, func(e streamEvent) error {
		alive = true
		watchdog.Reset(s.silence)
		if err := s.handle(e); err != nil {
			return handlerError{err}
		}
		return nil
	})
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return alive, err
}

// readStream parses server-sent events (HTML standard, section 9.2.6) until the
// stream ends, which is io.ErrUnexpectedEOF, or handle fails.
func readStream(r io.Reader, handle func(streamEvent) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxStreamLine)
	var e streamEvent
	var data []string
	size := 0
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			if len(data) > 0 {
				e.data = strings.Join(data, "\n")
				if err := handle(e); err != nil {
					return err
				}
			}
			e, data, size = streamEvent{}, nil, 0
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "":
			if err := handle(streamEvent{comment: value}); err != nil {
				return err
			}
		case "event":
			e.name = value
		case "id":
			e.id = value
		case "data":
			if size += len(value); size > maxStreamLine {
				return fmt.Errorf("an event of the stream has more than %s", byteSize(maxStreamLine))
			}
			data = append(data, value)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}
