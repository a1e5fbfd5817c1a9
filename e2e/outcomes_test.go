package e2e

import (
	"bufio"
	"bytes"
	"cmp"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/testkit"
	"github.com/postrider/postrider/schemas"
)

// outcomeCase is a receiver, or something done to a delivery, and what the topic
// attempts must say of it. row and class name a line of the outcome table in
// docs/delivery.md.
type outcomeCase struct {
	row, class string
	name       string
	url        func(t *testing.T) string
	settings   settings
	want       schemas.Outcome // of the last record
	status     int
	records    int // how many records the delivery has; 0 means 1
	// before and after happen before the event is sent and once it is.
	before func(g *gateway, endpoint string)
	after  func(g *gateway, endpoint, event string)
	also   func(t *testing.T, g *gateway, endpoint string, last schemas.Attempt)
	// elsewhere names the test of a line that can't be had through the binary
	// in seconds: file and function.
	elsewhere string
	// err is the record's error where it isn't the class.
	err string
	// needs is a setting of endpoints; in a build without it there is no such line.
	needs string
}

// Rows of the table, as it has them.
const (
	rowSuccess  = "2xx"
	rowStatus   = "3xx, other 4xx, other 5xx"
	rowConnect  = "no connection"
	rowTimeout  = "no answer in time"
	rowBroken   = "connection lost, answer is not HTTP"
	rowLocal    = "this machine is out of files, ports or memory"
	rowLost     = "parked for longer than Kafka kept it"
	rowDeleted  = "endpoint deleted"
	rowByHand   = "cancelled by hand"
	rowTooOld   = "older than `max_age`"
	rowCopy     = "a copy of a record that was handled, or of a delivery that went on or ended without it"
	rowRejected = "a record that can't be read"
)

func raw(handle func(net.Conn, *bufio.Reader)) func(*testing.T) string {
	return func(t *testing.T) string { return "http://" + rawServer(t, handle) + "/hook" }
}

func fixed(url string) func(*testing.T) string { return func(*testing.T) string { return url } }

func paused(g *gateway, endpoint string) { g.verb(endpoint, "pause") }

