package ingest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Without a key, or with a body that is announced too large, the answer does not
// wait for the body, and no memory is taken for it.
func TestRefusedBeforeTheBody(t *testing.T) {
	g := start(t, Config{}, Deps{})
	for name, tt := range map[string]struct {
		header, code string
		status       int
	}{
		"no key":      {"", CodeMissingKey, 401},
		"unknown key": {"Authorization: Bearer key_unknown.secret\r\n", CodeInvalidKey, 401},
		"too large":   {"Authorization: Bearer " + g.producer + "\r\nContent-Type: application/json\r\n", "body_too_large", 413},
		"not JSON":    {"Authorization: Bearer " + g.producer + "\r\nContent-Type: image/png\r\n", CodeUnsupportedType, 415},
		"not gzip": {
			"Authorization: Bearer " + g.producer + "\r\nContent-Type: application/json\r\nContent-Encoding: br\r\n", CodeUnsupportedEncoding, 415,
		},
	} {
		t.Run(name, func(t *testing.T) {
			nc, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(g.url, "http://"), Path))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = nc.Close() }()
			if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(nc, "POST %s HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n%s",
				Path, tt.header, 16<<20+1, strings.Repeat("x", 8<<10)); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != tt.status || !strings.Contains(string(body), tt.code) || !res.Close {
				t.Errorf("status %d, close %t: %s", res.StatusCode, res.Close, body)
			}
		})
	}
}
