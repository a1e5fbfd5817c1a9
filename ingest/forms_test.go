package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	ce "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/postrider/postrider/internal/httpd"
	"github.com/postrider/postrider/schemas"
)

func TestForms(t *testing.T) {
	type row struct {
		name, body string
		headers    headers
		want       schemas.Event
	}
	base := schemas.Event{ID: "1", Source: "/s", Type: "order.paid", Tenant: "acme", Data: []byte(`{"total": 12.50 }`)}
	with := func(f func(*schemas.Event)) schemas.Event {
		e := base
		f(&e)
		return e
	}
	tests := []row{
		{
			"plain", `{"type":"order.paid","id":"1","source":"/s","time":"2026-01-02T03:04:05Z","data":{"total": 12.50 }}`,
			headers{"Content-Type", "application/json; charset=UTF-8"},
			with(func(e *schemas.Event) { e.Time = "2026-01-02T03:04:05Z" }),
		},
		{
			"plain, all members", ` {"type":"order.paid","id":"1","source":"/s","subject":"s\u00e4","time":"2026-01-02T03:04:05+02:00",` +
				`"tenant":"acme","partitionkey":"k","datacontenttype":"application/vnd.a+json","dataschema":"https://a/b",` +
				`"extensions":{"a":"1","b":true,"c":-7},"data":{"total": 12.50 }} `,
			headers{"Content-Type", "application/json"},
			with(func(e *schemas.Event) {
				e.Time, e.Subject, e.PartitionKey = "2026-01-02T03:04:05+02:00", "sä", "k"
				e.DataContentType, e.DataSchema = "application/vnd.a+json", "https://a/b"
				e.Extensions = map[string]string{"a": "1", "b": "true", "c": "-7"}
			}),
		},
		{
			"plain, text", `{"type":"order.paid","id":"1","source":"/s","time":"2026-01-02T03:04:05Z","datacontenttype":"text/plain","data":"a\nb"}`,
			headers{"Content-Type", "application/json"},
			with(func(e *schemas.Event) {
				e.Time, e.DataContentType, e.Data = "2026-01-02T03:04:05Z", "text/plain", []byte("a\nb")
			}),
		},
		{
			"plain, JSON string", `{"type":"order.paid","id":"1","source":"/s","time":"2026-01-02T03:04:05Z","data":"a\nb"}`,
			headers{"Content-Type", "application/json"},
			with(func(e *schemas.Event) { e.Time, e.Data = "2026-01-02T03:04:05Z", []byte(`"a\nb"`) }),
		},
		{"structured", structured(`"data":{"total": 12.50 }`), headers{"Content-Type", "application/cloudevents+json; charset=utf-8"}, base},
		{"structured as JSON", structured(`"data":{"total": 12.50 }`), headers{"Content-Type", "application/json"}, base},
		{
			"structured, base64", structured(`"datacontenttype":"image/png"`, `"data_base64":"AP8="`, `"n":5`),
			headers{"Content-Type", "application/cloudevents+json"},
			with(func(e *schemas.Event) {
				e.DataContentType, e.Data, e.Extensions = "image/png", []byte{0, 0xff}, map[string]string{"n": "5"}
			}),
		},
		{
			"binary", `{"total": 12.50 }`,
			headers{
				"Content-Type", "application/json", "ce-specversion", "1.0", "ce-id", "1", "ce-source", "/s", "ce-type", "order.paid",
				"ce-subject", `"Euro \"%E2%82%AC\" 100%"`, "ce-partitionkey", "a%20b", "ce-myext", "%zz%4",
			},
			with(func(e *schemas.Event) {
				e.DataContentType, e.Subject, e.PartitionKey = "application/json", `Euro "€" 100%`, "a b"
				e.Extensions = map[string]string{"myext": "%zz%4"}
			}),
		},
		{
			"binary, other media type", "a\x00b\xff",
			headers{
				"Content-Type", `multipart/form-data; boundary="x"`, "ce-specversion", "1.0", "ce-id", "1", "ce-source", "/s", "ce-type", "order.paid",
			},
			with(func(e *schemas.Event) {
				e.DataContentType, e.Data = `multipart/form-data; boundary="x"`, []byte("a\x00b\xff")
			}),
		},
		{
			"binary, no data", "",
			headers{
				"Content-Type", "", "ce-specversion", "1.0", "ce-id", "1", "ce-source", "/s", "ce-type", "order.paid",
			},
			with(func(e *schemas.Event) { e.Data = []byte{} }),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := start(t, Config{}, Deps{})
			got := g.post(t, tt.body, tt.headers)
			if got.status != http.StatusAccepted {
				t.Fatalf("status %d: %s", got.status, got.raw)
			}
			r := g.kafka.produced()[0]
			if diff := cmp.Diff(tt.want, event(t, r)); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
			id := schemas.EventID("acme", "/s", "1")
			if got.EventID != id || got.CloudEventsID != "1" || got.Position != "3.0" {
				t.Errorf("answer %s, want id %s, cloudevents_id 1, position 3.0", got.raw, id)
			}
			key := id
			if tt.want.PartitionKey != "" {
				key = "acme/" + tt.want.PartitionKey
			}
			if string(r.Key) != key || r.Topic != "events" {
				t.Errorf("key %q topic %q, want %q events", r.Key, r.Topic, key)
			}
		})
	}
}

