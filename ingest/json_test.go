package ingest

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/schemas"
)

// FuzzJSON compares the walkers with encoding/json.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a":1,"b":{"c":[1,"]}\"",null]},"c":"x"}`, `[1,2.5e3,"a",[],{}]`, `{}`, `[]`, ` { "a" : true , "\u0061" : -0 } `, `"x"`, `7`, `{`, `[1 2]`,
		"{\"\xff\":\"\\ud800\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if (checkJSON(doc) == "") != json.Valid(doc) {
			t.Fatalf("checkJSON(%q) = %q", doc, checkJSON(doc))
		}
		if !json.Valid(doc) {
			return
		}
		var values []json.RawMessage
		wantArray := bytes.HasPrefix(bytes.TrimSpace(doc), []byte("[")) && json.Unmarshal(doc, &values) == nil
		got := make([]json.RawMessage, 0)
		if array := elements(doc, func(value []byte) bool { got = append(got, value); return true }); array != wantArray {
			t.Fatalf("elements(%q) = %t, want %t", doc, array, wantArray)
		}
		if diff := cmp.Diff(values, got); wantArray && diff != "" {
			t.Fatalf("elements of %q (-want +got):\n%s", doc, diff)
		}
		var all map[string]json.RawMessage
		wantObject := bytes.HasPrefix(bytes.TrimSpace(doc), []byte("{")) && json.Unmarshal(doc, &all) == nil
		found := make(map[string]json.RawMessage)
		object, err := members(doc, func(name string, value []byte) error {
			found[strings.ToValidUTF8(name, "\ufffd")] = value
			return nil
		})
		if object != wantObject || err != nil {
			t.Fatalf("members(%q) = %t, %v, want %t", doc, object, err, wantObject)
		}
		for name, value := range found {
			if !json.Valid(value) {
				t.Fatalf("member %q of %q is %q", name, doc, value)
			}
		}
		if wantObject && bytes.IndexFunc(doc, func(r rune) bool { return r == '\ufffd' }) < 0 {
			if diff := cmp.Diff(all, found); diff != "" {
				t.Fatalf("members of %q (-want +got):\n%s", doc, diff)
			}
		}
	})
}

// FuzzDecode sends whatever it likes through the decoders of bodies: they must
// neither panic nor let through what is not valid.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"type":"a","data":{}}`), byte(formPlain))
	f.Add([]byte(structured(`"data_base64":"AA=="`)), byte(formStructured))
	f.Add([]byte("["+structured()+"]"), byte(formBatch))
	f.Add([]byte("{\"type\":\"a\",\"extensions\":{\"a\":1}}\n\n{"), byte(formLines))
	s := &Server{cfg: Config{}.withDefaults()}
	f.Fuzz(func(t *testing.T, body []byte, kind byte) {
		of := form(kind % 5)
		if of == formBinary {
			decodeHeader(body)
			return
		}
		items, err := s.decode(nil, of, body)
		if (err == nil) != (items != nil) {
			t.Fatalf("%d items, error %v", len(items), err)
		}
		for i := range items {
			it := &items[i]
			if it.problem != nil {
				continue
			}
			it.event.Tenant = "acme"
			if err := it.event.Validate(); err != nil {
				if p := it.invalid(err); p.Status != 422 || len(p.Errors) != 1 {
					t.Fatalf("problem %+v", p)
				}
				continue
			}
			headers := schemas.AppendEventHeaders([]schemas.Header(nil), &it.event)
			if _, err := schemas.DecodeEvent(it.event.Data, headers); err != nil {
				t.Fatalf("event %+v can't be read back: %v", it.event, err)
			}
		}
	})
}

func TestDecodeHeader(t *testing.T) {
	// The first rows are the examples of the CloudEvents HTTP binding, 3.1.3.2.
	for in, want := range map[string]string{
		"Euro%20%E2%82%AC%20%F0%9F%98%80": "Euro € 😀",
		`"a \"quoted\" \\ b"`:             `a "quoted" \ b`,
		"%22%20%25":                       `" %`,
		"100%":                            "100%",
		"%e2%82%ac":                       "€",
		"%2520":                           "%20",
		"%g0 %4":                          "%g0 %4",
		`"`:                               `"`,
		"":                                "",
		"  a  ":                           "a",
	} {
		if got := string(decodeHeader([]byte(in))); got != want {
			t.Errorf("decodeHeader(%q) = %q, want %q", in, got, want)
		}
	}
}

// A string ends at the first quote that no backslash takes away, wherever that
// stands.
func TestSkipString(t *testing.T) {
	for _, inner := range []string{"", "a", `\"`, `\\`, `\\\"`, `a\\`, `\\\\\"b`, `\"\"\"`, strings.Repeat("x", 100) + `\\`, strings.Repeat(`\"`, 40)} {
		doc := []byte(`"` + inner + `","next"`)
		if !json.Valid([]byte("[" + string(doc) + "]")) {
			t.Fatalf("%s is no JSON", doc)
		}
		if got, want := skipString(doc, 0), len(inner)+2; got != want {
			t.Errorf("%s ends at %d, want %d", doc, got, want)
		}
	}
}

// A CloudEvent on a line is one, wherever its specversion stands, and whatever of
// it a plain event could not have.
func TestLineWithSpecVersionIsACloudEvent(t *testing.T) {
	for _, doc := range []string{
		`{"specversion":"1.0","id":"1","source":"/s","type":"t","tenant":"acme","ext":"x","data":{}}`,
		`{"ext":"x","id":"1","source":"/s","type":"t","tenant":"acme","data":{},"specversion":"1.0"}`,
		`{"id":"1","source":"/s","type":"t","tenant":"acme","ext":"x","data":{},"spec\u0076ersion":"1.0"}`,
	} {
		var it item
		it.read([]byte(doc), false)
		if it.problem != nil || it.plain || it.event.Extensions["ext"] != "x" || it.event.ID != "1" {
			t.Errorf("%s: plain %v, event %+v, problem %v", doc, it.plain, it.event, it.problem)
		}
	}
}
