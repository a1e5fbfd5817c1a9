package registry

import (
	"errors"
	"testing"
)

// A token is the same each time, opens under its key and after a rotation, and
// nothing else opens.
func TestTokens(t *testing.T) {
	keyset, err := NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	rotated, err := RotateKeyset(keyset)
	if err != nil {
		t.Fatal(err)
	}
	sealer := func(text string) *Sealer {
		t.Helper()
		s, err := NewSealer(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	old, newer := sealer(keyset), sealer(rotated)
	token, err := old.SealToken([]byte("the event"))
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := old.SealToken([]byte("the event")); again != token {
		t.Error("the same bytes gave two tokens")
	}
	// While a rotation is rolled out, some processes have only the old key.
	if other, _ := newer.SealToken([]byte("the event")); other != token {
		t.Error("a token of the rotated keyset is another one")
	}
	for name, s := range map[string]*Sealer{"itself": old, "rotated": newer} {
		if plain, err := s.OpenToken(token); err != nil || string(plain) != "the event" {
			t.Errorf("%s: %q %v", name, plain, err)
		}
	}
	stranger, err := NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sealer(stranger).OpenToken(token); !errors.Is(err, ErrToken) {
		t.Errorf("another keyset: %v", err)
	}
	for i := range token {
		changed := []byte(token)
		if changed[i]++; changed[i] > 'z' {
			changed[i] = 'A'
		}
		if _, err := old.OpenToken(string(changed)); !errors.Is(err, ErrToken) {
			t.Fatalf("changed at %d: %v", i, err)
		}
	}
	for _, bad := range []string{"", "a", "AAAA", token + "A", token[1:], token + "=", "äöü"} {
		if _, err := old.OpenToken(bad); !errors.Is(err, ErrToken) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	once, foreign := old.Fingerprint([]byte("a")), sealer(stranger).Fingerprint([]byte("a"))
	if again := newer.Fingerprint([]byte("a")); again != once || once == old.Fingerprint([]byte("b")) || once == foreign {
		t.Error("fingerprints do not depend on data and key alone")
	}
}

// Redacted leaves no secret, and the original as it was.
func TestRedacted(t *testing.T) {
	full := Receiver{
		Auth:    &Auth{Bearer: &Bearer{"s1"}, Basic: &Basic{"u", "s2"}, OAuth2: &OAuth2{TokenURL: "t", ClientID: "c", ClientSecret: "s3"}},
		Headers: map[string]Header{"A": {Value: "plain"}, "B": {Sealed: "s4"}},
		TLS:     &TLS{Certificate: "c", Key: "s5", CA: "a"},
	}
	got := full.Redacted("x")
	if got.Auth.Bearer.Token+got.Auth.Basic.Password+got.Auth.OAuth2.ClientSecret+got.Headers["B"].Sealed+got.TLS.Key != "xxxxx" {
		t.Errorf("redacted: %+v %+v", got.Auth, got)
	}
	if got.Auth.Basic.Username != "u" || got.Auth.OAuth2.ClientID != "c" || got.Headers["A"].Value != "plain" || got.TLS.CA != "a" {
		t.Errorf("what is not secret went, too: %+v", got)
	}
	if full.Auth.Bearer.Token != "s1" || full.Headers["B"].Sealed != "s4" || full.TLS.Key != "s5" {
		t.Error("the original was changed")
	}
}
