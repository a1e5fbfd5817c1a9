package deliver

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	ce "github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/signature"
	"github.com/postrider/postrider/schemas"
)

// equipped returns an endpoint as attempts need it, with keys that open what the
// sealer sealed.
func equipped(t *testing.T, seal *registry.Sealer, change func(*registry.Endpoint)) *target {
	t.Helper()
	x, err := tryEquip(seal, "https://api.example/", change)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func tryEquip(seal *registry.Sealer, publicURL string, change func(*registry.Endpoint)) (*target, error) {
	e := &registry.Endpoint{ID: "ep_1", Tenant: "acme", URL: "https://a.example/hooks"}
	change(e)
	x, err := newTarget(e, 7, 0, seal, DefaultMaxAge)
	if err != nil {
		return nil, err
	}
	x.extras, err = newExtras(e, seal, &thinConfig{seal: seal, publicURL: publicURL, keep: 7 * 24 * time.Hour})
	return x, err
}

func newSealer(t *testing.T) *registry.Sealer {
	t.Helper()
	keyset, err := registry.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	seal, err := registry.NewSealer(keyset)
	if err != nil {
		t.Fatal(err)
	}
	return seal
}

func delivery(contentType, data string) *schemas.Delivery {
	return &schemas.Delivery{
		EventID: "evt_1", Attempt: 1, MadeAt: time.Unix(1_795_000_000, 0), Position: schemas.Position{Partition: 3, Offset: 17},
		Event: schemas.Event{
			ID: "order-17", Source: "/shop", Type: "order.paid", Time: "2026-11-22T10:00:00Z", Subject: "sub", DataContentType: contentType,
			Tenant: "acme", PartitionKey: "jo", Extensions: map[string]string{"zone": "eu"}, TraceParent: "00-1-2-01", Data: []byte(data),
		},
	}
}

// asFormat returns the request of an attempt in a format.
func asFormat(t *testing.T, f registry.Format, d *schemas.Delivery) (http.Header, []byte) {
	t.Helper()
	x := equipped(t, newSealer(t), func(e *registry.Endpoint) { e.Format = f })
	req := newRequest(x, d, "00-3-4-01", time.Now())
	return headerOf(req), req.Body
}

// The CloudEvents library of others reads both modes, and finds the same event.
func TestCloudEvents(t *testing.T) {
	for _, format := range []registry.Format{registry.FormatStructured, registry.FormatBinary} {
		for _, tt := range []struct{ contentType, data string }{
			{"application/json", `{"total": 120}`},
			{"", `[1]`},
			{"text/plain", "a \"b\""},
			{"application/xml", "<a/>"},
			{"application/octet-stream", "\x00\xff"},
			{"application/json", ""},
			{"application/json", `{"n":`},
		} {
			t.Run(string(format)+" "+tt.contentType+" "+tt.data, func(t *testing.T) {
				d := delivery(tt.contentType, tt.data)
				header, body := asFormat(t, format, d)
				got, err := cehttp.NewEventFromHTTPRequest(&http.Request{Header: header, Body: io.NopCloser(bytes.NewReader(body))})
				if err != nil {
					t.Fatalf("%v: %v %s", err, header, body)
				}
				if err := got.Validate(); err != nil {
					t.Fatal(err)
				}
				attributes := map[string]any{
					"id": got.ID(), "source": got.Source(), "type": got.Type(), "time": got.Time().Format(time.RFC3339), "subject": got.Subject(),
					"contenttype": got.DataContentType(),
				}
				maps.Copy(attributes, got.Extensions())
				want := map[string]any{
					"id": "order-17", "source": "/shop", "type": "order.paid", "time": "2026-11-22T10:00:00Z", "subject": "sub",
					"contenttype": tt.contentType, "partitionkey": "jo", "zone": "eu",
				}
				if tt.contentType == "" && format == registry.FormatBinary {
					want["contenttype"] = ce.ApplicationJSON // which is what "" means
				}
				if diff := cmp.Diff(want, attributes); diff != "" {
					t.Errorf("attributes (-want +got):\n%s", diff)
				}
				if data := string(got.Data()); data != tt.data {
					t.Errorf("data %q, want %q", data, tt.data)
				}
			})
		}
	}
}

// Binary mode and raw send the payload as it came.
func TestPayloadAsItCame(t *testing.T) {
	for _, tt := range []struct {
		format                      registry.Format
		contentType, data, wantType string
	}{
		{registry.FormatRaw, "application/json; charset=utf-8", `{"n" : 1.0}`, "application/json; charset=utf-8"},
		{registry.FormatRaw, "", `{"n" : 1.0}`, "application/json"},
		{registry.FormatRaw, "", "\xff", "application/octet-stream"},
		{registry.FormatRaw, "text/csv", "", "text/csv"},
		{registry.FormatBinary, "application/json", `{"n" : 1.0}`, "application/json"},
		{registry.FormatBinary, "", `1`, "application/json"},
		{registry.FormatBinary, "", "\xff", ""},
	} {
		header, body := asFormat(t, tt.format, delivery(tt.contentType, tt.data))
		if string(body) != tt.data || header.Get("Content-Type") != tt.wantType || len(header["Content-Type"]) != min(1, len(tt.wantType)) {
			t.Errorf("%s %q: %q %q, want %q", tt.format, tt.contentType, header["Content-Type"], body, tt.wantType)
		}
	}
}

// No format tells the tenant's name, and the trace context only where asked for.
func TestNothingLeaks(t *testing.T) {
	seal := newSealer(t)
	for _, format := range formats() {
		for _, trace := range []bool{false, true} {
			x := equipped(t, seal, func(e *registry.Endpoint) { e.Format, e.TraceContext = format, trace })
			req := newRequest(x, delivery("application/json", `1`), "00-3-4-01", time.Now())
			var head strings.Builder
			_ = headerOf(req).Write(&head)
			all := head.String() + string(req.Body)
			if strings.Contains(all, "acme") || strings.Contains(strings.ToLower(all), "tenant") {
				t.Errorf("%s: the tenant is in %s", format, all)
			}
			cloud := format == registry.FormatStructured || format == registry.FormatBinary
			if strings.Contains(all, "00-1-2-01") != (cloud && trace) || strings.Contains(all, "00-3-4-01") != trace {
				t.Errorf("%s, trace %v: %s", format, trace, all)
			}
		}
	}
}

func formats() []registry.Format {
	return []registry.Format{"", registry.FormatStandard, registry.FormatStructured, registry.FormatBinary, registry.FormatRaw, registry.FormatThin}
}

// Every attempt sends the same bytes, whatever the format, compressed or not, and
// signs what it sends.
func TestSameBytesForEveryAttempt(t *testing.T) {
	keyset, err := registry.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	secret := signature.NewSecret()
	key, err := signature.Parse(secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range formats() {
		for _, compression := range []string{"", registry.CompressionGzip} {
			var first []byte
			for attempt := range 3 {
				seal, err := registry.NewSealer(keyset) // another worker's
				if err != nil {
					t.Fatal(err)
				}
				sealed, err := seal.Seal([]byte(secret), "acme", "ep_1", registry.SecretField)
				if err != nil {
					t.Fatal(err)
				}
				x := equipped(t, seal, func(e *registry.Endpoint) {
					e.Format, e.Compression, e.Secrets = format, compression, []registry.Secret{{Sealed: sealed}}
				})
				d := delivery("application/json", `{"total":120}`)
				d.Attempt = attempt + 1
				now := time.Now().Add(time.Duration(attempt) * time.Hour)
				req := newRequest(x, d, "", now)
				if attempt == 0 {
					first = req.Body
				}
				if !bytes.Equal(first, req.Body) {
					t.Errorf("%s %s: attempt %d sends %q, the first one sent %q", format, compression, attempt+1, req.Body, first)
				}
				if err := signature.Verify([]signature.Key{key}, headerOf(req), req.Body, now, time.Minute); err != nil {
					t.Errorf("%s %s: %v", format, compression, err)
				}
			}
		}
	}
}

// gzip has its effect on empty, small and large bodies alike.
func TestCompression(t *testing.T) {
	seal := newSealer(t)
	x := equipped(t, seal, func(e *registry.Endpoint) { e.Format, e.Compression = registry.FormatRaw, registry.CompressionGzip })
	for _, data := range []string{"", "1", strings.Repeat(`{"a":1}`, 100_000)} {
		req := newRequest(x, delivery("text/plain", data), "", time.Now())
		r, err := gzip.NewReader(bytes.NewReader(req.Body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != data || headerOf(req).Get("Content-Encoding") != "gzip" || headerOf(req).Get("Content-Type") != "text/plain" {
			t.Errorf("%d bytes: %d, %v, %v", len(data), len(got), err, headerOf(req))
		}
	}
}

// A thin body has type, id, and a URL whose token is a ticket for this event.
func TestThin(t *testing.T) {
	seal := newSealer(t)
	x := equipped(t, seal, func(e *registry.Endpoint) { e.Format = registry.FormatThin })
	d := delivery("application/json", `{"total":120}`)
	ticket := func() schemas.Ticket {
		t.Helper()
		var body struct{ Type, ID, URL string }
		if err := json.Unmarshal(newRequest(x, d, "", time.Now()).Body, &body); err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(body.URL)
		if err != nil || body.Type != d.Event.Type || body.ID != "evt_1" || u.Host != "api.example" || u.Path != "/v1/events/evt_1" {
			t.Fatalf("%+v %v", body, err)
		}
		plain, err := seal.OpenToken(u.Query().Get("token"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := schemas.DecodeTicket(plain)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	want := schemas.Ticket{Tenant: "acme", Event: "evt_1", Position: d.Position, ExpiresAt: d.MadeAt.Add(7 * 24 * time.Hour).Unix()}
	if diff := cmp.Diff(want, ticket()); diff != "" {
		t.Errorf("ticket (-want +got):\n%s", diff)
	}
	d.Event.Type, d.Event.Source, d.Position = schemas.TestType, schemas.TestSource, schemas.Position{}
	d.Event.ID = strings.Repeat("a", schemas.MaxEventID)
	if ticket().Inline != nil {
		t.Error("an event that is too large for a URL stands in one")
	}
	d.Event.ID = "order-17"
	if got, err := schemas.ParseStructured(ticket().Inline); err != nil || string(got.Data) != `{"total":120}` || got.Tenant != "" {
		t.Errorf("a test event, which no topic has: %+v %v", got, err)
	}
	if _, err := tryEquip(seal, "", func(e *registry.Endpoint) { e.Format = registry.FormatThin }); err == nil || !strings.Contains(err.Error(), "public-url") {
		t.Errorf("without a public url: %v", err)
	}
	if _, err := tryEquip(seal, "", func(e *registry.Endpoint) { e.Format = "later" }); err == nil || !strings.Contains(err.Error(), "later") {
		t.Errorf("a format of a later version: %v", err)
	}
}

// The worker's own settings reach thin bodies: where the API is, and how long
// events are kept.
func TestThinOfWorker(t *testing.T) {
	seal := newSealer(t)
	for keep, want := range map[time.Duration]time.Duration{0: 7 * 24 * time.Hour, 30 * time.Hour: 30 * time.Hour} {
		w := &Worker{cfg: Config{PublicURL: "https://api.example/base/"}.withDefaults(), deps: Deps{Sealer: seal}}
		w.deps.Broker.Retention.Events = keep
		e := &registry.Endpoint{ID: "ep_1", Tenant: "acme", URL: "https://a.example/", Receiver: registry.Receiver{Format: registry.FormatThin}}
		x, err := w.target(e, 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := x.content.thin; got.keep != want || got.publicURL != w.cfg.PublicURL {
			t.Errorf("%+v", got)
		}
		if body := string(newRequest(x, delivery("", "1"), "", time.Now()).Body); !strings.Contains(body, `"https://api.example/base/v1/events/evt_1?token=`) {
			t.Errorf("body %s", body)
		}
		w.cfg.PublicURL = ""
		if _, err := w.target(e, 1, 0); err == nil {
			t.Error("thin without a public url")
		}
	}
}
