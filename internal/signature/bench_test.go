package signature_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/signature"
)

func BenchmarkSign(b *testing.B) {
	body := make([]byte, 1024)
	stamp := time.Unix(1_700_000_000, 0)
	for _, n := range []int{1, 2} {
		keys := make([]signature.Key, n)
		for i := range keys {
			keys[i] = mustParse(b, signature.NewSecret())
		}
		b.Run("keys="+strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = signature.Sign(keys, "evt_01hzy3v7q4e5x9n2m8k6c0d1w7", stamp, body)
			}
		})
	}
}

// BenchmarkScheme is what all headers of a request cost, with two live secrets.
func BenchmarkScheme(b *testing.B) {
	m := signature.Message{ID: "evt_01hzy3v7q4e5x9n2m8k6c0d1w7", Type: "order.paid", Time: time.Unix(1_700_000_000, 0), Body: make([]byte, 1024)}
	custom := signature.Spec{Scheme: signature.SchemeCustom, Header: "X-Signature", Algorithm: "sha512", Start: "t={timestamp},", Prefix: "v1=", Separator: ","}
	for _, bench := range []struct {
		name string
		spec signature.Spec
		kind signature.Kind
	}{
		{"v1", signature.Spec{}, signature.KindHMAC},
		{"v1a", signature.Spec{}, signature.KindEd25519},
		{"stripe", signature.Spec{Scheme: "stripe"}, signature.KindHMAC},
		{"github", signature.Spec{Scheme: "github"}, signature.KindHMAC},
		{"custom", custom, signature.KindHMAC},
	} {
		s := mustScheme(b, bench.spec)
		keys := mustKeys(b, s, signature.NewSecretOf(bench.kind), signature.NewSecretOf(bench.kind))
		header := make(http.Header, 8)
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Sign(header, keys, m)
			}
		})
	}
}

// BenchmarkSignFresh is what Sign would cost with a new HMAC for each signature.
func BenchmarkSignFresh(b *testing.B) {
	raw, body := make([]byte, 32), make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		h := hmac.New(sha256.New, raw)
		prefix := append(make([]byte, 0, 64), "evt_01hzy3v7q4e5x9n2m8k6c0d1w7."...)
		prefix = strconv.AppendInt(prefix, 1_700_000_000, 10)
		h.Write(append(prefix, '.'))
		h.Write(body)
		value := append(make([]byte, 0, 47), "v1,"...)
		_ = string(base64.StdEncoding.AppendEncode(value, h.Sum(nil)))
	}
}
