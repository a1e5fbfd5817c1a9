package schemas_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/postrider/postrider/schemas"
)

// The id of an event is a wire format: it must never change. The value was
// computed by another program.
func TestEventIDIsFixed(t *testing.T) {
	got := schemas.EventID("acme", "/shop", "o-1")
	if want := "evt_nhmkejxnbefg49w9dbbfn3ecpv"; got != want {
		t.Errorf("EventID = %s, want %s", got, want)
	}
	if err := schemas.CheckID(schemas.PrefixEvent, got); err != nil {
		t.Error(err)
	}
}

// Parts are length-prefixed: moving a byte from one to the next is another event.
func TestEventIDSeparatesItsParts(t *testing.T) {
	ids := map[string]string{}
	for _, parts := range [][3]string{{"a", "bc", "d"}, {"ab", "c", "d"}, {"a", "b", "cd"}, {"", "abc", "d"}} {
		id := schemas.EventID(parts[0], parts[1], parts[2])
		if other, ok := ids[id]; ok {
			t.Errorf("%v and %s have one id", parts, other)
		}
		ids[id] = strings.Join(parts[:], "|")
	}
}

func TestNewID(t *testing.T) {
	form := regexp.MustCompile(`^ep_0[0-9a-hjkmnp-tv-z]{25}$`)
	last := ""
	for range 1000 {
		id := schemas.NewID(schemas.PrefixEndpoint)
		if !form.MatchString(id) {
			t.Fatalf("NewID = %q", id)
		}
		if id == last {
			t.Fatalf("NewID repeats %q", id)
		}
		last = id
	}
}

func TestCheckID(t *testing.T) {
	good := schemas.NewID("ep")
	for id, ok := range map[string]bool{
		good: true, "": false, "ep_": false, good[:len(good)-1]: false, good + "0": false,
		"sub" + good[2:]: false, strings.ToUpper(good): false, good[:10] + "/" + good[11:]: false, good[:10] + "u" + good[11:]: false,
	} {
		err := schemas.CheckID("ep", id)
		if (err == nil) != ok {
			t.Errorf("CheckID(%q) = %v", id, err)
		}
		if err != nil && !errors.Is(err, schemas.ErrMalformedID) {
			t.Errorf("CheckID(%q): %v does not wrap ErrMalformedID", id, err)
		}
	}
}

// Two events have two keys: the key keeps what tells their ids apart.
func TestEventKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := schemas.EventID("t", "s", rapid.String().Draw(t, "a"))
		b := schemas.EventID("t", "s", rapid.String().Draw(t, "b"))
		ka, err := schemas.EventKey(a)
		if err != nil {
			t.Fatal(err)
		}
		kb, err := schemas.EventKey(b)
		if err != nil {
			t.Fatal(err)
		}
		if (a == b) != (ka == kb) {
			t.Fatalf("%s and %s: keys %x and %x", a, b, ka, kb)
		}
	})
	if _, err := schemas.EventKey("evt_short"); err == nil {
		t.Error("a malformed id has a key")
	}
}

func TestPosition(t *testing.T) {
	p := schemas.Position{Partition: 31, Offset: 1 << 40}
	back, err := schemas.ParsePosition(p.String())
	if err != nil || back != p {
		t.Errorf("ParsePosition(%s) = %v, %v", p, back, err)
	}
	for _, s := range []string{"", ".", "1", "1.", ".1", "-1.2", "1.-2", "a.b", "99999999999.1", "1.2.3"} {
		if _, err := schemas.ParsePosition(s); err == nil {
			t.Errorf("ParsePosition(%q) is no error", s)
		}
	}
}
