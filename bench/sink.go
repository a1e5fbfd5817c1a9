package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sync/errgroup"
)

// Paths of the sink that are no endpoints; both take the run as ?run=.
const (
	countsPath = "/_/counts"
	tracePath  = "/_/trace"
)

// sinkHosts is how many addresses the sink has: endpoints are usually on
// different hosts, and the gateway keeps a bounded number of connections to one.
const sinkHosts = 100

// sinkHost is the host of an endpoint. All of 127.0.0.0/8 is this machine.
func sinkHost(endpoint int) string { return "127.0.0." + strconv.Itoa(1+endpoint%sinkHosts) }

// sink answers 204 to every webhook and books it.
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
	s.ledger(p.run).note(p.endpoint, c.PostBody(), at, p.traced)
	c.SetStatusCode(fasthttp.StatusNoContent)
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
		s.runs[run] = &ledger{}
	}
	return s.runs[run]
}

func (s *sink) answer(c *fasthttp.RequestCtx, path string) {
	l := s.ledger(c.QueryArgs().GetUintOrZero("run"))
	var body any = l.snapshot()
	if path == tracePath {
		body = l.trace()
	}
	out, err := json.Marshal(body)
	if err != nil {
		c.SetStatusCode(fasthttp.StatusInternalServerError)
		return
	}
	c.SetBody(out)
}

// sinkProcess is the sink as a child of this process.
type sinkProcess struct {
	child *child
	port  string
}

func startSink(ctx context.Context, dir string) (*sinkProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	out := dir + "/sink.out"
	c, err := startChild(ctx, exec.Command(self, sinkCommand), "sink", out) //nolint:gosec,noctx // this very program; ended by pid
	if err != nil {
		return nil, err
	}
	s := &sinkProcess{child: c}
	err = poll(ctx, 10*time.Second, func() (bool, error) {
		text, err := os.ReadFile(out) //nolint:gosec // made above
		port, whole := strings.CutSuffix(string(text), "\n")
		s.port = port
		return whole, errors.Join(err, c.ended())
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the sink: %w", err), c.stop())
	}
	return s, nil
}

func (s *sinkProcess) url(p place) string { return s.base(p.endpoint) + p.path() }

func (s *sinkProcess) base(endpoint int) string {
	return "http://" + net.JoinHostPort(sinkHost(endpoint), s.port)
}

// counts returns what has arrived for a run.
func (s *sinkProcess) counts(ctx context.Context, run int) (c counts, err error) {
	return c, s.ask(ctx, countsPath, run, &c)
}

// trace returns the arrivals at the traced endpoints of a run.
func (s *sinkProcess) trace(ctx context.Context, run int) (a []arrival, err error) {
	return a, s.ask(ctx, tracePath, run, &a)
}

func (s *sinkProcess) ask(ctx context.Context, path string, run int, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base(0)+path+"?run="+strconv.Itoa(run), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("ask the sink: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // nothing depends on how it closes
	return json.NewDecoder(resp.Body).Decode(into)
}

// poll repeats a step each 20 ms until it says that it is done, fails, or the
// time is over.
func poll(ctx context.Context, limit time.Duration, step func() (done bool, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if done, err := step(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
