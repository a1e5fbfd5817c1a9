package schemas

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func wholeEvent(contentType, data string) *Event {
	return &Event{
		ID: "order-17", Source: "/shop", Type: "order.paid", Subject: "a b", Time: "2026-11-22T10:00:00Z", DataSchema: "https://a.example/s",
		DataContentType: contentType, Tenant: "acme", PartitionKey: "Jörg \"1\" 50%", TraceParent: "00-1-2-01", TraceState: "a=b",
		Extensions: map[string]string{"zone": "eu", "attempts": "3"}, Data: []byte(data),
	}
}

// The attributes are headers, percent-encoded; the tenant is none of them.
func TestHTTPHeaders(t *testing.T) {
	want := map[string]string{
		"ce-specversion": "1.0", "ce-id": "order-17", "ce-source": "/shop", "ce-type": "order.paid", "ce-subject": "a%20b",
		"ce-time": "2026-11-22T10:00:00Z", "ce-dataschema": "https://a.example/s", "ce-partitionkey": "J%C3%B6rg%20%221%22%2050%25",
		"ce-zone": "eu", "ce-attempts": "3",
	}
	for _, trace := range []bool{false, true} {
		got := map[string]string{}
		wholeEvent("text/plain", "").HTTPHeaders(trace, func(name, value string) { got[name] = value })
		if trace {
			want["ce-traceparent"], want["ce-tracestate"] = "00-1-2-01", "a=b"
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("trace %v (-want +got):\n%s", trace, diff)
		}
	}
}

// What AppendPublic writes is what ParseStructured reads, less the tenant and the
// trace; data stands as its media type asks.
func TestAppendPublic(t *testing.T) {
	for _, tt := range []struct{ name, contentType, data, member string }{
		{"json", "application/json", `{"n": 1.0, "s":"<é>"}`, `,"data":{"n": 1.0, "s":"<é>"}}`},
		{"json by default", "", `[1]`, `,"data":[1]}`},
		{"json suffix", "application/x+json", `null`, `,"data":null}`},
		{"claims to be json", "application/json", `{"n":`, `,"data_base64":"eyJuIjo="}`},
		{"text", "text/plain; charset=utf-8", "a \"b\"\n", `,"data":"a \"b\"\n"}`},
		{"xml", "application/xml", "<a/>", `,"data":"\u003ca/\u003e"}`},
		{"text that is not UTF-8", "text/plain", "\xff", `,"data_base64":"/w=="}`},
		{"binary", "application/octet-stream", "\x00\xff", `,"data_base64":"AP8="}`},
		{"none", "text/plain", "", "}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := wholeEvent(tt.contentType, tt.data)
			doc := AppendPublic([]byte("x"), e, false)[1:]
			if tail := string(doc[len(doc)-len(tt.member):]); tail != tt.member {
				t.Errorf("data is %s, want %s", tail, tt.member)
			}
			got, err := ParseStructured(doc)
			if err != nil {
				t.Fatalf("%v: %s", err, doc)
			}
			want := *e
			want.Tenant, want.TraceParent, want.TraceState = "", "", ""
			if len(want.Data) == 0 {
				want.Data = nil
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if again := AppendPublic(nil, e, false); string(again) != string(doc) {
				t.Error("two documents of one event differ")
			}
		})
	}
	if got, err := ParseStructured(AppendPublic(nil, wholeEvent("", "1"), true)); err != nil || got.TraceParent != "00-1-2-01" || got.TraceState != "a=b" {
		t.Errorf("trace context: %+v %v", got, err)
	}
}
