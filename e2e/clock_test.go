package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// skewed builds the program with a wall clock that a file moves, by replacing
// one function of the standard library in the build. (A library that is loaded
// before the program, as faketime is, has no effect on Go: it asks the kernel.)
// The monotonic clock, and the timers, stay as they are, as when a clock is set.
func skewed(t *testing.T) (program, file string) {
	t.Helper()
	dir := t.TempDir()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	const now = "\tsec, nsec, mono := runtimeNow()\n"
	if bytes.Count(text, []byte(now)) != 1 {
		t.Fatalf("%s reads the clock in another way than this test knows", source)
	}
	text = bytes.Replace(text, []byte(now), []byte(now+"\tsec += skew.Load()\n"), 1)
	text = bytes.Replace(text, []byte("import (\n"), []byte("import (\n\t\"sync/atomic\"\n"), 1)
	text = append(text, "\nvar skew atomic.Int64\n\nfunc Skew(seconds int64) { skew.Store(seconds) }\n"...)
	const follow = `package main

import ("os"; "strconv"; "time")

func init() {
	go func() {
		for range time.Tick(10 * time.Millisecond) {
			text, err := os.ReadFile(os.Getenv("CLOCK_SKEW_FILE"))
			if n, bad := strconv.ParseInt(string(text), 10, 64); err == nil && bad == nil {
				time.Skew(n)
			}
		}
	}()
}
`
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	main, err := filepath.Abs("../cmd/postrider/clock_skew.go")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		source: write("time.go", text), main: write("clock_skew.go", []byte(follow)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	program, file = filepath.Join(dir, "postrider"), filepath.Join(dir, "skew")
	cmd := exec.Command("go", "build", "-overlay", write("overlay.json", overlay), "-o", program, "../cmd/postrider")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return program, file
}

// The worker's clock jumps a minute and a half ahead, as much behind, and back.
// It goes on delivering all the while (its lease is no wall clock), nothing is
// lost, given up or sent twice, and retries go on; they may be early or late by as
// much as the clock is wrong. Endpoints whose deliveries wait parked, for their rate
// or for each other, go on like the others.
func TestClockJump(t *testing.T) {
	program, file := skewed(t)
	g := newGateway(t)
	g.other = map[string]string{"deliver-1": program}
	g.start("deliver", "deliver-1", "CLOCK_SKEW_FILE="+file)
	g.startAll().tenant()
	steady, flaky := newSink(t, nil), newSink(t, oneInFive())
	limited, ordered := newSink(t, nil), newSink(t, nil)
	steady.keep = true
	retry := settings{"retry": map[string]any{"schedule": []string{"1s", "1s", "2s", "2s", "2s", "4s", "4s", "4s"}}}
	endpoints := []string{
		g.endpoint(steady.URL, retry), g.endpoint(flaky.URL, retry), g.endpoint(ordered.URL, settings{"ordered": true}),
		g.endpoint(limited.URL, settings{"rate_limit": map[string]any{"per_second": 30, "burst": 1}}),
	}
	l := g.sendLoad("order.paid", 40)
	seen := map[int]bool{}
	for _, skew := range []int{0, 90, -90, 0} {
		if err := os.WriteFile(file, []byte(strconv.Itoa(skew)), 0o600); err != nil {
			t.Fatal(err)
		}
		before := len(steady.arrivals())
		eventually(t, time.Minute, "requests go on with the clock "+strconv.Itoa(skew)+" s ahead", func() bool {
			now := len(steady.arrivals())
			if now > before {
				seen[steady.ahead(t)] = true
			}
			return now >= before+100 && seen[skew]
		})
		// More than what was parked, and could be read, when the clock was set.
		waiting, inLine := len(limited.arrivals()), len(ordered.arrivals())
		eventually(t, time.Minute, "parked deliveries go on with the clock "+strconv.Itoa(skew)+" s ahead", func() bool {
			return len(limited.arrivals()) >= waiting+200 && len(ordered.arrivals()) >= inLine+100
		})
	}
	events := l.end()
	for _, s := range []*sink{steady, flaky, limited, ordered} {
		eventually(t, 2*time.Minute, "everything arrived", func() bool { return len(s.missing(events)) == 0 })
		if n := s.repeats(); n > 0 {
			t.Errorf("%d requests were repeated", n)
		}
	}
	tr := g.settledTruth(len(events) * len(endpoints))
	tr.check(g, events, endpoints, 0)
}

// ahead returns by how much the sender's clock was ahead of this one's at the
// last request, in steps of 90 s.
func (s *sink) ahead(t *testing.T) int {
	t.Helper()
	all := s.arrivals()
	last := all[len(all)-1]
	signed, err := strconv.ParseInt(last.Header.Get("Webhook-Timestamp"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return int(time.Unix(signed, 0).Sub(last.At).Round(90*time.Second) / time.Second)
}