// outcomeCases are at least one for each line of the table.
func outcomeCases() []outcomeCase {
	const retry, delivered, ok = schemas.OutcomeRetry, schemas.OutcomeDelivered, "HTTP/1.1 200 OK\r\n"
	chunked := ok + "Transfer-Encoding: chunked\r\n\r\n"
	once := settings{"retry": map[string]any{"schedule": []string{"1s"}}}
	return append([]outcomeCase{
		{row: rowSuccess, name: "201", url: raw(answers("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")), want: delivered, status: 201},
		{row: rowSuccess, name: "100 Continue and Early Hints first", url: raw(answers("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")), want: delivered, status: 204},
		{row: rowSuccess, name: "answers before it has the body", url: raw(early("202 Accepted")), want: delivered, status: 202},
		{row: rowSuccess, name: "sends 1 GB", url: raw(pours(ok+"Content-Length: 1073741824\r\n\r\n", strings.Repeat("x", 64<<10), 0)), want: delivered, status: 200, also: truncated},
		{row: rowSuccess, name: "sends for ever", url: raw(pours(chunked, "4000\r\n"+strings.Repeat("x", 0x4000)+"\r\n", 0)), want: delivered, status: 200, also: truncated},

		{row: rowStatus, class: "http_3xx", name: "redirect to a private address", url: raw(answers("HTTP/1.1 307 Temporary Redirect\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n")), want: retry, status: 307},
		{row: rowStatus, class: "http_3xx", name: "redirect to an open address", url: redirect, want: retry, status: 302},
		{row: rowStatus, class: "http_4xx", name: "404", url: raw(answers("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")), want: retry, status: 404},
		{row: rowStatus, class: "http_4xx", name: "413 before it has the body", url: raw(early("413 Content Too Large")), want: retry, status: 413},
		{row: rowStatus, class: "http_5xx", name: "500", url: raw(answers("HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops")), want: retry, status: 500, also: keptAnswer},

		{row: "410", class: "gone", name: "410", url: raw(answers("HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")), want: retry, status: 410, also: disabledBy("gone")},
		{row: "429", class: "too_many_requests", name: "429 with Retry-After", settings: once, url: raw(answers("HTTP/1.1 429 Slow Down\r\nRetry-After: 1800\r\nContent-Length: 0\r\n\r\n")), want: retry, status: 429, also: waitsFor(30 * time.Minute)},
		{row: "503", class: "unavailable", name: "503 with Retry-After", settings: once, url: raw(answers("HTTP/1.1 503 Busy\r\nRetry-After: 1800\r\nContent-Length: 0\r\n\r\n")), want: retry, status: 503, also: waitsFor(30 * time.Minute)},
		{row: "503", class: "unavailable", name: "503 with a Retry-After of a day", settings: once, url: raw(answers("HTTP/1.1 503 Busy\r\nRetry-After: 86400\r\nContent-Length: 0\r\n\r\n")), want: retry, status: 503, also: waitsFor(time.Hour)},

		{row: rowConnect, class: "dns", name: "no such name", url: fixed("http://missing.invalid:8080/"), want: retry},
		{row: rowConnect, class: "connect", name: "an address that can't be connected to", url: fixed("http://127.255.255.255:8080/"), want: retry},
		{row: rowConnect, class: "connect_refused", name: "nobody listens", url: func(t *testing.T) string { return "http://" + closedPort(t) }, want: retry},
		{row: rowConnect, class: "connect_timeout", name: "no answer to the connect", url: func(t *testing.T) string { return "http://" + testkit.FullListener(t) }, want: retry},
		{row: rowConnect, class: "tls", name: "no TLS there", url: func(t *testing.T) string {
			return "https://" + rawServer(t, answers("HTTP/1.1 400 Bad Request\r\n\r\n"))
		}, want: retry},

		{row: rowTimeout, class: "timeout", name: "hangs before the headers", url: raw(stops("")), want: retry},
		{row: rowTimeout, class: "timeout", name: "hangs in the headers", url: raw(stops(ok + "A:")), want: retry},
		{row: rowTimeout, class: "timeout", name: "hangs after the headers", url: raw(stops(ok + "Content-Length: 9\r\n\r\nabc")), want: retry, status: 200},
		{row: rowTimeout, class: "timeout", name: "drips header bytes for ever", url: raw(pours(ok+"A: ", "a", 20*time.Millisecond)), want: retry},
		{row: rowTimeout, class: "timeout", name: "drips body bytes for ever", url: raw(pours(ok+"\r\n", "a", 20*time.Millisecond)), want: retry, status: 200},

		{row: rowBroken, class: "reset", name: "closes without an answer", url: raw(answers("")), want: retry},
		{row: rowBroken, class: "reset", name: "resets", url: raw(resets), want: retry},
		{row: rowBroken, class: "reset", name: "closes in a chunk", url: raw(answers(chunked + "9\r\nabc")), want: retry, status: 200},
		{row: rowBroken, class: "protocol", name: "a broken chunk", url: raw(answers(chunked + "zz\r\n")), want: retry, status: 200},
		{row: rowBroken, class: "protocol", name: "not HTTP", url: raw(answers("SSH-2.0-OpenSSH_9.6\r\n\r\n")), want: retry},
		{row: rowBroken, class: "protocol", name: "switches protocols", url: raw(answers("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")), want: retry},
		{row: rowBroken, class: "response_headers_too_large", name: "large headers", url: raw(answers(longHeader())), want: retry},
		{row: rowBroken, class: "response_headers_too_large", name: "Early Hints for ever", url: raw(pours("", "HTTP/1.1 103 Early Hints\r\nA: "+strings.Repeat("a", 1000)+"\r\n\r\n", 0)), want: retry},

		{row: "the address or port is not allowed", class: "blocked_address", name: "an address that control allows and deliver doesn't", url: fixed("http://10.0.0.1:8080/"), want: retry},
		{row: "a header or URL can't be sent", class: "invalid_request", elsewhere: "internal/egress/classify_test.go TestClassesOfConnecting"},
		{row: "no access token", class: "oauth", elsewhere: "e2e/receivers_test.go TestReceivers"},
		{row: "the operator's proxy fails, or can't connect", class: "proxy", elsewhere: "internal/egress/proxy_test.go TestClassesOfProxies"},
		{row: "five days of nothing but failures", class: "as above", elsewhere: "deliver/places_test.go TestFailingForDaysDisables"},
	}, append(endCases(), waitCases()...)...)
}

