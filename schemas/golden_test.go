package schemas_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/postrider/postrider/schemas"
)

var update = flag.Bool("update", false, "write the golden files anew")

func aDelivery() schemas.Delivery {
	e := anEvent()
	return schemas.Delivery{
		Event: e, ID: schemas.DeliveryID(e.EventID(), "ep_01h455vb4pex5vsknk084sn02q", ""), EventID: e.EventID(),
		Endpoint: "ep_01h455vb4pex5vsknk084sn02q", Position: schemas.Position{Partition: 3, Offset: 77}, Registry: 12,
		Replay: "rpl_01h455vb4pex5vsknk084sn02q", Attempt: 2,
		MadeAt: time.UnixMilli(1795342800123).UTC(), FirstAttemptAt: time.UnixMilli(1795342800456).UTC(),
		DueAt: time.UnixMilli(1795342806000).UTC(), Levels: 6,
		LastTrace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203332-01", Reason: "exhausted",
	}
}

func aPage() schemas.Page {
	e := anEvent()
	return schemas.Page{
		Event: e, EventID: e.EventID(), Position: schemas.Position{Partition: 3, Offset: 77}, Registry: 12,
		MadeAt: time.UnixMilli(1795342800123).UTC(), Endpoints: []string{"ep_01h455vb4pex5vsknk084sn02q", "ep_01h455vb4pex5vsknk084sn02r"},
	}
}

func anAttempt() schemas.Attempt {
	next := time.UnixMilli(1795342806000).UTC()
	return schemas.Attempt{
		Offset: 5, Tenant: "acme", Endpoint: "ep_01h455vb4pex5vsknk084sn02q", Event: anEventID(), Type: "order.paid",
		Position: schemas.Position{Partition: 3, Offset: 77}, Delivery: "dlv_01h455vb4pex5vsknk084sn02q", Attempt: 1,
		Outcome: schemas.OutcomeRetry, Status: 503, Error: "unavailable", StartedAt: time.UnixMilli(1795342800456).UTC(),
		Duration: 12.345, NextAt: &next, Response: "busy", TraceID: "0af7651916cd43dd8448eb211c80319c", SpanID: "b7ad6b7169203331",
	}
}

func anEventID() string { e := anEvent(); return e.EventID() }

func aDecision() schemas.Decision {
	return schemas.Decision{
		Tenant: "acme", Event: anEventID(), Type: "order.paid", Position: schemas.Position{Partition: 3, Offset: 77},
		Registry: 12, At: time.UnixMilli(1795342800456).UTC(), First: &schemas.Position{Partition: 3, Offset: 70},
		Reasons: map[schemas.Reason]schemas.ReasonCount{
			schemas.ReasonFiltered: {Count: 2, IDs: []string{"sub_01h455vb4pex5vsknk084sn02q", "sub_01h455vb4pex5vsknk084sn02r"}},
		},
	}
}

// golden compares a wire format with its file: a change here is a change of the
// format, and needs a new version.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// lines shows headers and value as text, a header a line.
func lines(headers []schemas.Header, value []byte) []byte {
	var out bytes.Buffer
	for _, h := range headers {
		fmt.Fprintf(&out, "%s: %s\n", h.Key, h.Value)
	}
	fmt.Fprintf(&out, "\n%s\n", value)
	return out.Bytes()
}

func TestGoldenRecords(t *testing.T) {
	e, d, p, a, dec := anEvent(), aDelivery(), aPage(), anAttempt(), aDecision()
	golden(t, "event.v1.txt", lines(schemas.AppendEventHeaders[schemas.Header](nil, &e), e.Data))
	golden(t, "delivery.v1.txt", lines(schemas.AppendDeliveryHeaders[schemas.Header](nil, &d), d.Event.Data))
	golden(t, "page.v1.txt", lines(schemas.AppendPageHeaders[schemas.Header](nil, &p), p.Event.Data))
	rejected := schemas.AppendRejection[schemas.Header](nil, schemas.RejectMalformed, "specversion: is required", true)
	golden(t, "rejected.v1.txt", lines(schemas.AppendOrigin(rejected, "postrider.events", 3, 77), []byte("x")))
	attempt, err := schemas.EncodeAttempt(&a)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "attempt.v1.json", append(attempt, '\n'))
	decision, err := schemas.EncodeDecision(&dec)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "decision.v1.json", append(decision, '\n'))
}

