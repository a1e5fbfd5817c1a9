package signature_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
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
