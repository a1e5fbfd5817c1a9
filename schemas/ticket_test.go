package schemas

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A ticket is read as it was written, and always written the same.
func TestTicket(t *testing.T) {
	for _, want := range []Ticket{
		{Tenant: "acme", Event: "evt_1", Position: Position{Partition: 3, Offset: 17}, ExpiresAt: 1_795_000_000},
		{Tenant: "acme", Event: "evt_1", Inline: []byte(`{"a":"<é>"}`)},
	} {
		got, err := DecodeTicket(want.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if string(got.Encode()) != string(want.Encode()) {
			t.Errorf("%s became %s", want.Encode(), got.Encode())
		}
		got.Inline, want.Inline = nil, nil
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// FuzzDecodeTicket: what is no ticket is an error.
func FuzzDecodeTicket(f *testing.F) {
	f.Add([]byte(`{"t":"acme","e":"evt_1","p":"3.17","x":1}`))
	f.Add([]byte(`{"i":{}}`))
	f.Fuzz(func(t *testing.T, plain []byte) {
		got, err := DecodeTicket(plain)
		if err != nil {
			return
		}
		again, err := DecodeTicket(got.Encode())
		if err != nil || string(again.Encode()) != string(got.Encode()) {
			t.Errorf("%s: %v", plain, err)
		}
	})
}