// Readers take records of the version before (without a version) and of the one
// after (with headers and fields that we do not know).
func TestReadersOfOtherVersions(t *testing.T) {
	d := aDelivery()
	headers := schemas.AppendDeliveryHeaders[schemas.Header](nil, &d)
	var before, after []schemas.Header
	for _, h := range headers {
		if h.Key == "pr_v" {
			h.Value = []byte("2")
		} else {
			before = append(before, h)
		}
		after = append(after, h)
	}
	after = append(after, schemas.Header{Key: "pr_new", Value: []byte{0xff}}, schemas.Header{Key: "other", Value: nil})
	for name, headers := range map[string][]schemas.Header{"before": before, "after": after} {
		got, err := schemas.DecodeDelivery([]byte(d.Endpoint), d.Event.Data, headers)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(d, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	a, err := schemas.DecodeAttempt([]byte(`{"v":2,"endpoint_id":"ep_1","outcome":"new_outcome","offset":9,"new":{"x":1}}`))
	if err != nil || a.Offset != 9 {
		t.Errorf("DecodeAttempt: %+v, %v", a, err)
	}
	dec, err := schemas.DecodeDecision([]byte(`{"v":2,"event_id":"evt_1","reasons":{"new":{"count":1,"x":2}},"new":1}`))
	if err != nil || dec.Reasons["new"].Count != 1 {
		t.Errorf("DecodeDecision: %+v, %v", dec, err)
	}
}

// The golden files keep the JSON Schemas that stand beside the Go types.
func TestJSONSchemas(t *testing.T) {
	for schema, file := range map[string]string{"attempt.schema.json": "attempt.v1.json", "decision.schema.json": "decision.v1.json"} {
		s, err := jsonschema.NewCompiler().Compile(filepath.Join("json", schema))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(doc, &v); err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(v); err != nil {
			t.Errorf("%s does not keep %s: %v", file, schema, err)
		}
		if m, ok := v.(map[string]any); ok {
			delete(m, "event_id")
			m["surprise"] = true
			if s.Validate(m) == nil {
				t.Errorf("%s takes a record without event_id", schema)
			}
		}
	}
	for schema, fields := range map[string]map[string]string{
		"event.schema.json":    headerMap(schemas.AppendEventHeaders[schemas.Header](nil, new(anEvent()))),
		"delivery.schema.json": headerMap(schemas.AppendDeliveryHeaders[schemas.Header](nil, new(aDelivery()))),
	} {
		s, err := jsonschema.NewCompiler().Compile(filepath.Join("json", schema))
		if err != nil {
			t.Fatal(err)
		}
		doc := map[string]any{}
		for k, v := range fields {
			doc[k] = v
		}
		if err := s.Validate(doc); err != nil {
			t.Errorf("headers do not keep %s: %v", schema, err)
		}
		delete(doc, "ce_type")
		if s.Validate(doc) == nil {
			t.Errorf("%s takes headers without ce_type", schema)
		}
	}
}

func headerMap(headers []schemas.Header) map[string]string {
	out := map[string]string{}
	for _, h := range headers {
		out[h.Key] = string(h.Value)
	}
	return out
}

func TestDecodeDeliveryRefuses(t *testing.T) {
	d := aDelivery()
	full := schemas.AppendDeliveryHeaders[schemas.Header](nil, &d)
	without := func(key string) []schemas.Header {
		var out []schemas.Header
		for _, h := range full {
			if h.Key != key {
				out = append(out, h)
			}
		}
		return out
	}
	with := func(key, value string) []schemas.Header {
		return append(without(key), schemas.Header{Key: key, Value: []byte(value)})
	}
	for name, row := range map[string]struct {
		key     string
		headers []schemas.Header
	}{
		"no endpoint":      {"", full},
		"no delivery":      {"ep_1", without("pr_delivery")},
		"no event":         {"ep_1", without("pr_event")},
		"no tenant":        {"ep_1", without("ce_tenant")},
		"attempt 0":        {"ep_1", with("pr_attempt", "0")},
		"attempt text":     {"ep_1", with("pr_attempt", "x")},
		"attempt huge":     {"ep_1", with("pr_attempt", "99999999999")},
		"made negative":    {"ep_1", with("pr_made", "-5")},
		"position":         {"ep_1", with("pr_position", "7")},
		"levels too large": {"ep_1", with("pr_levels", "4294967296")},
	} {
		if _, err := schemas.DecodeDelivery([]byte(row.key), nil, row.headers); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A retry's headers are no larger than the first attempt's by more than the
// fixed fields: they don't grow with the attempts.
func TestHeadersDoNotGrow(t *testing.T) {
	d := aDelivery()
	size := func() (n int) {
		for _, h := range schemas.AppendDeliveryHeaders[schemas.Header](nil, &d) {
			n += len(h.Key) + len(h.Value)
		}
		return n
	}
	first := size()
	for range 20 {
		back, err := schemas.DecodeDelivery([]byte(d.Endpoint), d.Event.Data, schemas.AppendDeliveryHeaders[schemas.Header](nil, &d))
		if err != nil {
			t.Fatal(err)
		}
		d = back
		d.Attempt++
	}
	if got := size(); got > first+1 {
		t.Errorf("headers grew from %d to %d bytes", first, got)
	}
}

func FuzzDecodeDelivery(f *testing.F) {
	f.Add("pr_position", []byte("1.2"), []byte("data"))
	f.Add("pr_endpoints", []byte("a b c"), []byte(""))
	f.Fuzz(func(t *testing.T, key string, header, value []byte) {
		d := aDelivery()
		headers := append(schemas.AppendDeliveryHeaders[schemas.Header](nil, &d), schemas.Header{Key: key, Value: header})
		if got, err := schemas.DecodeDelivery([]byte("ep_1"), value, headers); err == nil && got.Attempt < 1 {
			t.Fatalf("attempt %d", got.Attempt)
		}
		if p, err := schemas.DecodePage(value, headers); err == nil && len(p.Endpoints) > schemas.MaxPageEndpoints {
			t.Fatalf("%d endpoints", len(p.Endpoints))
		}
		_, _ = schemas.DecodeAttempt(value)
		_, _ = schemas.DecodeDecision(value)
	})
}
