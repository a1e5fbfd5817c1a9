package control

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/testkit"
	"github.com/postrider/postrider/schemas"
)

// events opens a stream and returns its lines, without empty ones, once it is
// ready. The channel ends with the stream.
func (r *rig) events(ctx context.Context, path string, options ...option) <-chan string {
	r.t.Helper()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	as(adminKey)(q)
	for _, o := range options {
		o(q)
	}
	resp, err := (&http.Client{Transport: r.http.Transport}).Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || ct != "text/event-stream" {
		r.t.Fatalf("status %d, content type %q", resp.StatusCode, ct)
	}
	lines := make(chan string, 10_000)
	testkit.Background(r.t, func(context.Context) error { //nolint:contextcheck // ends with the response, whose context is the request's
		defer close(lines)
		defer func() { _ = resp.Body.Close() }()
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			if s.Text() != "" {
				lines <- s.Text()
			}
		}
		return nil
	})
	r.await(lines, ": ready")
	return lines
}

// await reads up to the line that is wanted.
func (r *rig) await(lines <-chan string, want string) {
	r.t.Helper()
	for r.line(lines) != want {
	}
}

// collect reads up to the n-th line with data, and returns those.
func (r *rig) collect(lines <-chan string, n int) (data []string) {
	r.t.Helper()
	for len(data) < n {
		if line := r.line(lines); strings.HasPrefix(line, "data:") {
			data = append(data, line)
		}
	}
	return data
}

func (r *rig) line(lines <-chan string) string {
	r.t.Helper()
	select {
	case line, ok := <-lines:
		if !ok {
			r.t.Fatal("the stream has ended")
		}
		return line
	case <-time.After(30 * time.Second):
		r.t.Fatal("no line in time")
		return ""
	}
}

// attempt produces a record of the topic attempts.
func (r *rig) attempt(tenant, endpoint string, outcome schemas.Outcome) string {
	r.t.Helper()
	value, err := schemas.EncodeAttempt(&schemas.Attempt{Tenant: tenant, Endpoint: endpoint, Outcome: outcome, Detail: "two\nlines"})
	if err != nil {
		r.t.Fatal(err)
	}
	rec := &kgo.Record{Topic: r.kafka.Topics().Attempts, Key: []byte(endpoint), Value: value}
	if err := r.client.ProduceSync(r.t.Context(), rec).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
	return "data: " + string(value)
}

func TestStream(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Heartbeat = 20 * time.Millisecond; c.MaxStreams = 3 })
	at := r.tenant("acme")
	r.attempt("acme", "ep_a", schemas.OutcomeDelivered) // before the stream: not in it
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	all := r.events(ctx, at+"/attempts/stream")
	one := r.events(ctx, at+"/attempts/stream?endpoint=ep_b")
	failed := r.events(ctx, at+"/attempts/stream?outcome=exhausted")
	if got := r.call(http.MethodGet, at+"/attempts/stream", nil); got.status != 503 || got.text("code") != "too_many_streams" {
		t.Errorf("a fourth stream: %d %s", got.status, got.raw)
	}
	var data []string
	for _, a := range []struct {
		tenant, endpoint string
		outcome          schemas.Outcome
	}{
		{"other", "ep_a", schemas.OutcomeExhausted},
		{"acme", "ep_a", schemas.OutcomeDelivered},
		{"acme", "ep_b", schemas.OutcomeRetry},
		{"acme", "ep_a", schemas.OutcomeExhausted},
	} {
		data = append(data, r.attempt(a.tenant, a.endpoint, a.outcome))
	}
	last := r.attempt("acme", "ep_b", schemas.OutcomeExhausted)
	for name, s := range map[string]struct {
		lines <-chan string
		want  []string
	}{
		"all":      {all, []string{data[1], data[2], data[3], last}},
		"endpoint": {one, []string{data[2], last}},
		"outcome":  {failed, []string{data[3], last}},
	} {
		got := r.collect(s.lines, len(s.want))
		sorted := cmpopts.SortSlices(strings.Compare) // partitions come in any order
		if diff := cmp.Diff(s.want, got, sorted); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	r.await(all, ": alive")
	leave()
	testkit.Eventually(t, "the hub forgets who left", func() bool {
		r.server.hub.mu.Lock()
		defer r.server.hub.mu.Unlock()
		return len(r.server.hub.subs) == 0 && !r.server.hub.reading
	})
	again := r.events(t.Context(), at+"/attempts/stream")
	r.await(again, r.attempt("acme", "ep_c", schemas.OutcomeDelivered))
}

