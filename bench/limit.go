package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/postrider/postrider/internal/signature"
)

// limitClients is how many connections the plain client uses.
const limitClients = 64

// plainClient POSTs signed bodies as fast as the sink takes them: the limit that
// the gateway is measured against. It uses net/http, and like the gateway's requests
// these have an id, a time, a signature and 1 KiB.
type plainClient struct {
	transport *http.Transport
	url       *url.URL
	bodies    [][]byte
	headers   []http.Header
	sent      []int64 // by connection
}

func newPlainClient(target string) (*plainClient, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	key, err := signature.Parse(signature.NewSecret())
	if err != nil {
		return nil, err
	}
	c := &plainClient{
		url: u, sent: make([]int64, limitClients),
		transport: &http.Transport{MaxIdleConnsPerHost: limitClients, DisableCompression: true},
	}
	now := time.Now()
	for n := range int64(1024) {
		body := webhookBody(n)
		id := "evt_" + strconv.FormatInt(n, 10)
		c.bodies = append(c.bodies, body)
		c.headers = append(c.headers, http.Header{
			"Content-Type":            {"application/json"},
			"User-Agent":              {"bench"},
			signature.HeaderID:        {id},
			signature.HeaderTimestamp: {signature.Timestamp(now)},
			signature.HeaderSignature: {signature.Sign([]signature.Key{key}, id, now, body)},
		})
	}
	return c, nil
}

// webhookBody is the body that the gateway makes of an event.
func webhookBody(n int64) []byte {
	e := newEvents("", 0, func(int64) string { return "" })
	body := append([]byte(nil), `{"type":"bench.0","timestamp":"2026-01-02T03:04:05.678Z","data":{"n":`...)
	body = strconv.AppendInt(body, n, 10)
	return append(body, e.tail...)
}

// run posts until stop ends.
func (c *plainClient) run(ctx, stop context.Context) error {
	defer c.transport.CloseIdleConnections()
	group, ctx := errgroup.WithContext(ctx)
	for i := range limitClients {
		group.Go(func() error {
			for stop.Err() == nil {
				if err := c.post(ctx, (int(c.sent[i])*limitClients+i)%len(c.bodies)); err != nil {
					return err
				}
				c.sent[i]++
			}
			return nil
		})
	}
	return group.Wait()
}

func (c *plainClient) post(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req := (&http.Request{
		Method: http.MethodPost, URL: c.url, Host: c.url.Host, Header: c.headers[i],
		Body: io.NopCloser(bytes.NewReader(c.bodies[i])), ContentLength: int64(len(c.bodies[i])),
	}).WithContext(ctx)
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("post to the sink: %w", err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close() // nothing depends on how it closes
	return err
}

// measureLimit returns the plain client's requests per second and CPU.
func measureLimit(ctx context.Context, s *sinkProcess, run int, window time.Duration) (values, error) {
	c, err := newPlainClient(s.url(place{run: run}))
	if err != nil {
		return nil, err
	}
	if err := c.during(ctx, window/5); err != nil { // opens connections
		return nil, err
	}
	clear(c.sent)
	cpu, start := ownCPU(), time.Now()
	err = c.during(ctx, window)
	cpu, took := ownCPU()-cpu, time.Since(start)
	var sent int64
	for _, n := range c.sent {
		sent += n
	}
	return values{
		keyRate: float64(sent) / took.Seconds(),
		keyCPU:  perThousand(cpu, sent),
	}, err
}

func (c *plainClient) during(ctx context.Context, d time.Duration) error {
	stop, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return c.run(ctx, stop)
}

// ownCPU is what this process has used, user and system.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// perThousand returns CPU-seconds per 1,000 pieces of work.
func perThousand(cpu time.Duration, work int64) float64 {
	if work <= 0 {
		return 0
	}
	return cpu.Seconds() / float64(work) * 1000
}
