package httpd

import (
	"bytes"
	"io"
	"net/http"
	"testing"
)

// A client that is still sending when its request is refused reads the answer,
// and no reset connection.
func TestRefusedWhileSending(t *testing.T) {
	r := serve(t, Config{}, echoRoutes)
	body := bytes.Repeat([]byte("x"), 8<<20)
	for _, sized := range []bool{true, false} {
		for range 10 {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.addr+"/echo", io.NopCloser(bytes.NewReader(body)))
			if err != nil {
				t.Fatal(err)
			}
			if sized {
				req.ContentLength = int64(len(body))
			}
			resp, err := new(http.Transport).RoundTrip(req)
			if err != nil {
				t.Fatalf("sized %t: %v", sized, err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusRequestEntityTooLarge {
				t.Errorf("sized %t: status %d", sized, resp.StatusCode)
			}
		}
	}
}