// TestStreamsOfATenant: one tenant can't take the places of all others, nor can all
// tenants together take those of the platform's keys, or these a tenant's.
func TestStreamsOfATenant(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Heartbeat = 20 * time.Millisecond; c.MaxStreams = 4; c.MaxTenantStreams = 2 })
	keys := map[string]option{}
	for _, tenant := range []string{"acme", "umbrella", "initech"} {
		made := r.must(http.StatusCreated, http.MethodPost, r.tenant(tenant)+"/keys", map[string]any{"role": "admin"})
		keys[tenant] = as(made.text("token"))
	}
	path := func(tenant string) string { return "/v1/tenants/" + tenant + "/attempts/stream" }
	refused := func(tenant string, status int, detail string, key option) {
		t.Helper()
		got := r.call(http.MethodGet, path(tenant), nil, key)
		if got.status != status || got.text("code") != codeTooManyStreams || !strings.Contains(got.text("detail"), detail) || got.header.Get("Retry-After") == "" {
			t.Errorf("one more stream of %s: %d %s", tenant, got.status, got.raw)
		}
	}
	leaving, leave := context.WithCancel(t.Context())
	defer leave()
	for range 2 {
		r.events(t.Context(), path("acme")) // with the platform's key
		r.events(leaving, path("acme"), keys["acme"])
	}
	refused("acme", http.StatusTooManyRequests, "the tenant has 2 streams open here, at most 2 are allowed", keys["acme"])
	for range 2 {
		r.events(t.Context(), path("umbrella"), keys["umbrella"])
	}
	refused("initech", http.StatusServiceUnavailable, "no more streams", keys["initech"])
	for range 2 {
		r.events(t.Context(), path("initech")) // the platform has places of its own
	}
	refused("acme", http.StatusServiceUnavailable, "4 streams are open here with keys of the platform", as(adminKey))
	leave()
	testkit.Eventually(t, "the hub forgets who left", func() bool {
		r.server.hub.mu.Lock()
		defer r.server.hub.mu.Unlock()
		return len(r.server.hub.subs) == 6
	})
	r.events(t.Context(), path("initech"), keys["initech"])
}

// TestSlowReader: what does not fit is dropped and counted, and the reader told;
// nobody waits for it.
func TestSlowReader(t *testing.T) {
	r := newRig(t, func(c *Config) { c.StreamBuffer = 2 })
	h := r.server.hub
	u, err := h.add(streamOf{tenant: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	<-u.ready
	for i := range 5 {
		value, err := schemas.EncodeAttempt(&schemas.Attempt{Tenant: "acme", Endpoint: "ep_a", Outcome: schemas.OutcomeRetry})
		if err != nil {
			t.Fatal(err)
		}
		h.dispatch(&kgo.Record{Partition: 3, Offset: int64(i), Value: value})
	}
	h.dispatch(&kgo.Record{Value: []byte("no attempt")})
	from, to := io.Pipe()
	testkit.Background(t, func(context.Context) error {
		r.server.feed(bufio.NewWriter(to), u)
		return nil
	})
	var got []string
	for s := bufio.NewScanner(from); len(got) < 6 && s.Scan(); {
		if line := s.Text(); line != "" && line[0] != ':' && !strings.HasPrefix(line, `data: {"v"`) {
			got = append(got, line)
		}
	}
	_ = from.Close() // the client leaves
	want := []string{"retry: 2000", "event: dropped", `data: {"count":3}`, "event: attempt", "id: 3.0", "event: attempt"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	h.dispatch(&kgo.Record{Value: fmt.Appendf(nil, `{"tenant":"acme","endpoint_id":"ep_a","outcome":"retry"}`)})
	testkit.Eventually(t, "the stream of the client that left ends", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.subs) == 0
	})
}

// TestStreamEnds: the end of Run ends the streams, so that the server can drain.
func TestStreamEnds(t *testing.T) {
	r := newBackend(t)
	stop := r.start()
	lines := r.events(t.Context(), r.tenant("acme")+"/attempts/stream")
	stop()
	for range lines {
	}
	if _, err := r.server.hub.add(streamOf{tenant: "acme"}); err == nil {
		t.Error("a stream was opened after the end")
	}
}