func TestPlainDefaults(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.FixedZone("", 3600))
	g := start(t, Config{Clock: func() time.Time { return now }}, Deps{})
	got := g.postJSON(t, `{"type":"order.paid"}`)
	if got.status != http.StatusAccepted {
		t.Fatalf("status %d: %s", got.status, got.raw)
	}
	e := event(t, g.kafka.produced()[0])
	if id, err := uuid.Parse(e.ID); err != nil || id.Version() != 7 || e.ID != got.CloudEventsID {
		t.Errorf("id %q, answered %q, want a UUIDv7", e.ID, got.CloudEventsID)
	}
	if e.Source != "/acme" || e.Time != "2026-01-02T02:04:05.678Z" || len(e.Data) != 0 {
		t.Errorf("event %+v", e)
	}
}

func TestTenants(t *testing.T) {
	g := start(t, Config{}, Deps{})
	for name, tt := range map[string]struct{ key, body, want string }{
		"own":          {g.producer, `{"type":"a"}`, "acme"},
		"own, named":   {g.admin, `{"type":"a","tenant":"acme"}`, "acme"},
		"platform key": {g.platform, `{"type":"a","tenant":"other"}`, "other"},
		"admin key":    {adminKey, `{"type":"a","tenant":"other"}`, "other"},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(g.kafka.produced())
			got := g.post(t, tt.body, headers{"Content-Type", "application/json", "Authorization", "Bearer " + tt.key})
			if got.status != http.StatusAccepted {
				t.Fatalf("status %d: %s", got.status, got.raw)
			}
			if e := event(t, g.kafka.produced()[before]); e.Tenant != tt.want || e.Source != "/"+tt.want {
				t.Errorf("tenant %q, source %q, want %q", e.Tenant, e.Source, tt.want)
			}
		})
	}
}

