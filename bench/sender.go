package main

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sync/errgroup"
)

const (
	jsonType  = "application/json"
	linesType = "application/x-ndjson"

	// patience is how long a sender goes on with an event that is not accepted.
	patience = time.Minute
	// repeatAfter is the pause before it is sent again.
	repeatAfter = 20 * time.Millisecond
	connections = 256
)

// sender posts events over kept connections. What is not accepted is sent again
// under the same ids, as a producer should.
type sender struct {
	client  *fasthttp.HostClient
	url     string
	bearer  string
	repeats atomic.Int64
}

func newSender(addr, key string) *sender {
	return &sender{
		client: &fasthttp.HostClient{
			Addr: addr, Dial: dial, MaxConns: connections, MaxConnWaitTimeout: time.Second, ReadTimeout: 15 * time.Second,
			WriteTimeout: 5 * time.Second, MaxIdemponentCallAttempts: 1, NoDefaultUserAgentHeader: true,
		},
		url: "http://" + addr + "/v1/events", bearer: "Bearer " + key,
	}
}

// dial is plain: the client's own dialler caches addresses, with a goroutine
// that nothing ends.
func dial(addr string) (net.Conn, error) {
	return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(context.Background(), "tcp", addr)
}

// post returns when the body was accepted as a whole, or an error with the last
// answer when patience or ctx is over.
func (s *sender) post(ctx context.Context, contentType string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := s.once(contentType, body)
		if err == nil {
			return nil
		}
		s.repeats.Add(1)
		pause := time.NewTimer(repeatAfter)
		select {
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("post events: %w (last: %w)", ctx.Err(), err)
		case <-pause.C:
		}
	}
}

func (s *sender) once(contentType string, body []byte) error {
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	req.SetRequestURI(s.url)
	req.Header.SetMethod(fasthttp.MethodPost)
	req.Header.SetContentType(contentType)
	req.Header.Set(fasthttp.HeaderAuthorization, s.bearer)
	req.SetBodyRaw(body)
	if err := s.client.Do(req, resp); err != nil {
		return err
	}
	if resp.StatusCode() != fasthttp.StatusAccepted {
		text := resp.Body()
		return fmt.Errorf("status %d: %.300s", resp.StatusCode(), text)
	}
	return nil
}

// stream sends events in batches as fast as they are accepted and its backlog
// allows. Its fields are set before run.
type stream struct {
	sender  *sender
	events  *events
	workers int
	batch   int64
	// fan is how many deliveries an event becomes, backlog how many of them may
	// be under way; 0 is no bound.
	fan, backlog int64
	// total ends the stream after so many events, rounded down to whole batches;
	// 0 is no end.
	total int64

	next, accepted atomic.Int64 // events
	received       atomic.Int64 // deliveries, as the sink last said
}

// run sends until stop ends. A batch that was begun is finished: every number
// below next is accepted when run returns without an error.
func (s *stream) run(ctx, stop context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for range s.workers {
		group.Go(func() error { return s.work(ctx, stop) })
	}
	return group.Wait()
}

func (s *stream) work(ctx, stop context.Context) error {
	var body []byte
	contentType := linesType
	if s.batch == 1 {
		contentType = jsonType
	}
	for s.await(stop) {
		first, ok := s.take()
		if !ok {
			return ctx.Err()
		}
		body = s.events.lines(body[:0], first, s.batch)
		if err := s.sender.post(ctx, contentType, body); err != nil {
			return err
		}
		s.accepted.Add(s.batch)
	}
	return ctx.Err()
}

// take returns the first number of the next batch; not when all were taken.
func (s *stream) take() (first int64, ok bool) {
	for {
		first = s.next.Load()
		if s.total > 0 && first+s.batch > s.total {
			return 0, false
		}
		if s.next.CompareAndSwap(first, first+s.batch) {
			return first, true
		}
	}
}

// await waits for room in the backlog and reports whether there is some; not
// when stop ended.
func (s *stream) await(stop context.Context) bool {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for stop.Err() == nil {
		if s.backlog == 0 || s.next.Load()*s.fan-s.received.Load() < s.backlog {
			return true
		}
		select {
		case <-stop.Done():
		case <-tick.C:
		}
	}
	return false
}

// schedule is an open loop: event n is due n/rate after the start, however long
// earlier ones take. Its times are Unix nanoseconds by event number.
type schedule struct {
	sender *sender
	events *events
	rate   int

	due, acked []int64
}

// run sends until stop ends, at most for the given time, and waits until all
// that was begun is accepted.
func (s *schedule) run(ctx, stop context.Context, limit time.Duration) error {
	total := int64(limit.Seconds() * float64(s.rate))
	s.due, s.acked = make([]int64, total), make([]int64, total)
	numbers := make(chan int64, total)
	group, ctx := errgroup.WithContext(ctx)
	for range connections {
		group.Go(func() error {
			for n := range numbers {
				if err := s.sender.post(ctx, jsonType, s.events.append(nil, n)); err != nil {
					return err
				}
				s.acked[n] = time.Now().UnixNano()
			}
			return nil
		})
	}
	sent := s.pace(ctx, stop, numbers)
	close(numbers)
	err := group.Wait()
	s.due, s.acked = s.due[:sent], s.acked[:sent]
	return err
}

// pace hands each number on when it is due and returns how many it did.
func (s *schedule) pace(ctx, stop context.Context, numbers chan<- int64) int {
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := range s.due {
		due := start.Add(time.Duration(n) * time.Second / time.Duration(s.rate))
		timer.Reset(time.Until(due))
		select {
		case <-ctx.Done():
			return n
		case <-stop.Done():
			return n
		case <-timer.C:
		}
		s.due[n] = due.UnixNano()
		numbers <- int64(n) // holds all: never blocks
	}
	return len(s.due)
}
