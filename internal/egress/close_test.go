package egress_test

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/postrider/postrider/internal/egress"
)

// A receiver that closes after its answer without having said so may get the next
// request at that moment, which then is lost: no client can know. But that happens
// only on a kept connection, and no request is sent twice for it.
func TestUnannouncedClose(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	address, conns := rawServer(t, func(c net.Conn, r *bufio.Reader) {
		request, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		mu.Lock()
		seen[request.URL.Path]++
		mu.Unlock()
		say(delivered)(c, r)
	})
	c := newClient(t, local(egress.Config{}))
	answered, fresh := 0, true
	for n := range 50 {
		path := "/" + strings.Repeat("x", n)
		before := conns.Load()
		result := c.Do(t.Context(), &egress.Request{URL: parseURL(t, "http://"+address+path), Body: []byte("{}")})
		mu.Lock()
		times := seen[path]
		mu.Unlock()
		if result.Err != nil {
			wantClass(t, result, egress.ClassReset)
			if fresh || conns.Load() != before || times != 0 {
				t.Errorf("request %d: lost, it came %d times, over a new connection: %v", n, times, fresh || conns.Load() != before)
			}
			fresh = true // nothing is kept now
			continue
		}
		wantStatus(t, result, 200)
		if times != 1 || conns.Load() != before+1 {
			t.Errorf("request %d: it came %d times over %d new connections", n, times, conns.Load()-before)
		}
		answered++
		fresh = false
	}
	if answered < 25 {
		t.Errorf("%d of 50 answered: a new connection follows each lost request", answered)
	}
}
