package signature_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/postrider/postrider/internal/signature"
)

// texts are secrets whose text is the key.
var texts = []string{"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", "whsec_1KstloJJ99Kc6l4QaL4dmS8TFxHCIpAc", "it's a sécret"}

func mustScheme(tb testing.TB, spec signature.Spec) *signature.Scheme {
	tb.Helper()
	s, err := signature.New(spec)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func mustKeys(tb testing.TB, s *signature.Scheme, secrets ...string) []signature.Key {
	tb.Helper()
	keys := make([]signature.Key, len(secrets))
	for i, secret := range secrets {
		var err error
		if keys[i], err = s.Parse(secret); err != nil {
			tb.Fatal(err)
		}
	}
	return keys
}

// naive is one header of a custom scheme, made by replacing texts.
func naive(spec signature.Spec, m signature.Message, secrets ...string) string {
	fresh := map[string]func() hash.Hash{"": sha256.New, "sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New}[spec.Algorithm]
	fill := func(text string) string {
		return strings.NewReplacer("{id}", m.ID, "{timestamp}", signature.Timestamp(m.Time), "{body}", string(m.Body)).Replace(text)
	}
	template := spec.Template
	if template == "" {
		template = "{id}.{timestamp}.{body}"
	}
	if spec.Separator == "" {
		secrets = secrets[:1]
	}
	var signatures []string
	for _, secret := range secrets {
		h := hmac.New(fresh, []byte(secret))
		h.Write([]byte(fill(template)))
		var text string
		switch spec.Encoding {
		case "base64":
			text = base64.StdEncoding.EncodeToString(h.Sum(nil))
		case "base64url":
			text = base64.RawURLEncoding.EncodeToString(h.Sum(nil))
		default:
			text = hex.EncodeToString(h.Sum(nil))
		}
		signatures = append(signatures, spec.Prefix+text)
	}
	return fill(spec.Start) + strings.Join(signatures, spec.Separator)
}

// checkScheme signs with three secrets, compares with naive and verifies with
// each key that signed.
func checkScheme(tb rapid.TB, spec signature.Spec, s *signature.Scheme, m signature.Message) {
	tb.Helper()
	keys := make([]signature.Key, len(texts))
	for i, secret := range texts {
		var err error
		if keys[i], err = s.Parse(secret); err != nil {
			tb.Fatal(err)
		}
	}
	h := http.Header{}
	s.Sign(h, keys, m)
	if diff := cmp.Diff(naive(spec, m, texts...), h.Get(spec.Header)); diff != "" {
		tb.Fatalf("%+v (-naive +got):\n%s", spec, diff)
	}
	if h.Get("Webhook-Id") != m.ID || h.Get("Webhook-Timestamp") != signature.Timestamp(m.Time) || h.Get("Webhook-Signature") != "" {
		tb.Fatalf("headers %v", h)
	}
	for i := range keys {
		signs := i == 0 || spec.Separator != ""
		if err := s.Verify(keys[i:i+1], h, m.Body, m.Time, time.Minute); (err == nil) != signs {
			tb.Fatalf("%+v, secret %d of header %v: %v", spec, i, h, err)
		}
	}
	broken := append([]byte("x"), m.Body...)
	if err := s.Verify(keys, h, broken, m.Time, time.Minute); !errors.Is(err, signature.ErrNoMatch) {
		tb.Fatalf("another body: %v", err)
	}
}

// Any custom scheme signs as the naive reading of its fields says.
func TestCustomSchemes(t *testing.T) {
	word := rapid.StringMatching(`[ -<>-z|~]{0,12}`) // printable, without =, { and }
	rapid.Check(t, func(t *rapid.T) {
		spec := signature.Spec{
			Scheme:    signature.SchemeCustom,
			Header:    "X-" + rapid.StringMatching(`[A-Za-z0-9]{1,20}`).Draw(t, "header"),
			Algorithm: rapid.SampledFrom([]string{"", "sha1", "sha256", "sha512"}).Draw(t, "algorithm"),
			Encoding:  rapid.SampledFrom([]string{"", "hex", "base64", "base64url"}).Draw(t, "encoding"),
			Prefix:    "p" + word.Draw(t, "prefix"),
			Start:     rapid.SampledFrom([]string{"", "t={timestamp},", "i={id};t={timestamp} "}).Draw(t, "start"),
			Separator: rapid.SampledFrom([]string{"", ",", " ", ", "}).Draw(t, "separator"),
			Template: word.Draw(t, "a") + rapid.SampledFrom([]string{"", "{id}", "{timestamp}\n", "{id}.{timestamp}"}).Draw(t, "before") +
				"{body}" + rapid.SampledFrom([]string{"", "{id}", ".{timestamp}"}).Draw(t, "after"),
		}
		if spec.Separator != "" && strings.Contains(spec.Prefix, spec.Separator) {
			spec.Prefix = "p="
		}
		s, err := signature.New(spec)
		if err != nil {
			t.Fatalf("%+v: %v", spec, err)
		}
		checkScheme(t, spec, s, signature.Message{
			ID: "evt_" + rapid.StringMatching(`[a-z0-9]{1,26}`).Draw(t, "id"), Time: time.Unix(rapid.Int64Range(1, 1<<33).Draw(t, "time"), 0),
			Body: rapid.SliceOf(rapid.Byte()).Draw(t, "body"),
		})
	})
}

// message is what the tables of this file sign.
func message() signature.Message {
	return signature.Message{ID: "evt_1", Type: "order.paid", Time: time.Unix(1_700_000_000, 0), Body: []byte(`{"a":1}`)}
}

// TestSpecFields has one row for each field of a custom scheme: what it changes
// in the headers.
func TestSpecFields(t *testing.T) {
	sign := func(spec signature.Spec) http.Header {
		h := http.Header{}
		s := mustScheme(t, spec)
		s.Sign(h, mustKeys(t, s, texts...), message())
		return h
	}
	base := signature.Spec{Scheme: signature.SchemeCustom, Header: "X-Signature"}
	plain := sign(base)
	if diff := cmp.Diff(http.Header{
		"Webhook-Id": {"evt_1"}, "Webhook-Timestamp": {"1700000000"}, "X-Signature": {naive(base, message(), texts...)},
	}, plain); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
	for name, tt := range map[string]struct {
		set    func(*signature.Spec)
		header string
	}{
		"header":           {func(s *signature.Spec) { s.Header = "x-sig" }, "X-Sig"},
		"algorithm":        {func(s *signature.Spec) { s.Algorithm = "sha512" }, "X-Signature"},
		"algorithm sha1":   {func(s *signature.Spec) { s.Algorithm = "sha1" }, "X-Signature"},
		"encoding":         {func(s *signature.Spec) { s.Encoding = "base64" }, "X-Signature"},
		"encoding for URL": {func(s *signature.Spec) { s.Encoding = "base64url" }, "X-Signature"},
		"prefix":           {func(s *signature.Spec) { s.Prefix = "sha256=" }, "X-Signature"},
		"start":            {func(s *signature.Spec) { s.Start = "t={timestamp},i={id}," }, "X-Signature"},
		"separator":        {func(s *signature.Spec) { s.Separator = "," }, "X-Signature"},
		"template":         {func(s *signature.Spec) { s.Template = "{timestamp}\n{body}" }, "X-Signature"},
	} {
		spec := base
		tt.set(&spec)
		got := sign(spec)[tt.header]
		if want := []string{naive(spec, message(), texts...)}; !cmp.Equal(want, got) || cmp.Equal(got, plain["X-Signature"]) && tt.header == "X-Signature" {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	for name, tt := range map[string]struct {
		set  func(*signature.Spec)
		want string
	}{
		"timestamp_header": {func(s *signature.Spec) { s.TimestampHeader = "x-own" }, "1700000000"},
		"id_header":        {func(s *signature.Spec) { s.IDHeader = "x-own" }, "evt_1"},
		"type_header":      {func(s *signature.Spec) { s.TypeHeader = "x-own" }, "order.paid"},
	} {
		spec := base
		tt.set(&spec)
		if got := sign(spec).Get("X-Own"); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// A preset is what it says in terms of the fields of a custom scheme.
func TestPresets(t *testing.T) {
	for _, tt := range []struct {
		scheme string
		custom []signature.Spec
		more   http.Header
	}{
		{"stripe", []signature.Spec{{Header: "Stripe-Signature", Start: "t={timestamp},", Prefix: "v1=", Separator: ",", Template: "{timestamp}.{body}"}}, nil},
		{
			"github",
			[]signature.Spec{
				{Header: "X-Hub-Signature-256", Prefix: "sha256=", Template: "{body}"},
				{Header: "X-Hub-Signature", Algorithm: "sha1", Prefix: "sha1=", Template: "{body}"},
			},
			http.Header{"X-Github-Delivery": {"evt_1"}, "X-Github-Event": {"order.paid"}},
		},
		{
			"shopify",
			[]signature.Spec{{Header: "X-Shopify-Hmac-Sha256", Encoding: "base64", Template: "{body}"}},
			http.Header{"X-Shopify-Webhook-Id": {"evt_1"}, "X-Shopify-Topic": {"order.paid"}},
		},
		{
			"slack",
			[]signature.Spec{{Header: "X-Slack-Signature", Prefix: "v0=", Template: "v0:{timestamp}:{body}"}},
			http.Header{"X-Slack-Request-Timestamp": {"1700000000"}},
		},
	} {
		t.Run(tt.scheme, func(t *testing.T) {
			want := http.Header{"Webhook-Id": {"evt_1"}, "Webhook-Timestamp": {"1700000000"}}
			for _, spec := range tt.custom {
				want.Set(spec.Header, naive(spec, message(), texts...))
			}
			maps.Copy(want, tt.more)
			s := mustScheme(t, signature.Spec{Scheme: tt.scheme})
			keys := mustKeys(t, s, texts...)
			got := http.Header{}
			s.Sign(got, keys, message())
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			m := message()
			if err := s.Verify(keys[:1], got, m.Body, m.Time, time.Minute); err != nil {
				t.Error(err)
			}
			if err := s.Verify(mustKeys(t, s, "another one"), got, m.Body, m.Time, time.Minute); !errors.Is(err, signature.ErrNoMatch) {
				t.Errorf("another secret: %v", err)
			}
			for _, name := range s.Headers() {
				broken := got.Clone()
				broken.Set(name, "x")
				if s.Verify(keys, broken, m.Body, m.Time, time.Minute) == nil {
					t.Errorf("verified with another %s", name)
				}
			}
			// What other settings say of the event stays.
			own := http.Header{"X-Github-Event": {"push"}}
			s.Sign(own, keys, message())
			if own.Get("X-Github-Event") != "push" {
				t.Errorf("headers %v", own)
			}
		})
	}
}

// The presets that are compiled without a look at their faults have none.
func TestPresetsAreValid(t *testing.T) {
	for _, name := range signature.Schemes() {
		if name == signature.SchemeCustom {
			continue
		}
		s := mustScheme(t, signature.Spec{Scheme: name})
		if names := s.Headers(); len(names) == 0 || names[0] == "" {
			t.Errorf("%s: headers %q", name, names)
		}
	}
	if mustScheme(t, signature.Spec{}) != mustScheme(t, signature.Spec{Scheme: signature.SchemeStandard}) {
		t.Error("the default is not the standard scheme")
	}
}

// TestBadSpecs has one row for each rule of each field.
func TestBadSpecs(t *testing.T) {
	custom := func(set func(*signature.Spec)) signature.Spec {
		s := signature.Spec{Scheme: signature.SchemeCustom, Header: "X-Signature"}
		set(&s)
		return s
	}
	for _, tt := range []struct {
		name   string
		spec   signature.Spec
		fields string
	}{
		{"unknown scheme", signature.Spec{Scheme: "paypal"}, "scheme"},
		{"fields without a scheme", signature.Spec{Header: "X-Signature"}, "scheme"},
		{"fields of the standard scheme", signature.Spec{Scheme: "standard", Prefix: "v1="}, "prefix"},
		{
			"fields of a preset",
			signature.Spec{
				Scheme: "stripe", Header: "a", Algorithm: "a", Encoding: "a", Prefix: "a", Start: "a", Separator: "a", Template: "a",
				TimestampHeader: "a", IDHeader: "a", TypeHeader: "a",
			},
			"header algorithm encoding prefix start separator template timestamp_header id_header type_header",
		},
		{"no header", signature.Spec{Scheme: signature.SchemeCustom}, "header"},
		{"long header", custom(func(s *signature.Spec) { s.Header = strings.Repeat("x", 65) }), "header"},
		{"header with a blank", custom(func(s *signature.Spec) { s.Header = "X Signature" }), "header"},
		{"header with a line end", custom(func(s *signature.Spec) { s.Header = "X-Signature\r\nX-Admin: 1" }), "header"},
		{"reserved header", custom(func(s *signature.Spec) { s.Header = "content-length" }), "header"},
		{"reserved headers", custom(func(s *signature.Spec) {
			s.TimestampHeader, s.IDHeader, s.TypeHeader = "Webhook-Timestamp", "webhook-id", "Host"
		}), "timestamp_header id_header type_header"},
		{"the same header", custom(func(s *signature.Spec) { s.TypeHeader = "x-signature" }), "type_header"},
		{"algorithm", custom(func(s *signature.Spec) { s.Algorithm = "md5" }), "algorithm"},
		{"encoding", custom(func(s *signature.Spec) { s.Encoding = "base32" }), "encoding"},
		{"long prefix", custom(func(s *signature.Spec) { s.Prefix = strings.Repeat("x", 65) }), "prefix"},
		{"prefix with a control character", custom(func(s *signature.Spec) { s.Prefix = "a\n" }), "prefix"},
		{"prefix with a blank first", custom(func(s *signature.Spec) { s.Prefix = " a" }), "prefix"},
		{"prefix with the separator", custom(func(s *signature.Spec) { s.Prefix, s.Separator = "a,b=", "," }), "prefix"},
		{"long start", custom(func(s *signature.Spec) { s.Start = strings.Repeat("x", 129) }), "start"},
		{"start with a blank first", custom(func(s *signature.Spec) { s.Start = " t" }), "start"},
		{"start with the body", custom(func(s *signature.Spec) { s.Start = "{body}" }), "start"},
		{"start with another placeholder", custom(func(s *signature.Spec) { s.Start = "{time}" }), "start"},
		{"long separator", custom(func(s *signature.Spec) { s.Separator = ",,,,,,,,," }), "separator"},
		{"separator of a signature", custom(func(s *signature.Spec) { s.Separator = ", a" }), "separator"},
		{"separator with a control character", custom(func(s *signature.Spec) { s.Separator = "\t" }), "separator"},
		{"template without the body", custom(func(s *signature.Spec) { s.Template = "{id}.{timestamp}" }), "template"},
		{"template with two bodies", custom(func(s *signature.Spec) { s.Template = "{body}{body}" }), "template"},
		{"template with another placeholder", custom(func(s *signature.Spec) { s.Template = "{url}{body}" }), "template"},
		{"template with half a placeholder", custom(func(s *signature.Spec) { s.Template = "{body}{id" }), "template"},
		{"template with the other half", custom(func(s *signature.Spec) { s.Template = "{body}}" }), "template"},
		{"long template", custom(func(s *signature.Spec) { s.Template = "{body}" + strings.Repeat("x", 251) }), "template"},
		{"template that is not ASCII", custom(func(s *signature.Spec) { s.Template = "ä{body}" }), "template"},
		{"several", custom(func(s *signature.Spec) { s.Header, s.Encoding, s.Template = "", "x", "x" }), "encoding template header"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := signature.New(tt.spec)
			spec, ok := errors.AsType[*signature.SpecError](err)
			if !ok {
				t.Fatalf("error %v", err)
			}
			var fields []string
			for _, f := range spec.Faults {
				fields = append(fields, f.Field)
				if f.Detail == "" || !strings.Contains(err.Error(), f.Field+" "+f.Detail) {
					t.Errorf("fault %+v, error %q", f, err)
				}
			}
			if diff := cmp.Diff(tt.fields, strings.Join(fields, " ")); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
		})
	}
}

// Secrets whose text is the key are checked without being shown.
func TestTextSecrets(t *testing.T) {
	s := mustScheme(t, signature.Spec{Scheme: signature.SchemeGitHub})
	for _, tt := range []struct {
		name, secret string
		ok           bool
	}{
		{"vendor's", texts[0], true},
		{"of Standard Webhooks", signature.NewSecret(), true},
		{"not ASCII", texts[2], true},
		{"shortest", "12345678", true},
		{"longest", strings.Repeat("x", 128), true},
		{"too short", "1234567", false},
		{"too long", strings.Repeat("x", 129), false},
		{"too long in bytes", strings.Repeat("é", 65), false},
		{"control character", "secret\x00secret", false},
		{"line end", "secretsecret\n", false},
		{"no UTF-8", "secretsecret\xff", false},
		{"blank first", " secretsecret", false},
		{"blank last", "secretsecret ", false},
		{"private key", signature.NewSecretOf(signature.KindEd25519), false},
		{"public key", "whpk_BzQs5d6F1lCRgypZLCXV/CA6iRUWKIxhNcQ+SlIVorM=", false},
	} {
		key, err := s.Parse(tt.secret)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err != nil && (!errors.Is(err, signature.ErrSecret) || strings.Contains(err.Error(), tt.secret)) {
			t.Errorf("%s: error %q", tt.name, err)
		}
		if err == nil && (key.Kind() != signature.KindHMAC || key.Public() != "" || key.String() != "whsec_***") {
			t.Errorf("%s: kind %s, public %q, text %s", tt.name, key.Kind(), key.Public(), key)
		}
	}
}

// The published form of v1a, with values that another implementation made.
func TestVerifyOfOthersEd25519(t *testing.T) {
	key, err := signature.ParsePublic("whpk_0IQnXnxKG+v+ks7IbY6g7beSP8VVk0OLPwsqu2jqD2o=")
	if err != nil {
		t.Fatal(err)
	}
	body, err := base64.StdEncoding.DecodeString("eyJpZCI6ImV2dF9iaW4iLCJibG9iIjoi//4AgMMoIn0=")
	if err != nil {
		t.Fatal(err)
	}
	value := "v1a,t3xZF0b+5QWymdMMFBsFAFgRMKrxfmHqMXs8jvQn8vqhSJt0zG0P5aQvh0paHMKEQvnvsTM+OzLyrMFnh8eVAQ=="
	for _, tt := range []struct {
		name, value string
		want        error
	}{
		{"as made", value, nil},
		{"beside v1", "v1,nTO99ynAwQPfi/6jRZd9Ul8cjOC4KHENVKU1KNaPHwU= " + value, nil},
		{"garbage", "v1a,@@@@", signature.ErrNoMatch},
		{"as v1", strings.Replace(value, "v1a", "v1", 1), signature.ErrNoMatch},
		{"cut", value[:90], signature.ErrNoMatch},
		{"after too many", strings.Repeat("v1a,A ", 32) + value, signature.ErrNoMatch},
	} {
		err := signature.Verify([]signature.Key{key}, headers("msg_3c7b214a8954b1d83c3ead93f7b", "1788913215", tt.value), body,
			time.Unix(1788913215, 0), time.Minute)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if got := signature.Sign([]signature.Key{key}, "evt_1", time.Unix(1, 0), body); got != "" {
		t.Errorf("a public key signed %q", got)
	}
}

func TestParsePublic(t *testing.T) {
	good := "whpk_" + base64.StdEncoding.EncodeToString(make([]byte, 32))
	for text, ok := range map[string]bool{
		good: true, good[5:]: false, privateOf(32): false, "whpk_AAAA": false, good + "\n": false, "": false,
	} {
		key, err := signature.ParsePublic(text)
		if (err == nil) != ok || err == nil && key.Public() != text {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Ed25519 signatures are those of the standard library over the same text, and
// stand beside those of symmetric secrets.
func TestOracleOfEd25519(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed")
		private := ed25519.NewKeyFromSeed(seed)
		raw := [][]byte{seed, private}[rapid.IntRange(0, 1).Draw(t, "form")]
		id, body := rapid.StringMatching(`evt_[a-z0-9]{1,26}`).Draw(t, "id"), rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		stamp := time.Unix(rapid.Int64Range(1, 1<<33).Draw(t, "time"), 0)
		key, err := signature.Parse(signature.PrivatePrefix + base64.StdEncoding.EncodeToString(raw))
		if err != nil {
			t.Fatal(err)
		}
		symmetric, err := signature.Parse(specSecret)
		if err != nil {
			t.Fatal(err)
		}
		first, second, _ := strings.Cut(signature.Sign([]signature.Key{key, symmetric}, id, stamp, body), " ")
		if second != signature.Sign([]signature.Key{symmetric}, id, stamp, body) {
			t.Fatalf("v1 beside v1a is %q", second)
		}
		given, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(first, "v1a,"))
		if err != nil || !ed25519.Verify(private.Public().(ed25519.PublicKey), []byte(id+"."+signature.Timestamp(stamp)+"."+string(body)), given) {
			t.Fatalf("%q: %v", first, err)
		}
		public, err := signature.ParsePublic(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		header := headers(id, signature.Timestamp(stamp), first)
		if err := signature.Verify([]signature.Key{public}, header, body, stamp, time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := signature.Verify([]signature.Key{public}, header, append(body, 0), stamp, time.Minute); !errors.Is(err, signature.ErrNoMatch) {
			t.Fatalf("another body: %v", err)
		}
	})
}

// A new private key has both halves and prints as any other secret does.
func TestNewPrivateKey(t *testing.T) {
	secret := signature.NewSecretOf(signature.KindEd25519)
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsk_"))
	if err != nil || len(raw) != ed25519.PrivateKeySize || secret == signature.NewSecretOf(signature.KindEd25519) {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
	if key := mustParse(t, secret); key.Kind() != signature.KindEd25519 || !strings.HasPrefix(key.Public(), "whpk_") || key.String() != "whsec_***" {
		t.Errorf("kind %s, public %q, text %s", key.Kind(), key.Public(), key)
	}
	if signature.KindOf(secret) != signature.KindEd25519 || signature.KindOf(signature.NewSecretOf(signature.KindHMAC)) != signature.KindHMAC {
		t.Error("kinds by text")
	}
}

// Large bodies and many signers at once share no buffer.
func TestEd25519IsSafeForConcurrentUse(t *testing.T) {
	key := mustParse(t, signature.NewSecretOf(signature.KindEd25519))
	stamp := time.Unix(1_700_000_000, 0)
	got := make(chan bool)
	for i := range 8 {
		go func() {
			body := []byte(strings.Repeat(string(rune('a'+i)), 1+i*60_000))
			same, want := true, signature.Sign([]signature.Key{key}, "evt_1", stamp, body)
			for range 20 {
				same = same && signature.Sign([]signature.Key{key}, "evt_1", stamp, body) == want
			}
			got <- same && signature.Verify([]signature.Key{key}, headers("evt_1", "1700000000", want), body, stamp, time.Minute) == nil
		}()
	}
	for range 8 {
		if !<-got {
			t.Error("a signature changed when a key was shared")
		}
	}
}