// waitCases are about endpoints that wait and deliveries that wait in their place.
func waitCases() []outcomeCase {
	refusing := raw(answers("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"))
	return []outcomeCase{
		{
			row: "ten failures in a row, or nine of ten in a minute", class: "as above", err: "http_5xx", name: "a breaker of one failure", needs: "breaker",
			url: refusing, settings: settings{"breaker": map[string]any{"failures": 1, "probe_after": "1h", "max_probe_after": "1h"}},
			want: schemas.OutcomeRetry, status: 500, also: breakerOpen,
		},
		{
			row: "its breaker is open, it is over its rate, or was told to wait", name: "over its rate", needs: "rate_limit",
			url:      func(t *testing.T) string { return newSink(t, nil).URL },
			settings: settings{"rate_limit": map[string]any{"per_second": 0.01, "burst": 1}}, want: schemas.OutcomeDelivered, status: 200,
			after: func(g *gateway, endpoint, _ string) {
				g.insist("POST", "/v1/tenants/acme/endpoints/"+endpoint+"/test", nil, nil)
			},
			also: oneParked,
		},
		{
			row: "its breaker is open, it is over its rate, or was told to wait", err: "too_many_requests", name: "told to wait",
			url:  raw(answers("HTTP/1.1 429 Slow Down\r\nRetry-After: 1800\r\nContent-Length: 0\r\n\r\n")),
			want: schemas.OutcomeRetry, status: 429, also: holdLifted,
		},
		{
			row: "failed, at an ordered endpoint", class: "in_place", err: "http_5xx", name: "stays in its place", needs: "ordered",
			url: refusing, settings: settings{"ordered": true}, want: schemas.OutcomeRetry, status: 500, also: inPlace,
		},
	}
}

// holdLifted holds that the endpoint's health says until when it waits, and that it
// waits no longer when it gets another url.
func holdLifted(t *testing.T, g *gateway, endpoint string, _ schemas.Attempt) {
	t.Helper()
	at := "/v1/tenants/acme/endpoints/" + endpoint
	eventually(t, 30*time.Second, "its health has a hold", func() bool {
		var got struct {
			Health struct {
				Hold struct {
					Since, Until time.Time
					Reason       string
				} `json:"hold"`
			} `json:"health"`
		}
		g.insist("GET", at, nil, &got)
		h := got.Health.Hold
		return h.Reason == "too_many_requests" && h.Until.Sub(h.Since) == 30*time.Minute
	})
	s := newSink(t, nil)
	g.insist("POST", at+"/test", nil, nil)
	g.insist("PATCH", at, settings{"url": s.URL}, nil)
	eventually(t, 30*time.Second, "the new receiver is sent something", func() bool { return len(g.attemptsOf()[endpoint]) == 2 })
}

// breakerOpen holds that the endpoint's health says that its breaker is open, and
// that enable has it probed.
func breakerOpen(t *testing.T, g *gateway, endpoint string, _ schemas.Attempt) {
	t.Helper()
	eventually(t, 30*time.Second, "its health has an open breaker", func() bool {
		var got struct {
			Health struct {
				Breaker map[string]any `json:"breaker"`
			} `json:"health"`
		}
		g.insist("GET", "/v1/tenants/acme/endpoints/"+endpoint, nil, &got)
		return len(got.Health.Breaker) > 0
	})
	g.insist("POST", "/v1/tenants/acme/endpoints/"+endpoint+"/test", nil, nil)
	g.verb(endpoint, "enable")
	eventually(t, 30*time.Second, "it is probed", func() bool { return len(g.attemptsOf()[endpoint]) == 2 })
}

// oneParked holds that a second delivery waits, without an attempt.
func oneParked(t *testing.T, g *gateway, endpoint string, _ schemas.Attempt) {
	t.Helper()
	eventually(t, 30*time.Second, "the second delivery is parked", func() bool { return g.lanesOf(endpoint).parked == 1 })
	if n := len(g.attemptsOf()[endpoint]); n != 1 {
		t.Errorf("%d attempts, want the one that the rate allows", n)
	}
}

