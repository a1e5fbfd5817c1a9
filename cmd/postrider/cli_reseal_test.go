package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestReseal: the command goes on until every tenant had its turn, shows how far it
// is, and fails while something is left.
func TestReseal(t *testing.T) {
	answers := map[string]string{
		"":     `{"resealed":7,"left":4,"next_cursor":"c1"}`,
		"c1":   `{"resealed":2,"left":2,"unreadable":[{"tenant":"acme","endpoint_id":"ep_1"}],"next_cursor":"last"}`,
		"last": `{"resealed":1,"left":1}`,
	}
	broken := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cursor := r.URL.Query().Get("cursor")
		if broken && cursor == "last" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = io.WriteString(w, answers[cursor])
	}))
	t.Cleanup(server.Close)
	t.Setenv("POSTRIDER_API", server.URL)
	t.Setenv("POSTRIDER_API_KEY", testKey)
	got := command(t, "", "reseal")
	if got.code != 1 || !strings.Contains(got.err, "endpoints still sealed with an older key: 1") || !strings.Contains(got.out, "10        1") {
		t.Errorf("one is left: code %d\n%s%s", got.code, got.err, got.out)
	}
	if !strings.Contains(got.err, "endpoint ep_1 of tenant acme") || !strings.Contains(got.err, "9 endpoints sealed again, 2 left") {
		t.Errorf("what is going on: %s", got.err)
	}
	answers["last"] = `{"resealed":1,"left":0}`
	if got := command(t, "", "reseal"); got.code != 0 {
		t.Errorf("none is left: code %d\n%s", got.code, got.err)
	}
	broken = true
	if got := command(t, "", "reseal"); got.code != 1 || !strings.Contains(got.err, "after 9 endpoints (run it again to go on)") {
		t.Errorf("in the middle: code %d\n%s", got.code, got.err)
	}
	_, _ = fakeAPI(t, http.StatusOK, `{"keys":2,"left":3}`)
	if got := command(t, "", "reseal", "--check"); got.code != 1 || !strings.Contains(got.out, "2     3") {
		t.Errorf("check: code %d\n%s%s", got.code, got.err, got.out)
	}
}
