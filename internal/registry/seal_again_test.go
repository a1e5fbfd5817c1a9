package registry

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sealerOf(t *testing.T, keyset string, err error) *Sealer {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSealer(keyset)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealedEndpoint has something sealed in every field that can have it; the plain
// text is the field's name.
func sealedEndpoint(t *testing.T, s *Sealer) *Endpoint {
	t.Helper()
	seal := func(field string) string {
		sealed, err := s.Seal([]byte(field), "acme", "ep_1", field)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	return &Endpoint{
		ID: "ep_1", Tenant: "acme", Secrets: []Secret{{Sealed: seal(SecretField)}, {Sealed: seal(SecretField), Public: "whpk_x"}},
		Receiver: Receiver{
			Auth: &Auth{
				Bearer: &Bearer{Token: seal(FieldBearer)}, Basic: &Basic{Username: "jo", Password: seal(FieldBasic)},
				OAuth2: &OAuth2{ClientID: "c", ClientSecret: seal(FieldOAuth2)},
			},
			Headers: map[string]Header{"A": {Value: "plain"}, "B": {Sealed: seal(HeaderField("B"))}, "C": {Sealed: seal(HeaderField("C"))}},
			TLS:     &TLS{Certificate: "cert", Key: seal(FieldTLSKey)},
		},
	}
}

func textOf(t *testing.T, e *Endpoint) string {
	t.Helper()
	doc, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

// After a rotation everything is sealed again, once, in copies; then the old key can
// go, and what was not sealed again no longer opens.
func TestSealAgain(t *testing.T) {
	first, err := NewKeyset()
	old := sealerOf(t, first, err)
	second, err := RotateKeyset(first)
	both := sealerOf(t, second, err)
	third, err := RetireKeyset(second)
	newest := sealerOf(t, third, err)
	if old.Keys() != 1 || both.Keys() != 2 || newest.Keys() != 1 {
		t.Errorf("%d, %d and %d keys", old.Keys(), both.Keys(), newest.Keys())
	}
	e := sealedEndpoint(t, old)
	shared, before := *e, textOf(t, e)
	if old.Outdated(e) || !both.Outdated(e) || !newest.Outdated(e) {
		t.Error("only the old keyset seals like this")
	}
	if changed, err := both.SealAgain(e); !changed || err != nil {
		t.Fatal(changed, err)
	}
	if diff := cmp.Diff(before, textOf(t, &shared)); diff != "" {
		t.Errorf("what others share was changed (-want +got):\n%s", diff)
	}
	if both.Outdated(e) || newest.Outdated(e) {
		t.Error("it is outdated when sealed again")
	}
	fields := map[string]int{}
	after := textOf(t, e)
	e.eachSealed(func(field string, text *string) {
		fields[field]++
		if strings.Contains(before, *text) {
			t.Errorf("%s is sealed as before", field)
		}
		if plain, err := newest.Open(*text, "acme", "ep_1", field); err != nil || string(plain) != field {
			t.Errorf("%s: the new key alone opens %q: %v", field, plain, err)
		}
	})
	want := map[string]int{SecretField: 2, FieldBearer: 1, FieldBasic: 1, FieldOAuth2: 1, "headers.B": 1, "headers.C": 1, FieldTLSKey: 1}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Errorf("sealed fields (-want +got):\n%s", diff)
	}
	if changed, err := both.SealAgain(e); changed || err != nil || textOf(t, e) != after {
		t.Errorf("a second time: changed %v, %v", changed, err)
	}
	if changed, err := newest.SealAgain(&shared); changed || err == nil || textOf(t, &shared) != before {
		t.Errorf("with the old key gone: changed %v, %v", changed, err)
	}
	if again, err := RetireKeyset(third); err != nil || again != third {
		t.Errorf("a keyset of one key: %v", err)
	}
	if _, err := RetireKeyset("nonsense"); err == nil || strings.Contains(err.Error(), "nonsense") {
		t.Errorf("a bad keyset: %v", err)
	}
}

// Damaged texts are outdated, and are left as they are beside the good ones. What has
// nothing sealed is never outdated.
func TestSealAgainOfDamaged(t *testing.T) {
	keyset, err := NewKeyset()
	s := sealerOf(t, keyset, err)
	for _, bad := range []string{"x", "not base64", "AAAAAAAAAAAAAAAA", "AQAAAAAAAAAAAAAA"} {
		e := sealedEndpoint(t, s)
		e.Auth.Basic.Password = bad
		before := textOf(t, e)
		if !s.Outdated(e) {
			t.Errorf("%s: is not outdated", bad)
		}
		if changed, err := s.SealAgain(e); changed || err == nil || textOf(t, e) != before {
			t.Errorf("%s: changed %v, %v", bad, changed, err)
		}
	}
	for _, e := range []*Endpoint{{}, {Receiver: Receiver{Auth: &Auth{Basic: &Basic{Username: "jo"}}, Headers: map[string]Header{"A": {Value: "b"}}, TLS: &TLS{CA: "c"}}}} {
		before := textOf(t, e)
		if changed, err := s.SealAgain(e); changed || err != nil || s.Outdated(e) || textOf(t, e) != before {
			t.Errorf("%s: changed %v, %v", before, changed, err)
		}
	}
}