// inPlace holds that the record of attempts says that the delivery stays where
// it stands.
func inPlace(t *testing.T, g *gateway, endpoint string, _ schemas.Attempt) {
	t.Helper()
	found := false
	g.scan(g.broker().Topics().Attempts, func(r *kgo.Record) {
		found = found || bytes.Contains(r.Value, []byte(endpoint)) && bytes.Contains(r.Value, []byte(`"in_place":true`))
	})
	if !found {
		t.Error("the attempt doesn't say in_place")
	}
}

// endCases are the ends that a delivery has without, or after, an attempt.
func endCases() []outcomeCase {
	receiver := func(t *testing.T) string { return newSink(t, nil).URL }
	refusing := raw(answers("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"))
	return []outcomeCase{
		{row: "the last attempt failed", class: "the class above", err: "http_5xx", name: "the last attempt failed", url: refusing, settings: settings{"retry": map[string]any{"schedule": []string{"1s"}}}, want: schemas.OutcomeExhausted, status: 500, records: 2, also: isDead("exhausted")},
		{
			row: rowTooOld, class: "max_age", name: "too old", url: receiver, settings: settings{"retry": map[string]any{"schedule": []string{"1s"}, "max_age": "3s"}},
			want: schemas.OutcomeExpired, before: paused, also: isDead("expired"),
			after: func(g *gateway, endpoint, _ string) { wait(g.t.Context(), 4*time.Second); g.verb(endpoint, "resume") },
		},
		{
			row: rowDeleted, class: "endpoint_deleted", name: "deleted", url: receiver, want: schemas.OutcomeCancelled, before: paused,
			after: func(g *gateway, endpoint, _ string) {
				g.insist("DELETE", "/v1/tenants/acme/endpoints/"+endpoint, nil, nil)
			},
		},
		{
			row: rowByHand, class: "by_hand", name: "cancelled by hand", url: receiver, want: schemas.OutcomeCancelled, before: paused,
			after: func(g *gateway, endpoint, event string) {
				g.insist("POST", "/v1/tenants/acme/deliveries/"+schemas.DeliveryID(event, endpoint, "")+"/cancel", settings{"endpoint_id": endpoint}, nil)
				wait(g.t.Context(), 4*time.Second) // it reaches the owner on another way than the resume
				g.verb(endpoint, "resume")
			},
		},
		{row: rowCopy, name: "a copy", url: refusing, settings: settings{"retry": map[string]any{"schedule": []string{"1s"}}}, want: schemas.OutcomeRepeat, records: 3, after: copyRecord},
		{row: rowRejected, class: "malformed", name: "unreadable", url: receiver, want: schemas.OutcomeRejected, records: 2, after: unreadableRecord},
		{row: rowLocal, name: "out of files", url: receiver, want: schemas.OutcomeDelivered, status: 200, elsewhere: "e2e/outcomes_test.go TestOutOfFiles"},
		{row: rowLost, class: "retention", elsewhere: "e2e/outcomes_test.go TestLostByRetention"},
	}
}

func truncated(t *testing.T, _ *gateway, _ string, last schemas.Attempt) {
	t.Helper()
	if !last.Truncated || len(last.Response) != 8<<10 {
		t.Errorf("%d bytes of the answer kept, truncated %v", len(last.Response), last.Truncated)
	}
}

func keptAnswer(t *testing.T, _ *gateway, _ string, last schemas.Attempt) {
	t.Helper()
	if last.Response != "oops" || last.Truncated {
		t.Errorf("answer kept as %q", last.Response)
	}
}

// redirect is a receiver that redirects to another one, which must get nothing.
func redirect(t *testing.T) string {
	other := newSink(t, nil)
	t.Cleanup(func() {
		if n := len(other.arrivals()); n > 0 {
			t.Errorf("a redirect was followed: %d requests", n)
		}
	})
	return "http://" + rawServer(t, answers("HTTP/1.1 302 Found\r\nLocation: "+other.URL+"/\r\nContent-Length: 0\r\n\r\n"))
}

