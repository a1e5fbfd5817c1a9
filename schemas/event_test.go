package schemas_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/postrider/postrider/schemas"
)

func anEvent() schemas.Event {
	return schemas.Event{
		ID: "o-1", Source: "/shop", Type: "order.paid", Subject: "order/1", Time: "2026-11-22T10:00:00Z",
		DataContentType: "application/json", Tenant: "acme", PartitionKey: "c-7",
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Hops: 2,
		Extensions: map[string]string{"region": "eu", "color": "blue"}, Data: []byte(`{"total":120}`),
	}
}

// names draws attribute names that are not of the core.
func names() *rapid.Generator[string] { return rapid.StringMatching(`x[a-z0-9]{1,8}`) }

// texts draws values without control characters.
func texts() *rapid.Generator[string] { return rapid.StringMatching(`[ -~äß€]{0,20}`) }

func events() *rapid.Generator[schemas.Event] {
	return rapid.Custom(func(t *rapid.T) schemas.Event {
		e := schemas.Event{
			ID: "i" + texts().Draw(t, "id"), Source: "/" + texts().Draw(t, "source"), Type: "t." + names().Draw(t, "type"),
			Subject: texts().Draw(t, "subject"), Tenant: names().Draw(t, "tenant"), PartitionKey: texts().Draw(t, "key"),
			DataContentType: rapid.SampledFrom([]string{"", "application/json", "text/plain", "application/xml"}).Draw(t, "content type"),
			Hops:            rapid.IntRange(0, 5).Draw(t, "hops"),
			Data:            rapid.SliceOf(rapid.Byte()).Draw(t, "data"),
		}
		if m := rapid.MapOfN(names(), texts(), 0, 5).Draw(t, "extensions"); len(m) > 0 {
			e.Extensions = m
		}
		return e
	})
}

// What is written in the Kafka binding is read back the same.
func TestEventRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := events().Draw(t, "event")
		got, err := schemas.DecodeEvent(want.Data, schemas.AppendEventHeaders[schemas.Header](nil, &want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("event (-want +got):\n%s", diff)
		}
	})
}

// Whatever a producer says of its data, what stands in Kafka is its event and
// nobody else's.
func TestNobodyElsesEvent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := events().Draw(t, "event")
		want.Data = []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"a.b","tenant":"victim","data":1}`)
		word := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }
		want.DataContentType = word("before", "", " ", "\t", "x/") + word("media", "application/cloudevents", "Application/CloudEvents", "application/json", "application/cloudevent") +
			word("format", "", "+json", "-batch+json", "+JSON", "+avro") + word("after", "", " ", ";", "; charset=utf-8", ",application/json")
		if m := rapid.MapOfN(rapid.SampledFrom([]string{"contenttype", "ce", "x1", "specversion1"}), texts(), 0, 3).Draw(t, "extensions"); len(m) > 0 {
			want.Extensions = m
		}
		if want.Validate() != nil {
			return
		}
		got, err := schemas.DecodeEvent(want.Data, schemas.AppendEventHeaders[schemas.Header](nil, &want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("event (-want +got):\n%s", diff)
		}
	})
}

// The JSON format keeps everything, too; JSON data as JSON, all else as bytes.
func TestStructuredRoundTrip(t *testing.T) {
	want := anEvent()
	want.Hops = 0
	doc, err := schemas.AppendStructured(nil, &want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := schemas.ParseStructured(doc)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	want.DataContentType, want.Data = "application/xml", []byte("<a/>\xff")
	if doc, err = schemas.AppendStructured(nil, &want); err != nil {
		t.Fatal(err)
	}
	if got, err = schemas.ParseStructured(doc); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("binary event (-want +got):\n%s", diff)
	}
}

// A structured record on Kafka is told by its content type.
func TestDecodeStructuredRecord(t *testing.T) {
	value := []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"a.b","tenant":"acme","data":{"x": 1}}`)
	headers := []schemas.Header{
		{Key: "content-type", Value: []byte("application/cloudevents+json; charset=UTF-8")},
		{Key: "traceparent", Value: []byte("00-aa")},
	}
	e, err := schemas.DecodeEvent(value, headers)
	if err != nil {
		t.Fatal(err)
	}
	if e.Type != "a.b" || string(e.Data) != `{"x": 1}` || e.TraceParent != "00-aa" {
		t.Errorf("event %+v", e)
	}
}