// TestSDK sends with the CloudEvents SDK, whose reading of the specification is
// not ours.
func TestSDK(t *testing.T) {
	g := start(t, Config{}, Deps{})
	e := ce.NewEvent()
	e.SetID("sdk 1")
	e.SetSource("https://example.com/a?b=c")
	e.SetType("order.paid")
	e.SetSubject("a subject")
	e.SetTime(time.Date(2026, 1, 2, 3, 4, 5, 6000000, time.UTC))
	e.SetDataSchema("https://example.com/schema")
	e.SetExtension("partitionkey", "k1")
	e.SetExtension("count", 7)
	if err := e.SetData("application/json", map[string]any{"total": 12.5, "name": "Zoë"}); err != nil {
		t.Fatal(err)
	}
	want := schemas.Event{
		ID: "sdk 1", Source: "https://example.com/a?b=c", Type: "order.paid", Subject: "a subject", Tenant: "acme",
		Time: "2026-01-02T03:04:05.006Z", DataSchema: "https://example.com/schema", DataContentType: "application/json",
		PartitionKey: "k1", Extensions: map[string]string{"count": "7"}, Data: e.Data(),
	}
	client, err := ce.NewClientHTTP(ce.WithTarget(g.url), cehttp.WithHeader("Authorization", "Bearer "+g.producer),
		cehttp.WithClient(http.Client{Transport: g.client.Transport}))
	if err != nil {
		t.Fatal(err)
	}
	for name, ctx := range map[string]context.Context{
		"binary": binding.WithForceBinary(t.Context()), "structured": binding.WithForceStructured(t.Context()),
	} {
		t.Run(name, func(t *testing.T) {
			before := len(g.kafka.produced())
			if result := client.Send(ctx, e); !ce.IsACK(result) {
				t.Fatalf("send: %v", result)
			}
			if diff := cmp.Diff(want, event(t, g.kafka.produced()[before])); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("batch", func(t *testing.T) {
		before := len(g.kafka.produced())
		second := e.Clone()
		second.SetID("sdk 2")
		req, err := cehttp.NewHTTPRequestFromEvents(t.Context(), g.url, []ce.Event{e, second})
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+g.producer)
		res, err := g.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		if body, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusAccepted {
			t.Fatalf("status %d: %s", res.StatusCode, body)
		}
		for i, id := range []string{"sdk 1", "sdk 2"} {
			want.ID = id
			if diff := cmp.Diff(want, event(t, g.kafka.produced()[before+i])); diff != "" {
				t.Errorf("event %d (-want +got):\n%s", i, diff)
			}
		}
	})
}

func TestBatch(t *testing.T) {
	g := start(t, Config{}, Deps{})
	t.Run("all accepted", func(t *testing.T) {
		got := g.post(t, "["+structured()+" , "+structured(`"id":"2"`)+"]", headers{"Content-Type", "application/cloudevents-batch+json"})
		want := []result{
			{Status: 202, ID: schemas.EventID("acme", "/s", "1"), CloudEventsID: "1", Position: "3.0"},
			{Status: 202, ID: schemas.EventID("acme", "/s", "2"), CloudEventsID: "2", Position: "3.1"},
		}
		if diff := cmp.Diff(want, got.Results); diff != "" || got.status != 202 || got.Accepted != 2 {
			t.Errorf("status %d, accepted %d, results (-want +got):\n%s", got.status, got.Accepted, diff)
		}
	})
	t.Run("none", func(t *testing.T) {
		got := g.post(t, "[]", headers{"Content-Type", "application/cloudevents-batch+json"})
		if got.status != 202 || got.raw != `{"accepted":0,"results":[]}`+"\n" {
			t.Errorf("status %d: %s", got.status, got.raw)
		}
	})
	t.Run("some", func(t *testing.T) {
		body := "[" + structured() + "," + structured(`"type":""`) + ",7," + structured(`"tenant":"other"`) + "]"
		got := g.post(t, body, headers{"Content-Type", "application/cloudevents-batch+json"})
		checkResults(t, got, []string{"202", "422 invalid_event /1/type", "422 invalid_event /2", "403 tenant_mismatch /3/tenant"})
	})
	t.Run("none accepted, for different reasons", func(t *testing.T) {
		got := g.post(t, "["+structured(`"type":""`)+"]", headers{"Content-Type", "application/cloudevents-batch+json"})
		checkResults(t, got, []string{"422 invalid_event /0/type"})
	})
	t.Run("lines", func(t *testing.T) {
		body := "{\"type\":\"a\"}\r\n\n" + structured() + "\n{\"type\":\n{\"type\":\"a\",\"x\":1}\n" + structured(`"specversion":"2"`)
		got := g.post(t, body, headers{"Content-Type", "application/x-ndjson"})
		checkResults(t, got, []string{
			"202", "202", "400 malformed_json /2", "422 invalid_event /3/x", "422 invalid_event /4/specversion",
		})
		if detail := got.Results[2].Problem.Errors[0].Detail; !strings.HasPrefix(detail, "line 4: malformed JSON at byte 8") {
			t.Errorf("detail %q", detail)
		}
	})
	t.Run("several tenants", func(t *testing.T) {
		body := `{"type":"a","tenant":"other"}` + "\n" + `{"type":"a","tenant":"nobody"}` + "\n" + `{"type":"a","tenant":"leaving"}` + "\n" + `{"type":"a","tenant":"acme"}`
		got := g.post(t, body, headers{"Content-Type", "application/jsonl", "Authorization", "Bearer " + adminKey})
		checkResults(t, got, []string{"202", "422 unknown_tenant /1/tenant", "403 tenant_deleted /2/tenant", "202"})
	})
}

// checkResults compares a 207 with lines "<status> <code> <pointer>".
func checkResults(t *testing.T, got answered, want []string) {
	t.Helper()
	if got.status != http.StatusMultiStatus {
		t.Errorf("status %d: %s", got.status, got.raw)
	}
	lines, accepted := make([]string, len(got.Results)), 0
	for i, r := range got.Results {
		lines[i] = strconv.Itoa(r.Status)
		if r.Problem == nil {
			accepted++
			if r.ID == "" || r.CloudEventsID == "" || r.Position == "" {
				t.Errorf("result %d: %+v", i, r)
			}
			continue
		}
		lines[i] += " " + r.Problem.Code
		if len(r.Problem.Errors) > 0 {
			lines[i] += " " + r.Problem.Errors[0].Pointer
		}
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	if got.Accepted != accepted {
		t.Errorf("accepted %d, want %d", got.Accepted, accepted)
	}
}

func pack(t *testing.T, coding string, body []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&out)
	if coding == "zstd" {
		var err error
		if w, err = zstd.NewWriter(&out); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestCompressed(t *testing.T) {
	g := start(t, Config{MaxBodyBytes: 1 << 20, Decompressors: 1}, Deps{})
	for _, coding := range []string{"gzip", "zstd"} {
		t.Run(coding, func(t *testing.T) {
			send := func(body []byte) answered {
				return g.do(t, http.MethodPost, body, headers{"Content-Type", "application/json", "Content-Encoding", coding})
			}
			good := pack(t, coding, []byte(`{"type":"a","data":"`+strings.Repeat("x", 9000)+`"}`))
			accepted := func(when string) {
				t.Helper()
				before := len(g.kafka.produced())
				if got := send(good); got.status != 202 {
					t.Fatalf("%s: status %d: %s", when, got.status, got.raw)
				}
				if n := len(g.kafka.produced()[before].Value); n != 9002 {
					t.Errorf("%s: %d bytes of data, want 9002", when, n)
				}
			}
			accepted("at first")
			if got := send(pack(t, coding, bytes.Repeat([]byte(" "), 64<<20))); got.status != 413 || got.Code != httpd.CodeTooLarge {
				t.Errorf("a bomb: status %d: %s", got.status, got.raw)
			}
			accepted("after a bomb")
			if got := send(good[:len(good)-5]); got.status != 400 || got.Code != CodeMalformedEncoding {
				t.Errorf("cut off: status %d: %s", got.status, got.raw)
			}
			accepted("after a broken body")
			exact := pack(t, coding, append([]byte(`{"type":"a"}`), bytes.Repeat([]byte(" "), 1<<20-12)...))
			if got := send(exact); got.status != 202 {
				t.Errorf("just as large as allowed: status %d: %s", got.status, got.raw)
			}
			over := pack(t, coding, append([]byte(`{"type":"a"}`), bytes.Repeat([]byte(" "), 1<<20-11)...))
			if got := send(over); got.status != 413 {
				t.Errorf("a byte too large: status %d: %s", got.status, got.raw)
			}
		})
	}
}

func TestDecompressorIsBounded(t *testing.T) {
	d := newDecompressor(1, 1<<20)
	dec := <-d.free // busy
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.run(ctx, "gzip", pack(t, "gzip", []byte("x"))); err == nil {
		t.Error("two bodies at once with one decoder")
	}
	d.free <- dec
	if got, err := d.run(t.Context(), "gzip", pack(t, "gzip", []byte("x"))); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestZstdWindow sends a frame whose header asks for a window of 1 GiB.
func TestZstdWindow(t *testing.T) {
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0x00, 0x00}
	if _, err := newDecompressor(1, 16<<20).run(t.Context(), "zstd", frame); err == nil {
		t.Error("a window of 1 GiB was taken")
	}
}

// TestChunked sends bodies without Content-Length.
func TestChunked(t *testing.T) {
	for name, tt := range map[string]struct {
		size, status int
	}{"fits": {1000, 202}, "over the server's limit": {5 << 20, 413}} {
		t.Run(name, func(t *testing.T) {
			g := start(t, Config{}, Deps{})
			body := `{"type":"a","data":"` + strings.Repeat("x", tt.size) + `"}`
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url, io.MultiReader(strings.NewReader(body)))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+g.producer)
			req.Header.Set("Content-Type", "application/json")
			res, err := g.client.Do(req)
			// The server may close while the client still writes: then all that
			// can be said is that nothing was taken.
			if err == nil {
				_ = res.Body.Close()
				if res.StatusCode != tt.status {
					t.Errorf("status %d, want %d", res.StatusCode, tt.status)
				}
			}
			if taken := len(g.kafka.produced()) > 0; taken != (tt.status == 202) {
				t.Errorf("taken: %t (%v)", taken, err)
			}
		})
	}
}

// TestNothingCrosses sends many distinct payloads at once: fasthttp reuses its
// buffers, and nothing of one request may turn up in the record of another.
func TestNothingCrosses(t *testing.T) {
	g := start(t, Config{MaxBodyBytes: 1 << 20}, Deps{})
	g.kafka.hold = true // records outlive many reads of the connection's buffers
	const senders, each = 16, 40
	var wg sync.WaitGroup
	release := make(chan struct{})
	go func() { // acknowledges in bursts
		defer close(release)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for n := 0; n < senders*each; <-tick.C {
			n += g.kafka.releaseSome()
		}
	}()
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				name := fmt.Sprintf("%02d-%03d-%s", s, i, strings.Repeat(string(rune('a'+s)), 1+i*7%200))
				h := headers{
					"Content-Type", "text/x-" + name[:6], "ce-specversion", "1.0", "ce-id", name, "ce-source", "/" + name,
					"ce-type", "t." + name, "ce-subject", name, "ce-partitionkey", name, "ce-ext", name, "tracestate", "k=" + name[:6],
					"traceparent", fmt.Sprintf("00-%032x-%016x-01", s+1, i+1),
				}
				body := name
				switch i % 3 {
				case 1:
					body = fmt.Sprintf(`{"type":"t.%[1]s","id":%[1]q,"source":"/%[1]s","subject":%[1]q,"partitionkey":%[1]q,`+
						`"datacontenttype":"text/x-%[2]s","extensions":{"ext":%[1]q},"data":%[1]q}`, name, name[:6])
					h = headers{"Content-Type", "application/json"}
				case 2:
					body = string(pack(t, "gzip", []byte(body)))
					h = append(h, "Content-Encoding", "gzip")
				}
				if got := g.post(t, body, h); got.status != 202 || got.CloudEventsID != name {
					t.Errorf("%s: status %d: %s", name, got.status, got.raw)
				}
			}
		})
	}
	wg.Wait()
	<-release
	seen := make(map[string]bool)
	for _, r := range g.kafka.produced() {
		e := event(t, r)
		n := e.ID
		seen[n] = true
		if e.Source != "/"+n || e.Type != "t."+n || e.Subject != n || e.PartitionKey != n || e.Extensions["ext"] != n ||
			string(e.Data) != n || e.DataContentType != "text/x-"+n[:6] || string(r.Key) != "acme/"+n ||
			e.TraceState != "" && e.TraceState != "k="+n[:6] {
			t.Errorf("event %s has something of another: %+v", n, e)
		}
	}
	if len(seen) != senders*each {
		t.Errorf("%d events, want %d", len(seen), senders*each)
	}
}

// releaseSome acknowledges what is held now, and goes on holding.
func (k *fakeKafka) releaseSome() int {
	k.mu.Lock()
	held := k.held
	k.held = nil
	k.mu.Unlock()
	for _, answer := range held {
		answer()
	}
	return len(held)
}

func TestAnswerIsJSON(t *testing.T) {
	g := start(t, Config{}, Deps{})
	got := g.postJSON(t, `{"type":"a","id":"<&>\""}`)
	if got.header.Get("Content-Type") != "application/json" || !json.Valid([]byte(got.raw)) || got.CloudEventsID != `<&>"` {
		t.Errorf("%s: %s", got.header.Get("Content-Type"), got.raw)
	}
}
