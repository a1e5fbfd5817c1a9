package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// curves collects what the plots show.
type curves struct {
	isolation map[string]map[string][]point // latencies by backend and name of the line
	recovery  map[string][]point            // rates by backend
	beside    map[string][]point            // latencies of the other endpoints by backend
}

func newCurves() *curves {
	return &curves{isolation: map[string]map[string][]point{}, recovery: map[string][]point{}, beside: map[string][]point{}}
}

// curveNone is the line of the runs in which no endpoint hangs.
const curveNone = "none hang"

func curveName(share int, hang bool) string {
	if !hang {
		return curveNone
	}
	return fmt.Sprintf("%d %% hang", share)
}

func (c *curves) addIsolation(backend string, share int, hang bool, latencies []point) {
	if c.isolation[backend] == nil {
		c.isolation[backend] = map[string][]point{}
	}
	name := curveName(share, hang)
	c.isolation[backend][name] = append(c.isolation[backend][name], latencies...)
}

// addRecovery and addBystanders keep the last run's.
func (c *curves) addRecovery(backend string, rates []point)       { c.recovery[backend] = rates }
func (c *curves) addBystanders(backend string, latencies []point) { c.beside[backend] = latencies }

// Widths of what a point of a plot stands for.
const (
	isolationWidth  = 500 * time.Millisecond
	bystandersWidth = 500 * time.Millisecond
)

// plots returns the drawings by name; a backend that was not measured has no
// panel.
func (c *curves) plots(backends []string) map[string]string {
	var isolation, recovery []panel
	for _, b := range backends {
		if lines := c.isolation[b]; lines != nil {
			p := panel{title: b + ": healthy endpoints, p99 of each 0.5 s, all pairs together", x: "seconds since the load began", y: "ms"}
			for _, name := range append([]string{curveNone}, curveNames()...) {
				if points := lines[name]; points != nil {
					p.lines = append(p.lines, line{name, windowPercentile(points, isolationWidth, 99)})
				}
			}
			isolation = append(isolation, p)
		}
		if rates := c.recovery[b]; rates != nil {
			recovery = append(
				recovery,
				panel{title: b + ": the endpoint that is back, requests/s in each 0.1 s", x: "seconds since it is back", y: "requests/s", lines: []line{{"rate", rates}}},
				panel{title: b + ": other endpoints meanwhile, p99 of each 0.5 s", x: "seconds since it is back", y: "ms", lines: []line{{"p99", windowPercentile(c.beside[b], bystandersWidth, 99)}}},
			)
		}
	}
	out := map[string]string{}
	if isolation != nil {
		out["isolation"] = draw("accepted → received while other endpoints hang", isolation)
	}
	if recovery != nil {
		out["recovery"] = draw("an endpoint is back after records waited for it", recovery)
	}
	return out
}

func curveNames() (names []string) {
	for _, share := range hangShares() {
		names = append(names, curveName(share, true))
	}
	return names
}

// write draws the plots into files whose names begin with prefix.
func (c *curves) write(prefix string, backends []string) error {
	for name, text := range c.plots(backends) {
		file := prefix + name + ".svg"
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			return fmt.Errorf("folder of the plots: %w", err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil { //nolint:gosec // a picture for everybody
			return fmt.Errorf("write a plot: %w", err)
		}
	}
	return nil
}
