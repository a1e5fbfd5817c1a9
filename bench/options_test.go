package main

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestOptions(t *testing.T) {
	o, err := parseOptions([]string{"-run", "crash", "-backend", "kafka", "-seconds", "3", "-rates", "100,7", "-backlog", "5000", "-soak", "1m", "-repeat", "3", "-check"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.window != 3*time.Second || !slices.Equal(o.rates, []int{100, 7}) || o.repeat != 3 || !o.check || o.sizes.soak != time.Minute || o.backlog != 5000 || len(o.backends) != 1 || o.run.MatchString("latency") {
		t.Errorf("got %+v", o)
	}
	for args, want := range map[string]string{
		"-backend other":             "-backend",
		"-seconds 0":                 "-seconds",
		"-rates 0":                   "-rates",
		"-rates 5,x":                 "-rates",
		"-rates 5,5":                 "twice",
		"-repeat 0":                  "-repeat",
		"-soak 1s":                   "-soak",
		"-waiting 1":                 "-waiting",
		"-parked 1":                  "-parked",
		"-endpoints 11":              "-endpoints",
		"-pairs 0":                   "-pairs",
		"-park never":                "-park",
		"-backlog 1":                 "-backlog",
		"-run (":                     "-run",
		"-seconds 1 something":       "something",
		"-backend embedded,embedded": "twice",
	} {
		if _, err := parseOptions(strings.Fields(args), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", args, err, want)
		}
	}
}
