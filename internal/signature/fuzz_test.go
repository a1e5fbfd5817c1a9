package signature_test

import (
	"strings"
	"testing"
	"time"

	oracle "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/postrider/postrider/internal/signature"
)

func FuzzParse(f *testing.F) {
	f.Add(specSecret)
	f.Add("whsec_")
	f.Add("whsec_MfKQ9r8GKYqrTwjU\nPD8ILPZIo2LaLaSw")
	f.Fuzz(func(t *testing.T, secret string) {
		key, err := signature.Parse(secret)
		if err != nil || key.Kind() != signature.KindHMAC { // the reference knows no ed25519
			return
		}
		// What we accept, the reference accepts with the same meaning.
		wh, err := oracle.NewWebhook(secret)
		if err != nil {
			t.Fatalf("oracle refuses %q: %v", secret, err)
		}
		stamp := time.Unix(1_700_000_000, 0)
		want, err := wh.Sign("evt_1", stamp, []byte("body"))
		if err != nil {
			t.Fatal(err)
		}
		if got := signature.Sign([]signature.Key{key}, "evt_1", stamp, []byte("body")); got != want {
			t.Fatalf("got %s, oracle %s", got, want)
		}
	})
}

// FuzzSpec: what New accepts, Verify verifies, and each field is sent as the
// naive reading of it says.
func FuzzSpec(f *testing.F) {
	f.Add("X-Signature", "sha256", "hex", "t={timestamp},", "v1=", ",", "{timestamp}.{body}")
	f.Add("X-Signature", "", "base64", "", ";", ";;", "{body}{id}")
	f.Add("", "md5", "", " ", "\x00", "a", "{body}{body}{")
	f.Fuzz(func(t *testing.T, header, algorithm, encoding, start, prefix, separator, template string) {
		spec := signature.Spec{
			Scheme: signature.SchemeCustom, Header: header, Algorithm: algorithm, Encoding: encoding,
			Start: start, Prefix: prefix, Separator: separator, Template: template,
		}
		scheme, err := signature.New(spec)
		if err != nil {
			return
		}
		checkScheme(t, spec, scheme, signature.Message{ID: "evt_1", Time: time.Unix(1614265330, 0), Body: []byte("body")})
	})
}

func FuzzVerify(f *testing.F) {
	f.Add("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", specValue, []byte(`{"test": 2432232314}`))
	f.Add("evt_1", "+1", "v1,", []byte(nil))
	f.Add("evt_1", "99999999999999999999", "v1, v1,AA==", []byte("x"))
	f.Fuzz(func(t *testing.T, id, stamp, value string, body []byte) {
		header := headers(id, stamp, value)
		err := signature.Verify([]signature.Key{mustParse(t, specSecret)}, header, body, time.Unix(1614265330, 0), signature.DefaultTolerance)
		if err != nil {
			return
		}
		// What we accept, the reference accepts, leaving its clock aside.
		wh, err := oracle.NewWebhook(specSecret)
		if err != nil {
			t.Fatal(err)
		}
		if err := wh.VerifyIgnoringTimestamp(body, header); err != nil {
			t.Fatalf("accepted what the oracle refuses: %v (%q)", err, strings.TrimSpace(value))
		}
	})
}
