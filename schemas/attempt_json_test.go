package schemas_test

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/postrider/postrider/schemas"
)

// filled sets every field of an attempt; a field of a type that it does not know
// fails the test.
func filled(t *testing.T) schemas.Attempt {
	t.Helper()
	var a schemas.Attempt
	next := time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))
	v := reflect.ValueOf(&a).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		switch f.Interface().(type) {
		case int, int64:
			f.SetInt(int64(i) + 7)
		case string, schemas.Outcome:
			f.SetString("text of " + v.Type().Field(i).Name)
		case bool:
			f.SetBool(true)
		case float64:
			f.SetFloat(12.375)
		case time.Time:
			f.Set(reflect.ValueOf(next.Add(time.Nanosecond)))
		case *time.Time:
			f.Set(reflect.ValueOf(&next))
		case schemas.Position:
			f.Set(reflect.ValueOf(schemas.Position{Partition: 5, Offset: 123456789}))
		default:
			t.Fatalf("field %s has a type that this test can't fill", v.Type().Field(i).Name)
		}
	}
	return a
}

func TestAttemptIsWrittenAsTheStandardLibraryDoes(t *testing.T) {
	with := func(change func(*schemas.Attempt)) schemas.Attempt {
		a := filled(t)
		change(&a)
		return a
	}
	for name, a := range map[string]schemas.Attempt{
		"all":      filled(t),
		"none":     {},
		"quotes":   with(func(a *schemas.Attempt) { a.Type, a.Detail = `a"b\c`, "x\ny\tz\b\f\r\x00\x7f" }),
		"html":     with(func(a *schemas.Attempt) { a.Response = "<b>&amp;</b>" }),
		"unicode":  with(func(a *schemas.Attempt) { a.Response, a.Detail = "é – \u2028 \u2029 😀", "bad \xff\xc3" }),
		"small":    with(func(a *schemas.Attempt) { a.Duration = 1e-9 }),
		"large":    with(func(a *schemas.Attempt) { a.Duration = -1e22 }),
		"thirds":   with(func(a *schemas.Attempt) { a.Duration = 1.0 / 3 }),
		"negative": with(func(a *schemas.Attempt) { a.Offset, a.Duration = -4, -0.001 }),
	} {
		got, err := schemas.EncodeAttempt(&a)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want, err := json.Marshal(&a) // EncodeAttempt has set the version
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Any bytes are written as the standard library writes them, also those that are
// not UTF-8.
func TestAttemptTextIsWrittenAsTheStandardLibraryDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := anAttempt()
		a.Detail = string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
		a.Response = rapid.String().Draw(t, "text")
		got, err := schemas.EncodeAttempt(&a)
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(&a)
		if err != nil || string(got) != string(want) {
			t.Errorf("%s, want %s; error %v", got, want, err)
		}
	})
}

func TestAttemptThatCannotBeWritten(t *testing.T) {
	year := time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, a := range map[string]schemas.Attempt{
		"started_at": {StartedAt: year}, "next_at": {NextAt: &year}, "duration_ms": {Duration: math.NaN()},
	} {
		if got, err := schemas.EncodeAttempt(&a); err == nil {
			t.Errorf("%s: no error but %s", name, got)
		}
	}
}

func BenchmarkEncodeAttempt(b *testing.B) {
	a := anAttempt()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := schemas.EncodeAttempt(&a); err != nil {
			b.Fatal(err)
		}
	}
}