func TestValidate(t *testing.T) {
	rows := []struct {
		name    string
		change  func(*schemas.Event)
		pointer string // "" is valid
	}{
		{"complete", func(*schemas.Event) {}, ""},
		{"no id", func(e *schemas.Event) { e.ID = "" }, "id"},
		{"no source", func(e *schemas.Event) { e.Source = "" }, "source"},
		{"no type", func(e *schemas.Event) { e.Type = "" }, "type"},
		{"no tenant", func(e *schemas.Event) { e.Tenant = "" }, "tenant"},
		{"tenant with a slash", func(e *schemas.Event) { e.Tenant = "a/b" }, "tenant"},
		{"tenant of the platform", func(e *schemas.Event) { e.Tenant = "_" }, "tenant"},
		{"tenant too long", func(e *schemas.Event) { e.Tenant = strings.Repeat("a", 65) }, "tenant"},
		{"id too long", func(e *schemas.Event) { e.ID = strings.Repeat("a", 1025) }, "id"},
		{"control character", func(e *schemas.Event) { e.Source = "a\nb" }, "source"},
		{"not UTF-8", func(e *schemas.Event) { e.Subject = "\xff" }, "subject"},
		{"type with a star", func(e *schemas.Event) { e.Type = "order.*" }, "type"},
		{"type with a space", func(e *schemas.Event) { e.Type = "order paid" }, "type"},
		{"bad time", func(e *schemas.Event) { e.Time = "yesterday" }, "time"},
		{"an event as data", func(e *schemas.Event) { e.DataContentType = "application/cloudevents+json" }, "datacontenttype"},
		{"an event as data, in other words", func(e *schemas.Event) { e.DataContentType = "\u0020Application/CloudEvents+JSON ;charset=utf-8" }, "datacontenttype"},
		{"events as data", func(e *schemas.Event) { e.DataContentType = "application/cloudevents-batch+json" }, "datacontenttype"},
		{"an event as data, in another format", func(e *schemas.Event) { e.DataContentType = "application/cloudevents+avro" }, "datacontenttype"},
		{"data of a similar type", func(e *schemas.Event) { e.DataContentType = "application/cloud+json" }, ""},
		{"no time", func(e *schemas.Event) { e.Time = "" }, ""},
		{"extension name", func(e *schemas.Event) { e.Extensions = map[string]string{"Bad-Name": "1"} }, "extensions"},
		{"extension of the payload's name", func(e *schemas.Event) { e.Extensions = map[string]string{"data": "1"} }, "extensions"},
		{"extension value", func(e *schemas.Event) { e.Extensions = map[string]string{"a": "\x00"} }, "a"},
		{"too many hops", func(e *schemas.Event) { e.Hops = 6 }, "hops"},
		{"attributes too large", func(e *schemas.Event) { e.Extensions = map[string]string{"a": strings.Repeat("x", 32<<10)} }, "attributes"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			e := anEvent()
			row.change(&e)
			err := e.Validate()
			var field *schemas.FieldError
			switch {
			case row.pointer == "" && err != nil:
				t.Errorf("Validate: %v", err)
			case row.pointer != "" && (!errors.As(err, &field) || field.Pointer != row.pointer):
				t.Errorf("Validate: %v, want an error at %s", err, row.pointer)
			}
		})
	}
}

func TestParseStructuredRefuses(t *testing.T) {
	rows := map[string]string{
		`{`: "", `[]`: "", `null`: "", `{"a":1} x`: "", ``: "",
		`{"specversion":"0.3","id":"1"}`:                      "specversion",
		`{"id":"1"}`:                                          "specversion",
		`{"specversion":"1.0","id":{}}`:                       "id",
		`{"specversion":"1.0","id":1.5}`:                      "id",
		`{"specversion":"1.0","Bad":"x"}`:                     "extensions",
		`{"specversion":"1.0","data":1,"data_base64":"YQ=="}`: "data",
		`{"specversion":"1.0","data_base64":"***"}`:           "data_base64",
		`{"specversion":"1.0","data_base64":7}`:               "data_base64",
	}
	for doc, pointer := range rows {
		_, err := schemas.ParseStructured([]byte(doc))
		var field *schemas.FieldError
		if !errors.As(err, &field) || field.Pointer != pointer {
			t.Errorf("ParseStructured(%s): %v, want an error at %q", doc, err, pointer)
		}
	}
}

func FuzzDecodeEvent(f *testing.F) {
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"/","type":"t"}`), "content-type", []byte("application/cloudevents+json"))
	f.Add([]byte(`x`), "ce_specversion", []byte("1.0"))
	f.Fuzz(func(t *testing.T, value []byte, key string, header []byte) {
		e, err := schemas.DecodeEvent(value, []schemas.Header{{Key: key, Value: header}, {Key: "ce_id", Value: header}})
		if err != nil || e.Validate() != nil {
			return
		}
		again, err := schemas.DecodeEvent(e.Data, schemas.AppendEventHeaders[schemas.Header](nil, &e))
		if err != nil {
			t.Fatalf("a valid event can't be read back: %v", err)
		}
		if diff := cmp.Diff(e, again); diff != "" {
			t.Fatalf("event (-want +got):\n%s", diff)
		}
	})
}

func FuzzParseStructured(f *testing.F) {
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"/","type":"t","data":{"a":[1,2]}}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		if e, err := schemas.ParseStructured(doc); err == nil {
			_ = e.Validate()
		}
	})
}
