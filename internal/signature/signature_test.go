package signature_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	oracle "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"pgregory.net/rapid"

	"github.com/postrider/postrider/internal/signature"
)

// specSecret and its signature are the published test values of the specification's libraries.
const (
	specSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	specValue  = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func mustParse(tb testing.TB, secret string) signature.Key {
	tb.Helper()
	key, err := signature.Parse(secret)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func secretOf(length int) string {
	return signature.SecretPrefix + base64.StdEncoding.EncodeToString(make([]byte, length))
}

func privateOf(length int) string {
	return signature.PrivatePrefix + base64.StdEncoding.EncodeToString(make([]byte, length))
}

func headers(id, timestamp, value string) http.Header {
	h := http.Header{}
	h.Set(signature.HeaderID, id)
	h.Set(signature.HeaderTimestamp, timestamp)
	h.Set(signature.HeaderSignature, value)
	return h
}

func TestSignGivesThePublishedValue(t *testing.T) {
	got := signature.Sign([]signature.Key{mustParse(t, specSecret)},
		"msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if diff := cmp.Diff(specValue, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestSignWithoutKeysIsEmpty(t *testing.T) {
	if got := signature.Sign(nil, "evt_1", time.Unix(1, 0), nil); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestHeadersAreCanonical(t *testing.T) {
	got := []string{signature.HeaderID, signature.HeaderTimestamp, signature.HeaderSignature}
	want := []string{
		http.CanonicalHeaderKey(oracle.HeaderWebhookID),
		http.CanonicalHeaderKey(oracle.HeaderWebhookTimestamp),
		http.CanonicalHeaderKey(oracle.HeaderWebhookSignature),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestParse(t *testing.T) {
	tests := []struct {
		name, secret string
		ok           bool
	}{
		{"published", specSecret, true},
		{"new", signature.NewSecret(), true},
		{"shortest", secretOf(24), true},
		{"longest", secretOf(64), true},
		{"too short", secretOf(23), false},
		{"too long", secretOf(65), false},
		{"empty", "", false},
		{"prefix only", "whsec_", false},
		{"no prefix", strings.TrimPrefix(specSecret, "whsec_"), false},
		{"prefix in capitals", "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", false},
		{"public key", "whpk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", false},
		{"not base64", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La!aSw", false},
		{"URL alphabet", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La-_Sw", false},
		{"no padding", strings.TrimRight(secretOf(32), "="), false},
		{"line end inside", "whsec_MfKQ9r8GKYqrTwjU\nPD8ILPZIo2LaLaSw", false},
		{"space at the end", specSecret + " ", false},
		{"loose last bits", "whsec_" + strings.Repeat("A", 42) + "B=", false},
		{"new ed25519", signature.NewSecretOf(signature.KindEd25519), true},
		{"ed25519 seed", privateOf(32), true},
		{"ed25519 of 33 bytes", privateOf(33), false},
		{"ed25519 of 63 bytes", privateOf(63), false},
		{"ed25519 of two halves that differ", privateOf(64), false},
		{"ed25519 not base64", "whsk_!", false},
		{"ed25519 empty", "whsk_", false},
		{"ed25519 with a line end", privateOf(32) + "\n", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := signature.Parse(tt.secret)
			if tt.ok != (err == nil) {
				t.Fatalf("Parse: ok = %v, error = %v", tt.ok, err)
			}
			if err == nil {
				return
			}
			if !errors.Is(err, signature.ErrSecret) {
				t.Errorf("error %v does not wrap ErrSecret", err)
			}
			if _, body, _ := strings.Cut(tt.secret, "_"); len(body) > 8 && strings.Contains(err.Error(), body[:8]) {
				t.Errorf("error %q shows the secret", err)
			}
		})
	}
}

func TestNewSecretIsNewAndHas32Bytes(t *testing.T) {
	one, two := signature.NewSecret(), signature.NewSecret()
	if one == two {
		t.Error("two secrets are the same")
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(one, signature.SecretPrefix))
	if err != nil || len(raw) != 32 {
		t.Errorf("got %d bytes, error %v", len(raw), err)
	}
}

func TestKeyIsNeverPrinted(t *testing.T) {
	key := mustParse(t, specSecret)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, key); got != "whsec_***" {
			t.Errorf("%s prints %q", verb, got)
		}
	}
	if got := key.LogValue().String(); got != "whsec_***" {
		t.Errorf("LogValue is %q", got)
	}
}

func TestVerify(t *testing.T) {
	const stamp = 1_700_000_000
	key, other := mustParse(t, specSecret), mustParse(t, secretOf(32))
	body := []byte("{}")
	good := signature.Sign([]signature.Key{key}, "evt_1", time.Unix(stamp, 0), body)
	now, tolerance := time.Unix(stamp, 0), signature.DefaultTolerance
	tests := []struct {
		name   string
		keys   []signature.Key
		header http.Header
		body   string
		now    time.Time
		want   error
	}{
		{"good", []signature.Key{key}, headers("evt_1", "1700000000", good), "{}", now, nil},
		{"second key", []signature.Key{other, key}, headers("evt_1", "1700000000", good), "{}", now, nil},
		{"second signature", []signature.Key{key}, headers("evt_1", "1700000000", "v1,AAAA v1a,x "+good), "{}", now, nil},
		{"as old as tolerated", []signature.Key{key}, headers("evt_1", "1700000000", good), "{}", now.Add(tolerance), nil},
		{"as new as tolerated", []signature.Key{key}, headers("evt_1", "1700000000", good), "{}", now.Add(-tolerance), nil},
		{"too old", []signature.Key{key}, headers("evt_1", "1700000000", good), "{}", now.Add(tolerance + 1), signature.ErrTooOld},
		{"too new", []signature.Key{key}, headers("evt_1", "1700000000", good), "{}", now.Add(-tolerance - 1), signature.ErrTooNew},
		{"other key", []signature.Key{other}, headers("evt_1", "1700000000", good), "{}", now, signature.ErrNoMatch},
		{"no key", nil, headers("evt_1", "1700000000", good), "{}", now, signature.ErrNoMatch},
		{"other body", []signature.Key{key}, headers("evt_1", "1700000000", good), "{ }", now, signature.ErrNoMatch},
		{"other id", []signature.Key{key}, headers("evt_2", "1700000000", good), "{}", now, signature.ErrNoMatch},
		{"other time", []signature.Key{key}, headers("evt_1", "1700000001", good), "{}", now, signature.ErrNoMatch},
		{"other version", []signature.Key{key}, headers("evt_1", "1700000000", "v2"+good[2:]), "{}", now, signature.ErrNoMatch},
		{"cut signature", []signature.Key{key}, headers("evt_1", "1700000000", good[:20]), "{}", now, signature.ErrNoMatch},
		{"comma only", []signature.Key{key}, headers("evt_1", "1700000000", "v1,"), "{}", now, signature.ErrNoMatch},
		{"no id", []signature.Key{key}, headers("", "1700000000", good), "{}", now, signature.ErrMissingHeader},
		{"no time", []signature.Key{key}, headers("evt_1", "", good), "{}", now, signature.ErrMissingHeader},
		{"no signature", []signature.Key{key}, headers("evt_1", "1700000000", ""), "{}", now, signature.ErrMissingHeader},
		{"time in words", []signature.Key{key}, headers("evt_1", "yesterday", good), "{}", now, signature.ErrBadTimestamp},
		{"time with sign", []signature.Key{key}, headers("evt_1", "+1700000000", good), "{}", now, signature.ErrBadTimestamp},
		{"time with zero", []signature.Key{key}, headers("evt_1", "01700000000", good), "{}", now, signature.ErrBadTimestamp},
		{"negative time", []signature.Key{key}, headers("evt_1", "-5", good), "{}", now, signature.ErrBadTimestamp},
		{"huge time", []signature.Key{key}, headers("evt_1", "9223372036854775807", good), "{}", now, signature.ErrBadTimestamp},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := signature.Verify(tt.keys, tt.header, []byte(tt.body), tt.now, tolerance)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// drawSecrets makes one to five secrets with their text.
func drawSecrets(t *rapid.T) (secrets []string, keys []signature.Key) {
	for _, raw := range rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 24, 64), 1, 5).Draw(t, "secrets") {
		secret := signature.SecretPrefix + base64.StdEncoding.EncodeToString(raw)
		key, err := signature.Parse(secret)
		if err != nil {
			t.Fatal(err)
		}
		secrets, keys = append(secrets, secret), append(keys, key)
	}
	return secrets, keys
}

func TestOracleAgreesInBothDirections(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secrets, keys := drawSecrets(t)
		id := rapid.StringMatching(`[a-zA-Z0-9_]{1,40}`).Draw(t, "id")
		body := rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		now := time.Now()
		stamp := now.Add(time.Duration(rapid.IntRange(-299, 299).Draw(t, "age")) * time.Second)

		header := headers(id, signature.Timestamp(stamp), signature.Sign(keys, id, stamp, body))
		var theirs []string
		for _, secret := range secrets {
			wh, err := oracle.NewWebhook(secret)
			if err != nil {
				t.Fatal(err)
			}
			if err := wh.Verify(body, header); err != nil {
				t.Fatalf("oracle refuses our signature: %v", err)
			}
			value, err := wh.Sign(id, stamp, body)
			if err != nil {
				t.Fatal(err)
			}
			theirs = append(theirs, value)
		}
		if diff := cmp.Diff(strings.Join(theirs, " "), header.Get(signature.HeaderSignature)); diff != "" {
			t.Fatalf("(-oracle +ours)\n%s", diff)
		}
		for i := range keys {
			if err := signature.Verify(keys[i:i+1], headers(id, signature.Timestamp(stamp), theirs[i]), body, now, signature.DefaultTolerance); err != nil {
				t.Fatalf("we refuse the oracle's signature: %v", err)
			}
		}
	})
}

func TestAnyChangeBreaksTheSignature(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, keys := drawSecrets(t)
		body := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "body")
		stamp := time.Unix(1_700_000_000, 0)
		value := signature.Sign(keys, "evt_1", stamp, body)
		body[rapid.IntRange(0, len(body)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		err := signature.Verify(keys, headers("evt_1", signature.Timestamp(stamp), value), body, stamp, signature.DefaultTolerance)
		if !errors.Is(err, signature.ErrNoMatch) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestKeysAreSafeForConcurrentUse(t *testing.T) {
	keys := []signature.Key{mustParse(t, specSecret), mustParse(t, secretOf(40))}
	stamp := time.Unix(1_700_000_000, 0)
	bodies, want := make([][]byte, 8), make([]string, 8)
	for i := range bodies {
		bodies[i] = []byte(strings.Repeat(strconv.Itoa(i), 100))
		want[i] = signature.Sign(keys, "evt_1", stamp, bodies[i])
	}
	got := make(chan bool, len(bodies))
	for i := range bodies {
		go func() {
			same := true
			for range 200 {
				same = same && signature.Sign(keys, "evt_1", stamp, bodies[i]) == want[i]
			}
			got <- same
		}()
	}
	for range bodies {
		if !<-got {
			t.Error("a signature changed when keys were shared")
		}
	}
}