// waitsFor holds that the next attempt is not due before a while.
func waitsFor(d time.Duration) func(*testing.T, *gateway, string, schemas.Attempt) {
	return func(t *testing.T, _ *gateway, _ string, last schemas.Attempt) {
		t.Helper()
		if last.NextAt == nil || last.NextAt.Sub(last.StartedAt) < d || last.NextAt.Sub(last.StartedAt) > 2*d {
			t.Errorf("next attempt at %v, started at %v: want %s later", last.NextAt, last.StartedAt, d)
		}
	}
}

func disabledBy(reason string) func(*testing.T, *gateway, string, schemas.Attempt) {
	return func(t *testing.T, g *gateway, endpoint string, _ schemas.Attempt) {
		t.Helper()
		eventually(t, 30*time.Second, "the endpoint is disabled", func() bool {
			var got struct {
				Effective string `json:"effective_state"`
				Health    struct {
					Reason string `json:"reason"`
				} `json:"health"`
			}
			g.insist("GET", "/v1/tenants/acme/endpoints/"+endpoint, nil, &got)
			return got.Effective == "disabled" && got.Health.Reason == reason
		})
	}
}

func isDead(reason string) func(*testing.T, *gateway, string, schemas.Attempt) {
	return func(t *testing.T, g *gateway, endpoint string, _ schemas.Attempt) {
		t.Helper()
		found := 0
		g.scan(g.broker().Topics().Dead, func(r *kgo.Record) {
			if d, err := schemas.DecodeDelivery(r.Key, r.Value, r.Headers); err == nil && d.Endpoint == endpoint && d.Reason == reason {
				found++
			}
		})
		if found != 1 {
			t.Errorf("%d records in dead", found)
		}
	}
}

// recordOf waits for an endpoint's record of deliveries.
func (g *gateway) recordOf(endpoint string) (found *kgo.Record) {
	g.t.Helper()
	eventually(g.t, time.Minute, "the delivery is made", func() bool {
		g.scan(g.broker().Topics().Deliveries, func(r *kgo.Record) {
			if string(r.Key) == endpoint {
				found = r
			}
		})
		return found != nil
	})
	return found
}

func (g *gateway) produceTo(r *kgo.Record) {
	g.t.Helper()
	cl, err := g.broker().NewClient(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		g.t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(g.t.Context(), r).FirstErr(); err != nil {
		g.t.Fatal(err)
	}
}

// copyRecord writes the record of the second attempt again, once that is
// handled. (Fan-out writes that of the first once, in a transaction.)
func copyRecord(g *gateway, endpoint, _ string) {
	g.t.Helper()
	eventually(g.t, time.Minute, "the second attempt is made", func() bool { return len(g.attemptsOf()[endpoint]) == 2 })
	r := g.recordOf(endpoint)
	g.produceTo(&kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers})
}

// unreadableRecord writes a record for an endpoint that is no delivery.
func unreadableRecord(g *gateway, endpoint, _ string) {
	g.t.Helper()
	r := g.recordOf(endpoint)
	eventually(g.t, time.Minute, "the good one is delivered", func() bool { return len(g.attemptsOf()[endpoint]) == 1 })
	g.produceTo(&kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: []byte("no headers")})
}

// attemptsOf returns the records of attempts by endpoint.
func (g *gateway) attemptsOf() map[string][]schemas.Attempt {
	g.t.Helper()
	out := map[string][]schemas.Attempt{}
	g.scan(g.broker().Topics().Attempts, func(r *kgo.Record) {
		a, err := schemas.DecodeAttempt(r.Value)
		if err != nil {
			g.t.Errorf("attempt record: %v", err)
			return
		}
		out[a.Endpoint] = append(out[a.Endpoint], a)
	})
	return out
}

// Every line of the outcome table in docs/delivery.md has a case here, and what
// is written there is what the topic attempts says.
func TestOutcomeTable(t *testing.T) {
	g := newGateway(t)
	g.flags = map[string][]string{"control-1": {"--egress-allow-cidr", "10.0.0.0/8"}}
	g.startAll().tenant()
	has := g.endpointMembers()
	cases := slices.DeleteFunc(outcomeCases(), func(c outcomeCase) bool { return c.needs != "" && !has[c.needs] })
	t.Run("every line has a case", func(t *testing.T) { coversTable(t, cases) })
	g.outcomes(t, cases)
}

