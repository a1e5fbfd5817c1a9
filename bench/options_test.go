package main

import (
	"io"
	"strings"
	"testing"
	"time"
)

func TestOptions(t *testing.T) {
	o, err := parseOptions([]string{"-run", "crash", "-backend", "kafka", "-seconds", "3", "-rate", "100", "-backlog", "5000"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.window != 3*time.Second || o.rate != 100 || o.backlog != 5000 || len(o.backends) != 1 || o.run.MatchString("latency") {
		t.Errorf("got %+v", o)
	}
	for args, want := range map[string]string{
		"-backend other":             "-backend",
		"-seconds 0":                 "-seconds",
		"-rate 0":                    "-rate",
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
