package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Metrics of a process that are read here.
const (
	metricGoroutines = "go_goroutines"
	metricParked     = "postrider_deliver_parked"
	metricInFlight   = "postrider_deliver_in_flight"
)

// metrics returns what the processes say at /metrics, each name summed up over
// its labels and the processes.
func (g *gateway) metrics(ctx context.Context) (map[string]float64, error) {
	sum := map[string]float64{}
	for _, r := range g.roles {
		if err := read(ctx, "http://"+r.addr+"/metrics", func(in io.Reader) error { return addMetrics(sum, in) }); err != nil {
			return nil, fmt.Errorf("metrics of %s: %w", r.name, err)
		}
	}
	return sum, nil
}

// addMetrics reads Prometheus' text format. The last word of a line is its value:
// no timestamps are written here.
func addMetrics(sum map[string]float64, in io.Reader) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line := lines.Text()
		end := strings.LastIndexByte(line, ' ')
		if end < 0 || line[0] == '#' {
			continue
		}
		v, err := strconv.ParseFloat(line[end+1:], 64)
		if err != nil {
			return fmt.Errorf("metric %q: %w", line, err)
		}
		name, _, _ := strings.Cut(line[:end], "{")
		sum[name] += v
	}
	return lines.Err()
}

// heap returns the bytes of a process's live heap, after a collection.
func (r *role) heap(ctx context.Context) (bytes int64, err error) {
	err = read(ctx, "http://"+r.pprof+"/debug/pprof/heap?gc=1&debug=1", func(in io.Reader) error {
		bytes, err = parseHeap(in)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("heap of %s: %w", r.name, err)
	}
	return bytes, nil
}

// heapProfile writes a profile of what a process has allocated, live at its last
// collection.
func (r *role) heapProfile(ctx context.Context, file string) error {
	if err := download(ctx, "http://"+r.pprof+"/debug/pprof/heap", file); err != nil {
		return fmt.Errorf("profile %s: %w", r.name, err)
	}
	return nil
}

// parseHeap finds the live heap in the text form of a heap profile.
func parseHeap(in io.Reader) (int64, error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "# HeapAlloc = "); ok {
			return strconv.ParseInt(text, 10, 64)
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("no heap in it: %w", io.ErrUnexpectedEOF)
}

func read(ctx context.Context, url string, use func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing depends on how it closes
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return use(resp.Body)
}

// files returns how many files a process has open.
func (c *child) files() (int, error) {
	dir, err := os.Open(c.proc("fd"))
	if err != nil {
		return 0, fmt.Errorf("open files of %s: %w", c.name, err)
	}
	defer dir.Close() //nolint:errcheck // only read
	names, err := dir.Readdirnames(-1)
	return len(names), err
}