// outcomes makes an endpoint for each case, sends it an event and holds what
// attempts says of it.
func (g *gateway) outcomes(t *testing.T, cases []outcomeCase) {
	t.Helper()
	endpoints := make([]string, len(cases))
	for i, c := range cases {
		if c.elsewhere != "" {
			continue
		}
		// What hangs takes as long as this; what answers must do so within it on a busy machine, too.
		s := settings{"timeout": "4s", "retry": map[string]any{"schedule": []string{"1h"}}, "subscriptions": []any{map[string]any{"types": []string{endpointType(i)}}}}
		maps.Copy(s, c.settings)
		endpoints[i] = g.endpoint(c.url(t), s)
		if c.before != nil {
			c.before(g, endpoints[i])
		}
	}
	events := make([]string, len(cases))
	for i := range cases {
		if endpoints[i] != "" {
			events[i] = g.event(endpointType(i), map[string]any{"filler": strings.Repeat("x", 4<<10)})
		}
	}
	for i, c := range cases {
		if c.after != nil {
			g.recordOf(endpoints[i])
			c.after(g, endpoints[i], events[i])
		}
	}
	for i, c := range cases {
		if c.elsewhere != "" {
			continue
		}
		t.Run(c.row+"/"+c.name, func(t *testing.T) {
			var records []schemas.Attempt
			eventually(t, 2*time.Minute, "the outcome is known", func() bool {
				records = g.attemptsOf()[endpoints[i]]
				return len(records) >= max(1, c.records)
			})
			c.holds(t, g, endpoints[i], records)
		})
	}
}

func endpointType(i int) string { return "outcome." + string(rune('a'+i/26)) + string(rune('a'+i%26)) }

func (c *outcomeCase) holds(t *testing.T, g *gateway, endpoint string, records []schemas.Attempt) {
	t.Helper()
	last := records[len(records)-1]
	class := cmp.Or(c.err, c.class)
	if len(records) != max(1, c.records) || last.Outcome != c.want || last.Error != class || last.Status != c.status {
		t.Errorf("%d records, the last %s, error %q, status %d (%s); want %d, %s, %q, %d", len(records), last.Outcome, last.Error, last.Status,
			last.Detail, max(1, c.records), c.want, class, c.status)
	}
	if last.Error != "" && last.Status == 0 && c.want == schemas.OutcomeRetry && last.Detail == "" {
		t.Error("a failure without a detail")
	}
	if c.also != nil {
		c.also(t, g, endpoint, last)
	}
}

// coversTable holds that the cases and the table name the same lines.
func coversTable(t *testing.T, cases []outcomeCase) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "delivery.md"))
	if err != nil {
		t.Fatal(err)
	}
	lines := tableLines(t, string(text))
	covered := map[string]bool{}
	for _, c := range cases {
		line := c.row + " | " + c.class
		covered[line] = true
		if !lines[line] {
			t.Errorf("the case %q is of a line %q that the table doesn't have", c.name, line)
		}
		if c.elsewhere != "" {
			file, name, _ := strings.Cut(c.elsewhere, " ")
			source, err := os.ReadFile(filepath.Join("..", file))
			if err != nil || !bytes.Contains(source, []byte("func "+name+"(")) {
				t.Errorf("%s is not there: %v", c.elsewhere, err)
			}
		}
	}
	for line := range lines {
		if !covered[line] {
			t.Errorf("no case for the line %q of the table", line)
		}
	}
}

// tableLines returns the lines of the outcome table, one for each error class:
// "what happened | class".
func tableLines(t *testing.T, doc string) map[string]bool {
	t.Helper()
	_, table, found := strings.Cut(doc, "\n| what happened |")
	if !found {
		t.Fatal("docs/delivery.md has no outcome table")
	}
	classes := regexp.MustCompile("`([a-z0-9_]+)`")
	out := map[string]bool{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 {
			if len(out) > 0 {
				break // the end of the table
			}
			continue
		}
		what, class := strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2])
		if strings.HasPrefix(what, "--") || strings.HasPrefix(class, "--") {
			continue
		}
		named := classes.FindAllStringSubmatch(class, -1)
		if len(named) == 0 {
			out[what+" | "+class] = true
		}
		for _, one := range named {
			out[what+" | "+one[1]] = true
		}
	}
	return out
}

