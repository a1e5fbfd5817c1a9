package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"go.uber.org/goleak"
)

// patience bounds how long a test waits for what must come.
const patience = time.Minute

// fasthttp keeps its clock and its idle workers for some seconds after a server
// has closed.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

// result is what a command line left behind.
type result struct {
	code     int
	out, err string
}

// command runs a command line with nothing of the test's environment in it.
func command(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, errs buffer
	code := run(t.Context(), args, streams{strings.NewReader(stdin), &out, &errs})
	return result{code, out.String(), errs.String()}
}

// background runs a command line until the returned function ends it.
func background(t *testing.T, args ...string) (out, errs *buffer, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, errs = new(buffer), new(buffer)
	code := make(chan int, 1)
	go func() { code <- run(ctx, args, streams{strings.NewReader(""), out, errs}) }()
	stop = sync.OnceValue(func() int {
		cancel()
		return <-code
	})
	t.Cleanup(func() { stop() })
	return out, errs, stop
}

// buffer is a bytes.Buffer for several goroutines, whose reader can wait.
type buffer struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// await waits until the text contains something, and returns all of it. It
// gives up at the end of the test's time.
func (b *buffer) await(t *testing.T, want string) string {
	t.Helper()
	for {
		b.mu.Lock()
		text := b.text.String()
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		changed := b.changed
		b.mu.Unlock()
		if strings.Contains(text, want) {
			return text
		}
		select {
		case <-changed:
		case <-limit(t).Done():
			t.Fatalf("never saw %q in:\n%s", want, text)
		}
	}
}

// limit ends before the test's own deadline does, so that a test that hangs says
// what it waited for.
func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// freeAddress returns an address of loopback that nobody listens on. Its port is
// below those that systems give away by themselves, so that no other connection
// takes it before the test does.
func freeAddress(t *testing.T) string {
	t.Helper()
	for {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(20_000+rand.IntN(10_000)))
		ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		return address
	}
}

func TestCommandLine(t *testing.T) {
	for _, tc := range []struct {
		name     string
		args     []string
		code     int
		out, err string
	}{
		{"nothing is help", nil, 0, "Usage: postrider <command>", ""},
		{"help", []string{"--help"}, 0, "deliver", ""},
		{"help of a role", []string{"ingest", "--help"}, 0, "--max-body", ""},
		{"version", []string{"version"}, 0, "postrider ", ""},
		{"version as a flag", []string{"--version"}, 0, versionLine() + "\n", ""},
		{"version of a command", []string{"deliveries", "cancel", "--version"}, 0, versionLine() + "\n", ""},
		{"unknown command", []string{"frobnicate"}, 80, "", "frobnicate"},
		{"unknown flag", []string{"all", "--frobnicate"}, 80, "", "frobnicate"},
		{"flag of another role", []string{"ingest", "--slots=5"}, 1, "", "--slots has no effect on ingest, it is for deliver"},
		{"kafka in dev", []string{"dev", "--kafka-brokers=a:1"}, 1, "", "runs its own Kafka"},
		{"empty admin key", []string{"fanout", "--kafka-brokers=a:1", "--redis-url=redis://a"}, 1, "", "admin-key: must not be empty"},
		{"bad duration", []string{"all", "--max-age=5"}, 80, "", "max-age"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := command(t, "", tc.args...)
			if got.code != tc.code || !strings.Contains(got.out, tc.out) || !strings.Contains(got.err, tc.err) {
				t.Errorf("code %d, want %d; out %q, want %q in it; err %q, want %q in it", got.code, tc.code, got.out, tc.out, got.err, tc.err)
			}
		})
	}
}

// TestPlaceholders: the help says what a flag wants, not the name of a Go type.
func TestPlaceholders(t *testing.T) {
	parser, err := newParser(streams{strings.NewReader(""), io.Discard, io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	var walk func(*kong.Node)
	walk = func(node *kong.Node) {
		for _, flag := range node.Flags {
			seen++
			if !flag.IsBool() && flag.PlaceHolder == "" && !flag.HasDefault {
				t.Errorf("%s: --%s has no placeholder: %s", node.Path(), flag.Name, flag.FormatPlaceHolder())
			}
		}
		for _, child := range node.Children {
			walk(child)
		}
	}
	walk(parser.Model.Node)
	if seen < 100 {
		t.Errorf("saw %d flags", seen)
	}
}

// TestHelpOfARole shows only what the role heeds.
func TestHelpOfARole(t *testing.T) {
	for role, want := range map[string]map[string]bool{
		"ingest":  {"--max-body": true, "--slots": false, "--data": false, "--kafka-brokers": true},
		"fanout":  {"--claim-window": true, "--seal-key": false},
		"deliver": {"--slots": true, "--seal-key": true, "--max-body": false},
		"control": {"--seal-key": true, "--egress-allow-cidr": true, "--claim-window": false},
		"dev":     {"--data": true, "--slots": true, "--kafka-brokers": false, "--redis-url": false, "127.0.0.1:8080": true},
	} {
		help := command(t, "", role, "--help").out
		for flag, shown := range want {
			if strings.Contains(help, flag) != shown {
				t.Errorf("%s --help: shows %s: %v, want %v", role, flag, !shown, shown)
			}
		}
	}
}
