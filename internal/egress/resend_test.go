package egress_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/postrider/postrider/internal/egress"
)

// A stream that the endpoint resets may have been processed, whatever the code:
// only REFUSED_STREAM says that it was not. Then it is sent again, not for ever.
func TestResetStreamsAreSentOnce(t *testing.T) {
	a := newAuthority(t)
	cert := a.hour(t).tls
	for _, code := range []http2.ErrCode{
		http2.ErrCodeNo, http2.ErrCodeProtocol, http2.ErrCodeInternal, http2.ErrCodeCancel, http2.ErrCodeEnhanceYourCalm, http2.ErrCodeRefusedStream,
	} {
		for _, body := range []string{"", "x"} {
			t.Run(code.String()+" "+body, func(t *testing.T) {
				t.Parallel()
				var requests atomic.Int32
				address, _ := h2Server(t, cert, func(c *h2Conn, stream uint32) {
					requests.Add(1)
					_ = c.WriteRSTStream(stream, code)
				})
				c := newClient(t, local(egress.Config{Resolver: always("127.0.0.1"), RootCAs: a.pool()}))
				request := &egress.Request{URL: parseURL(t, "https://hook.example:"+portOf(t, address)), Body: []byte(body), Timeout: 20 * time.Second}
				result := c.Do(t.Context(), request)
				wantClass(t, result, egress.ClassReset)
				want := int32(1)
				if code == http2.ErrCodeRefusedStream {
					want = 3
				}
				if requests.Load() != want {
					t.Errorf("sent %d times, want %d", requests.Load(), want)
				}
			})
		}
	}
}

// An endpoint that takes no request on any of its connections is not dialled for
// as long as there is time.
func TestGoAwayOnEachConnection(t *testing.T) {
	a := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{a.hour(t).tls}, NextProtos: []string{"h2"}}
	open := make(chan net.Conn, 64)
	address, conns := rawServer(t, func(raw net.Conn, _ *bufio.Reader) {
		open <- raw
		secure := tls.Server(raw, config)
		framer := http2.NewFramer(secure, secure)
		_ = framer.WriteSettings()
		_ = framer.WriteGoAway(0, http2.ErrCodeNo, nil)
		_, _ = io.Copy(io.Discard, secure)
	})
	c := newClient(t, local(egress.Config{Resolver: always("127.0.0.1"), RootCAs: a.pool()}))
	t.Cleanup(func() { // the client keeps them until its idle timeout
		for len(open) > 0 {
			_ = (<-open).Close()
		}
	})
	wantClass(t, send(t, c, "https://hook.example:"+portOf(t, address)), egress.ClassReset)
	if conns.Load() > 33 {
		t.Errorf("%d connections for one request", conns.Load())
	}
}

// An endpoint that goes away every now and then, as web servers do after so many
// requests, loses none of those that are under way, and gets none twice.
func TestGoAwayUnderLoad(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	s, roots := tlsServer(t, "hook.example", time.Now().Add(time.Hour), func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // not processed
		}
		mu.Lock()
		defer mu.Unlock()
		if seen[string(body)]++; len(seen)%50 == 0 {
			w.Header().Set("Connection", "close") // GOAWAY
		}
	})
	c := newClient(t, local(egress.Config{Resolver: always("127.0.0.1"), RootCAs: roots}))
	u := parseURL(t, "https://hook.example:"+portOf(t, s.Listener.Addr().String()))
	const senders, each = 16, 50
	var group sync.WaitGroup
	for sender := range senders {
		group.Go(func() {
			for n := range each {
				result := c.Do(t.Context(), &egress.Request{URL: u, Body: fmt.Appendf(nil, "%d-%d", sender, n)})
				if result.Err != nil || result.Status != http.StatusOK {
					t.Errorf("status %d, %v", result.Status, result.Err)
				}
			}
		})
	}
	group.Wait()
	for body, times := range seen {
		if times != 1 {
			t.Errorf("%s was processed %d times", body, times)
		}
	}
	if len(seen) != senders*each {
		t.Errorf("%d requests were processed", len(seen))
	}
}