// A worker that may open no more files doesn't blame the endpoint: the same
// attempt is made again, and counts once.
func TestOutOfFiles(t *testing.T) {
	g := newGateway(t).startAll()
	g.tenant()
	known := newSink(t, nil)
	g.endpoint(known.URL, settings{"subscriptions": []any{map[string]any{"types": []string{"before"}}}})
	first := g.event("before", 1)
	eventually(t, time.Minute, "the worker is warm", func() bool { return len(known.missing([]string{first})) == 0 })
	s := newSink(t, nil)
	endpoint := g.endpoint(s.URL, settings{"subscriptions": []any{map[string]any{"types": []string{"after"}}}})
	pid := g.proc("deliver-1").cmd.Process.Pid
	var old unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: old.Max}, nil); err != nil {
		t.Fatal(err)
	}
	event := g.event("after", 1)
	g.recordOf(endpoint)
	wait(t.Context(), 4*time.Second)
	if n := len(s.arrivals()); n > 0 {
		t.Fatalf("%d requests without a file to be had", n)
	}
	if records := g.attemptsOf()[endpoint]; len(records) > 0 {
		t.Errorf("%d outcomes, the first %s %s", len(records), records[0].Outcome, records[0].Error)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &old, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the event arrives", func() bool { return len(s.missing([]string{event})) == 0 })
	eventually(t, time.Minute, "its outcome is known", func() bool { return len(g.attemptsOf()[endpoint]) > 0 })
	if records := g.attemptsOf()[endpoint]; len(records) != 1 || records[0].Attempt != 1 || records[0].Outcome != schemas.OutcomeDelivered {
		t.Errorf("%+v", records)
	}
	if n := len(s.arrivals()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// A parked delivery whose record Kafka deleted ends as lost_by_retention once
// its endpoint goes on; one that is still there is delivered.
func TestLostByRetention(t *testing.T) {
	g := newGateway(t).startAll()
	g.tenant()
	s := newSink(t, nil)
	endpoint := g.endpoint(s.URL, nil)
	g.verb(endpoint, "pause")
	g.event("order.paid", 1)
	r := g.recordOf(endpoint)
	eventually(t, time.Minute, "it is parked", func() bool { return g.lanesOf(endpoint).parked == 1 })
	cl, err := g.broker().NewClient()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	end, err := broker.LastStableOffset(t.Context(), cl, r.Topic, r.Partition)
	if err != nil {
		t.Fatal(err)
	}
	cut := kadm.Offsets{}
	cut.AddOffset(r.Topic, r.Partition, end, -1)
	if got, err := kadm.NewClient(cl).DeleteRecords(t.Context(), cut); err != nil || got.Error() != nil {
		t.Fatal(err, got.Error())
	}
	kept := g.event("order.paid", 2)
	eventually(t, time.Minute, "the next is parked", func() bool { return g.lanesOf(endpoint).parked == 2 })
	g.verb(endpoint, "resume")
	eventually(t, time.Minute, "what is left arrives", func() bool { return len(s.missing([]string{kept})) == 0 })
	var records []schemas.Attempt
	eventually(t, time.Minute, "both have an outcome", func() bool { records = g.attemptsOf()[endpoint]; return len(records) >= 2 })
	ends := map[schemas.Outcome]int{}
	for _, a := range records {
		ends[a.Outcome]++
		if a.Outcome == schemas.OutcomeLostByRetention && (a.Error != "retention" || a.Offset != r.Offset) {
			t.Errorf("%+v", a)
		}
	}
	if ends[schemas.OutcomeLostByRetention] != 1 || ends[schemas.OutcomeDelivered] != 1 {
		t.Errorf("outcomes %v", ends)
	}
	eventually(t, 30*time.Second, "readiness says so", func() bool {
		got, err := g.call("deliver-1", "GET", "/readyz", nil, nil)
		return err == nil && bytes.Contains(got.body, []byte("lost_by_retention"))
	})
}
