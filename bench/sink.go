package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sync/errgroup"
)

// Paths of the sink that are no endpoints; all take the run as ?run=.
const (
	countsPath  = "/_/counts"
	tracePath   = "/_/trace"
	conductPath = "/_/conduct" // its body is a conduct
)

// sinkHosts is how many addresses the sink has: endpoints are usually on
// different hosts, and the gateway keeps a bounded number of connections to one.
const sinkHosts = 100

// sinkHost is the host of an endpoint. All of 127.0.0.0/8 is this machine.
func sinkHost(endpoint int) string { return "127.0.0." + strconv.Itoa(1+endpoint%sinkHosts) }

// sink answers every webhook as its run's conduct says, at first with 204, and
// books it.
type sink struct {
	mu   sync.RWMutex
	runs map[int]*ledger
}

// runSink serves webhooks on a free port of all its addresses, which it prints
// first, until ctx ends.
func runSink(ctx context.Context, out io.Writer) error {
	listeners, port, err := sinkListeners(ctx)
	if err != nil {
		return err
	}
	s := &sink{runs: map[int]*ledger{}}
	server := &fasthttp.Server{
		Handler: s.serve, NoDefaultServerHeader: true, NoDefaultDate: true, NoDefaultContentType: true,
		ReadBufferSize: 16 << 10, MaxRequestBodySize: 4 << 20, CloseOnShutdown: true,
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, ln := range listeners {
		group.Go(func() error { return server.Serve(ln) })
	}
	group.Go(func() error {
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := server.ShutdownWithContext(drain); !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		return nil // kept connections are no failure
	})
	if _, err := fmt.Fprintln(out, port); err != nil {
		return errors.Join(err, server.Shutdown(), group.Wait())
	}
	return group.Wait()
}

// sinkListeners opens the same free port on every host.
func sinkListeners(ctx context.Context) (all []net.Listener, port string, err error) {
	port = "0"
	for i := range sinkHosts {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(sinkHost(i), port))
		if err != nil {
			for _, open := range all {
				err = errors.Join(err, open.Close())
			}
			return nil, "", err
		}
		all = append(all, ln)
		_, port, err = net.SplitHostPort(ln.Addr().String())
		if err != nil {
			return nil, "", err
		}
	}
	return all, port, nil
}

func (s *sink) serve(c *fasthttp.RequestCtx) {
	at := time.Now().UnixNano()
	path := string(c.Path())
	if strings.HasPrefix(path, "/_/") {
		s.answer(c, path)
		return
	}
	p, ok := parsePlace(path)
	if !ok {
		c.SetStatusCode(fasthttp.StatusNotFound)
		return
	}
	l := s.ledger(p.run)
	flight := l.flight.Add(1)
	defer l.flight.Add(-1)
	status := l.conduct.Load().meet()
	c.SetStatusCode(status)
	if status/100 != 2 {
		l.refused()
		return
	}
	l.note(p, c.PostBody(), at, flight)
}

func (s *sink) ledger(run int) *ledger {
	s.mu.RLock()
	l := s.runs[run]
	s.mu.RUnlock()
	if l != nil {
		return l
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runs[run] == nil {
		s.runs[run] = newLedger()
	}
	return s.runs[run]
}

func (s *sink) answer(c *fasthttp.RequestCtx, path string) {
	l := s.ledger(c.QueryArgs().GetUintOrZero("run"))
	var body any = l.snapshot()
	switch path {
	case tracePath:
		body = l.trace()
	case conductPath:
		next := &conduct{over: make(chan struct{})}
		if err := json.Unmarshal(c.PostBody(), next); err != nil {
			c.Error(err.Error(), fasthttp.StatusBadRequest)
			return
		}
		close(l.conduct.Swap(next).over)
	}
	out, err := json.Marshal(body)
	if err != nil {
		c.SetStatusCode(fasthttp.StatusInternalServerError)
		return
	}
	c.SetBody(out)
}
