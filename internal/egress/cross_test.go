package egress_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/egress"
)

// moody answers with the id of the request, in different ways, and notes how
// often each id came.
type moody struct {
	mu   sync.Mutex
	seen map[string]int
}

func (m *moody) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("Webhook-Id")
	m.mu.Lock()
	m.seen[id]++
	m.mu.Unlock()
	mood := rand.IntN(12)
	if mood != 0 { // 0: an early answer
		if body, err := io.ReadAll(r.Body); err != nil || r.ProtoMajor == 1 && !bytes.HasPrefix(body, []byte(id)) {
			return // the client gave up
		}
	}
	switch mood {
	case 1:
		w.Header().Set("Connection", "close")
	case 2:
		w.WriteHeader(http.StatusEarlyHints)
	case 3:
		_ = http.NewResponseController(w).Flush() // in chunks
	case 4:
		panic(http.ErrAbortHandler)
	case 5:
		select { // until the client gives up, or not
		case <-r.Context().Done():
		case <-time.After(time.Duration(rand.IntN(20)) * time.Millisecond):
		}
	}
	_, _ = io.WriteString(w, id)
	if mood == 6 { // more than is drained
		_, _ = w.Write(make([]byte, 200<<10))
	}
}

// Many exchanges at once, some of which are cancelled or broken off: an answer is
// always the answer to its request, and no request arrives twice.
func TestAnswersDoNotCross(t *testing.T) {
	const senders, requests = 8, 100
	a := newAuthority(t)
	for name, protocols := range map[string][]string{"http": nil, "https": {"http/1.1"}, "h2": {"h2"}} {
		t.Run(name, func(t *testing.T) {
			server := &moody{seen: map[string]int{}}
			var address string
			if name == "http" {
				address = "http://" + httpServer(t, server.ServeHTTP).Listener.Addr().String()
			} else {
				s := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{a.hour(t).tls}, NextProtos: protocols}, server.ServeHTTP)
				address = "https://hook.example:" + portOf(t, s.Listener.Addr().String())
			}
			c := newClient(t, local(egress.Config{Resolver: always("127.0.0.1"), RootCAs: a.pool(), MaxIdlePerHost: 8}))
			u := parseURL(t, address)
			var group sync.WaitGroup
			for sender := range senders {
				group.Go(func() {
					for n := range requests {
						id := fmt.Sprintf("evt_%d_%d_", sender, n)
						ctx, cancel := context.WithCancel(t.Context())
						request := &egress.Request{URL: u, Fields: []egress.Field{{Name: "Webhook-Id", Value: id}}}
						if name != "h2" { // there net/http looks at a flag of its own without a lock when it sends a body again
							request.Body = append([]byte(id), make([]byte, rand.IntN(3)*20<<10)...)
						}
						if rand.IntN(8) == 0 {
							time.AfterFunc(time.Duration(rand.IntN(5000))*time.Microsecond, cancel)
						}
						result := c.Do(ctx, request)
						cancel()
						if result.Err == nil && !bytes.HasPrefix(result.Body, []byte(id)) {
							t.Errorf("request %s: answer %.40q", id, result.Body)
						}
						if result.Err != nil && result.Err.Class != egress.ClassCanceled && result.Err.Class != egress.ClassReset {
							t.Errorf("request %s: %v", id, result.Err)
						}
					}
				})
			}
			group.Wait()
			server.mu.Lock()
			defer server.mu.Unlock()
			for id, n := range server.seen {
				if n > 1 {
					t.Errorf("request %s arrived %d times", id, n)
				}
			}
			if len(server.seen) < senders*requests/2 {
				t.Errorf("only %d requests arrived", len(server.seen))
			}
		})
	}
}
