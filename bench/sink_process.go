package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

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
	return c, s.ask(ctx, countsPath, run, nil, &c)
}

// trace returns the arrivals at the traced endpoints of a run.
func (s *sinkProcess) trace(ctx context.Context, run int) (a []arrival, err error) {
	return a, s.ask(ctx, tracePath, run, nil, &a)
}

// behave changes how a run's endpoints answer, from now on.
func (s *sinkProcess) behave(ctx context.Context, run int, c conduct) error {
	return s.ask(ctx, conductPath, run, c, new(counts))
}

func (s *sinkProcess) ask(ctx context.Context, path string, run int, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base(0)+path+"?run="+strconv.Itoa(run), bytes.NewReader(text))
	if err != nil {
		return err
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("ask the sink: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // nothing depends on how it closes
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the sink: status %d", resp.StatusCode)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
