// Command report runs "go test" and says what did not run.
//
//	go run ./.ci/report -race ./...
//
// In: flags and packages for go test; SERVICES_MISSING, what could not be
// started, and REQUIRE. Out: one line a package, the output of what failed, and as
// the last lines each test that did not run, with its reason. With REQUIRE=all a
// test that misses a service is a failure.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// maxKept bounds the output kept of one test, in lines.
const maxKept = 2000

// event is a line of "go test -json".
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

func main() {
	cmd := exec.Command("go", append([]string{"test", "-json"}, os.Args[1:]...)...) //nolint:gosec,noctx // its arguments are the point
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	r := report{out: os.Stdout, kept: map[string][]string{}}
	r.read(events)
	err = cmd.Wait()
	missing := r.summary(os.Getenv("SERVICES_MISSING"))
	switch exit := new(exec.ExitError); {
	case errors.As(err, &exit):
		os.Exit(max(1, exit.ExitCode()))
	case err != nil || missing && os.Getenv("REQUIRE") == "all":
		os.Exit(1)
	}
}

// report collects what the events say.
type report struct {
	out     io.Writer
	kept    map[string][]string // output by package and test
	skipped []string
	failed  []string
	missing int
	passed  int
}

func (r *report) read(events io.Reader) {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		if json.Unmarshal(line, &e) == nil {
			r.take(e)
		} else if len(line) > 0 {
			r.printf("%s", line)
		}
		if err != nil {
			return
		}
	}
}

func (r *report) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		if len(r.kept[key]) < maxKept {
			r.kept[key] = append(r.kept[key], e.Output)
		}
		return
	case "build-output":
		r.printf("%s", e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	took := time.Duration(e.Elapsed * float64(time.Second)).Round(10 * time.Millisecond)
	switch {
	case e.Action == "fail":
		r.failed = append(r.failed, strings.TrimSpace(key))
		r.printf("FAIL  %s (%s)\n%s", strings.TrimSpace(key), took, strings.Join(r.kept[key], ""))
	case e.Action == "skip" && e.Test != "":
		r.skip(key, reason(r.kept[key]))
	case e.Action == "pass" && e.Test == "":
		r.printf("ok    %s (%s)\n", e.Package, took)
	case e.Action == "pass":
		r.passed++
	}
	delete(r.kept, key)
}

func (r *report) skip(key, why string) {
	if strings.HasPrefix(why, "not run:") || strings.HasPrefix(why, "missing:") {
		r.missing++
	}
	r.skipped = append(r.skipped, key+": "+why)
}

// reason is what the test said before it was skipped.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "---") || strings.HasPrefix(line, "===") || line == "" {
			continue
		}
		if file, text, ok := strings.Cut(line, ": "); ok && strings.Contains(file, ".go:") {
			return text
		}
		return line
	}
	return "without a reason"
}

// summary prints the end of the report; it reports whether a service was missing.
func (r *report) summary(services string) (missing bool) {
	r.printf("\n%d tests passed, %d failed, %d did not run.\n", r.passed, len(r.failed), len(r.skipped))
	for _, name := range r.failed {
		r.printf("failed: %s\n", name)
	}
	for _, line := range r.skipped {
		r.printf("did not run: %s\n", line)
	}
	for service := range strings.SplitSeq(services, "; ") {
		if service != "" {
			r.printf("service missing: %s\n", service)
		}
	}
	return r.missing > 0 || services != ""
}

func (r *report) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(r.out, format, args...) // nobody is left to tell
}
