package jsonscan_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/postrider/postrider/internal/jsonscan"
)

// documents are valid ones, broken ones, and ones on the edge of either.
func documents() []string {
	docs := []string{
		``, ` `, `{}`, `[]`, ` { } `, "\t[\r\n]", `null`, `nul`, `nulll`, `true`, `trux`, `false`, `fals`, `"`, `""`, `"\"`, `"\\"`,
		`"a"b`, `"\u00e9"`, `"\u00E9"`, `"\u00g9"`, `"\u00"`, `"\u`, `"\x"`, `"\b\f\n\r\t\/\""`, "\"\x00\"", "\"\x1f\"", "\"\x7f\xff\x80\"",
		`0`, `-0`, `-`, `01`, `1.`, `1.5`, `.5`, `1e`, `1e+`, `1E-7`, `1e5x`, `-1.25e+10`, `+1`, `NaN`, `1 2`,
		`{"a":1}`, `{"a":1,}`, `{"a" 1}`, `{"a":}`, `{,}`, `{a:1}`, `{"a":1 "b":2}`, `{"a":1,"b":[1,2,{"c":null}]}`, `{"a":1`, `{"a"`, `{`, `{"a":1,`,
		`[1,]`, `[,1]`, `[1 2]`, `[1`, `[`, `]`, `}`, `[1,2,3] x`, `[[[[]]]]`, `[}`, `{]`, `["a","b"]`, "\xef\xbb\xbf{}", `/**/{}`, `'a'`,
	}
	for n := range 20 { // what ends a string stands at every place of a word
		pad := strings.Repeat("x", n)
		docs = append(docs, `"`+pad+`"`, `"`+pad+`\n"`, `"`+pad+"\x01"+`"`, `"`+pad, `"`+pad+`\`, `"`+pad+`!`+`"`, `"`+pad+"\xa2\xdc\x80"+`"`)
	}
	for _, depth := range []int{1, 100, jsonscan.MaxDepth, jsonscan.MaxDepth + 1} {
		docs = append(docs,
			strings.Repeat("[", depth)+strings.Repeat("]", depth),
			strings.Repeat(`{"a":`, depth)+"1"+strings.Repeat("}", depth))
	}
	return docs
}

func TestAgreesWithTheStandardLibrary(t *testing.T) {
	for _, doc := range documents() {
		if got, want := jsonscan.Valid([]byte(doc)), json.Valid([]byte(doc)); got != want {
			t.Errorf("Valid(%.60q) = %v, want %v", doc, got, want)
		}
	}
}

func TestAllocatesNothing(t *testing.T) {
	doc := []byte(`{"a":[1,2.5,{"b":"text with \"escapes\""}],"c":null}`)
	if n := testing.AllocsPerRun(100, func() { jsonscan.Valid(doc) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzValid(f *testing.F) {
	for _, doc := range documents() {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if got, want := jsonscan.Valid(doc), json.Valid(doc); got != want {
			t.Errorf("Valid(%q) = %v, want %v", doc, got, want)
		}
	})
}

func BenchmarkValid(b *testing.B) {
	for name, doc := range map[string][]byte{
		"text":   []byte(`{"n":1,"pad":"` + strings.Repeat("x", 1000) + `"}`),
		"fields": []byte(`[` + strings.Repeat(`{"id":1234,"name":"a short text","ok":true},`, 22) + `null]`),
	} {
		for by, valid := range map[string]func([]byte) bool{"here": jsonscan.Valid, "encoding/json": json.Valid} {
			b.Run(name+"/"+by, func(b *testing.B) {
				b.SetBytes(int64(len(doc)))
				copied := bytes.Clone(doc)
				for b.Loop() {
					valid(copied)
				}
			})
		}
	}
}
