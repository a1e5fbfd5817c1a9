package egress_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/postrider/postrider/internal/egress"
)

func TestCheckURL(t *testing.T) {
	c := newClient(t, allowing("10.1.0.0/16"))
	good := []string{
		"https://example.com", "http://example.com/", "https://example.com:443/a?b=c", "http://example.com:80/",
		"https://example.com:1024/", "https://example.com:65535/", "HTTPS://Example.COM/hook", "https://my_host.example.com./",
		"https://8.8.8.8/", "https://[2606:4700::1111]:8443/x", "https://xn--exmple-cua.com/", "http://10.1.2.3/", "https://0x.example/",
		"https://example.com/" + strings.Repeat("a", 2048-20), "http://localhost:8080/",
	}
	for _, raw := range good {
		u, err := c.CheckURL(raw)
		if err != nil || u == nil {
			t.Errorf("%.60s: %v", raw, err)
		}
	}
	bad := []string{
		"", "example.com", "//example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "http:example.com",
		"https://", "https:///path", "https://:443/", "https://example.com:/", "https://user@example.com/", "https://user:secret@example.com/",
		"https://example.com/#top", "https://example.com/#", "https://example.com/a b", "https://example.com\\@evil.example/", "https://exa\tmple.com/",
		"https://example.com:65536/", "https://example.com:-1/", "https://example.com:x/", "https://exämple.com/", "https://a%2eb/", "https://exa$mple.com/",
		"https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://0177.0.0.1/", "https://1.2.3.4.5/", "https://127.0.0.1./",
		"https://example.0x/", "https://[fe80::1%25eth0]/", "https://[::1/", "https://./",
		"https://example.com/" + strings.Repeat("a", 2048-19), "https://" + strings.Repeat("a.", 127) + "com/",
	}
	for _, raw := range bad {
		_, err := c.CheckURL(raw)
		if !errors.Is(err, egress.ErrURL) {
			t.Errorf("%.60s: error %v does not wrap ErrURL", raw, err)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "evil") {
			t.Errorf("error quotes the URL: %v", err)
		}
	}
	blocked := map[string]egress.AddrClass{
		"https://127.0.0.1/":              egress.AddrLoopback,
		"https://[::1]:8080/":             egress.AddrLoopback,
		"https://[::ffff:10.0.0.1]/":      egress.AddrPrivate,
		"https://10.2.0.1/":               egress.AddrPrivate,
		"https://169.254.169.254/latest/": egress.AddrMetadata,
		"https://[64:ff9b::a00:1]/":       egress.AddrEmbeddedV4,
		"https://example.com:22/":         egress.AddrPort,
		"https://example.com:0/":          egress.AddrPort,
		"https://example.com:1023/":       egress.AddrPort,
		"https://10.1.2.3:25/":            egress.AddrPort,
	}
	for raw, want := range blocked {
		_, err := c.CheckURL(raw)
		if got := classOf(t, err); got != want {
			t.Errorf("%s: class %q, want %q", raw, got, want)
		}
	}
}

func TestCheckHost(t *testing.T) {
	r := &resolver{answers: map[string][][]netip.Addr{
		"public.example":  {addrList("8.8.8.8")},
		"private.example": {addrList("10.0.0.1", "fd00::1")},
		"mixed.example":   {addrList("10.0.0.1", "8.8.8.8")},
		"empty.example":   {nil},
	}}
	c := newClient(t, egress.Config{Resolver: r})
	for _, host := range []string{"public.example", "mixed.example", "8.8.8.8", "[2606:4700::1111]"} {
		if err := c.CheckHost(t.Context(), host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	for host, want := range map[string]egress.AddrClass{
		"private.example": egress.AddrPrivate, "127.0.0.1": egress.AddrLoopback, "[::1]": egress.AddrLoopback,
	} {
		if got := classOf(t, c.CheckHost(t.Context(), host)); got != want {
			t.Errorf("%s: class %q, want %q", host, got, want)
		}
	}
	for _, host := range []string{"missing.example", "empty.example"} {
		var failed *egress.Error
		if err := c.CheckHost(t.Context(), host); !errors.As(err, &failed) || failed.Class != egress.ClassDNS || strings.Contains(err.Error(), "10.96") {
			t.Errorf("%s: %v", host, err)
		}
	}
}
