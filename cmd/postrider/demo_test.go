package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"strings"
	"testing"

	"github.com/postrider/postrider/schemas"
)

func TestDemoSamples(t *testing.T) {
	list, err := demoSamples()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if err := schemas.CheckType(s.eventType); err != nil || !json.Valid(s.data) {
			t.Errorf("%s: %v, JSON: %v", s.eventType, err, json.Valid(s.data))
		}
	}
	files := 0
	if err := fs.WalkDir(samples, "samples", func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".json") {
			files++
		}
		return err
	}); err != nil || files != len(list) {
		t.Errorf("%d payloads are embedded, %d are sent: %v", files, len(list), err)
	}
	if readme, err := samples.ReadFile("samples/README.md"); err != nil || !bytes.Contains(readme, []byte("MIT licence")) {
		t.Errorf("the payloads' licence is missing: %v", err)
	}
}

// TestDemo runs the gateway and its demo, as "make run" does, and ends it.
func TestDemo(t *testing.T) {
	address := freeAddress(t)
	data := t.TempDir()
	for range 2 { // the second time on the data of the first
		out, errs, stop := background(t, "dev", "--demo", "--data="+data, "--listen="+address, "--instance=demo", "--log-level=error", "--drain-timeout=5s")
		text := out.await(t, "The gateway stays up")
		for _, want := range []string{
			"healthy     8 got    8 verified", "flaky       6 got    6 verified", "filtered    1 got    1 verified",
			"filtered: its filter says no", "curl -sS http://" + address + "/v1/events",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is missing", want)
			}
		}
		for what, want := range map[string]int{"  accepted ": 8, "  matched ": 8, "  delivered ": 11, "  retry ": 4} {
			if got := strings.Count(text, what); got != want {
				t.Errorf("%d lines of%s, want %d", got, what, want)
			}
		}
		if strings.Contains(text, "\x1b") {
			t.Error("colours without a terminal")
		}
		if code := stop(); code != 0 {
			t.Errorf("ended with %d: %s", code, errs.String())
		}
		if t.Failed() {
			t.Fatalf("output:\n%s\n%s", out.String(), errs.String())
		}
	}
}
