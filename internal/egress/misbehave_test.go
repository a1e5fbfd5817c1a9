package egress_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postrider/postrider/internal/egress"
)

// act is what a receiver does with a connection.
type act func(c net.Conn, r *bufio.Reader)

// then does one thing after the other.
func then(acts ...act) act {
	return func(c net.Conn, r *bufio.Reader) {
		for _, a := range acts {
			a(c, r)
		}
	}
}

// read takes the whole request.
func read(_ net.Conn, r *bufio.Reader) { _ = readRequest(r) }

// peek waits for the first byte of a request.
func peek(_ net.Conn, r *bufio.Reader) { _, _ = r.Peek(1) }

// readHead takes the head of the request and not its body.
func readHead(_ net.Conn, r *bufio.Reader) {
	for line := "x"; strings.TrimSpace(line) != ""; {
		var err error
		if line, err = r.ReadString('\n'); err != nil {
			return
		}
	}
}

// say writes a text.
func say(text string) act {
	return func(c net.Conn, _ *bufio.Reader) { _, _ = io.WriteString(c, text) }
}

// hang does nothing until the client gives up.
func hang(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) }

// deaf does not even read; it ends when release is closed.
func deaf(release <-chan struct{}) act {
	return func(net.Conn, *bufio.Reader) { <-release }
}

// reset ends the connection with RST.
func reset(c net.Conn, _ *bufio.Reader) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// drip writes a text again and again, as long as it is taken.
func drip(text string) act {
	return func(c net.Conn, _ *bufio.Reader) {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for err := error(nil); err == nil; <-tick.C {
			_, err = io.WriteString(c, text)
		}
	}
}

// flood writes a text as fast as it is taken.
func flood(text string) act {
	return func(c net.Conn, _ *bufio.Reader) {
		text := strings.Repeat(text, 1+(32<<10)/len(text))
		for err := error(nil); err == nil; {
			_, err = io.WriteString(c, text)
		}
	}
}

const (
	okHead    = "HTTP/1.1 200 OK\r\n"
	chunkHead = okHead + "Transfer-Encoding: chunked\r\n\r\n"
	delivered = okHead + "Content-Length: 2\r\n\r\nok"
)

// Every way in which a receiver misbehaves ends in time, with its class, and
// tells the owner what happened. docs/delivery.md has the table.
func TestReceiversThatMisbehave(t *testing.T) {
	release := make(chan struct{})
	large := make([]byte, 8<<20)
	tests := []struct {
		name   string
		do     act
		body   []byte // nil: a small one
		want   egress.Class
		status int
		detail string
	}{
		{"hangs at once", hang, nil, egress.ClassTimeout, 0, "no complete response in time"},
		{"hangs after the request", then(read, hang), nil, egress.ClassTimeout, 0, ""},
		{"never reads a large request", deaf(release), large, egress.ClassTimeout, 0, ""},
		{"hangs in the status line", then(read, say("HTTP/1.1 2"), hang), nil, egress.ClassTimeout, 0, ""},
		{"hangs in the headers", then(read, say(okHead+"Content-Le"), hang), nil, egress.ClassTimeout, 0, ""},
		{"hangs after the headers", then(read, say(okHead+"Content-Length: 9\r\n\r\n"), hang), nil, egress.ClassTimeout, 200, ""},
		{"hangs in the body", then(read, say(okHead+"Content-Length: 9\r\n\r\nabc"), hang), nil, egress.ClassTimeout, 200, ""},
		{"hangs in a body without a length", then(read, say(okHead+"\r\nabc"), hang), nil, egress.ClassTimeout, 200, ""},
		{"hangs in a chunk line", then(read, say(chunkHead+"5"), hang), nil, egress.ClassTimeout, 200, ""},
		{"hangs in a chunk", then(read, say(chunkHead+"5\r\nab"), hang), nil, egress.ClassTimeout, 200, ""},
		{"hangs after the last chunk", then(read, say(chunkHead+"0\r\n"), hang), nil, egress.ClassTimeout, 200, ""},
		{"hangs after 100", then(read, say("HTTP/1.1 100 Continue\r\n\r\n"), hang), nil, egress.ClassTimeout, 0, ""},

		{"drips in the status line", then(read, say("HTTP/1.1 200 "), drip("x")), nil, egress.ClassTimeout, 0, ""},
		{"drips in the headers", then(read, say(okHead+"A: "), drip("x")), nil, egress.ClassTimeout, 0, ""},
		{"drips headers", then(read, say(okHead), drip("A: b\r\n")), nil, egress.ClassTimeout, 0, ""},
		{"drips a body", then(read, say(okHead+"Content-Length: 999999\r\n\r\n"), drip("x")), nil, egress.ClassTimeout, 200, ""},
		{"drips in a chunk", then(read, say(chunkHead+"ffff\r\n"), drip("x")), nil, egress.ClassTimeout, 200, ""},
		{"drips chunks", then(read, say(chunkHead), drip("1\r\nx\r\n")), nil, egress.ClassTimeout, 200, ""},
		{"drips a trailer", then(read, say(chunkHead+"0\r\n"), drip("A: b\r\n")), nil, egress.ClassTimeout, 200, ""},

		{"floods the status line", then(read, flood("HTTP/1.1 200 ")), nil, egress.ClassHeadersTooLarge, 0, "64 KiB"},
		{"floods headers", then(read, say(okHead), flood("A: b\r\n")), nil, egress.ClassHeadersTooLarge, 0, "64 KiB"},
		{"floods one header", then(read, say(okHead+"A: "), flood("b")), nil, egress.ClassHeadersTooLarge, 0, "64 KiB"},
		{"floods 1xx", then(read, flood("HTTP/1.1 103 Early Hints\r\n\r\n")), nil, egress.ClassHeadersTooLarge, 0, "5 interim"},
		{"floods a chunk line", then(read, say(chunkHead+"1"), flood("0")), nil, egress.ClassProtocol, 200, "chunk line too long"},
		{"floods chunk extensions", then(read, say(chunkHead), flood("1;"+strings.Repeat("x", 99)+"\r\nx\r\n")), nil, egress.ClassProtocol, 200, "more chunk lines than data"},
		{"floods the trailer", then(read, say(chunkHead+"0\r\n"), flood("A: b\r\n")), nil, egress.ClassProtocol, 200, "too long"},

		{"chunk without a length", then(read, say(chunkHead+"\r\nab\r\n0\r\n\r\n")), nil, egress.ClassProtocol, 200, "bad chunk length"},
		{"chunk with a wrong length", then(read, say(chunkHead+"1\r\nab\r\n0\r\n\r\n")), nil, egress.ClassProtocol, 200, "chunk"},
		{"chunk length not hexadecimal", then(read, say(chunkHead+"0x1\r\na\r\n0\r\n\r\n")), nil, egress.ClassProtocol, 200, "bad chunk length"},
		{"negative chunk length", then(read, say(chunkHead+"-1\r\na\r\n0\r\n\r\n")), nil, egress.ClassProtocol, 200, "bad chunk length"},
		{"chunk length of 68 bits", then(read, say(chunkHead+"10000000000000000\r\n")), nil, egress.ClassProtocol, 200, "bad chunk length"},
		{"chunk line with a bare LF", then(read, say(chunkHead+"1\na\n0\n\n")), nil, egress.ClassProtocol, 200, "without CR LF"},
		{"chunks that end early", then(read, say(chunkHead+"2\r\nab\r\n")), nil, egress.ClassReset, 200, "closed before"},
		{"two lengths", then(read, say(okHead+"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab")), nil, egress.ClassProtocol, 0, "different Content-Lengths"},
		{"unknown coding", then(read, say(okHead+"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")), nil, egress.ClassProtocol, 0, "Transfer-Encoding"},
		{"HTTP/2 unasked", then(read, say("HTTP/2.0 200 OK\r\n\r\n")), nil, egress.ClassProtocol, 0, "not HTTP/1"},

		{"resets at the first byte", then(peek, reset), nil, egress.ClassReset, 0, ""},
		{"resets in the request", then(readHead, reset), large, egress.ClassReset, 0, ""},
		{"resets after the request", then(read, reset), nil, egress.ClassReset, 0, ""},
		{"resets after the status line", then(read, say(okHead), reset), nil, egress.ClassReset, 0, ""},
		{"resets in the headers", then(read, say(okHead+"A: b"), reset), nil, egress.ClassReset, 0, ""},
		{"resets in the body", then(read, say(okHead+"Content-Length: 9\r\n\r\nabc"), reset), nil, egress.ClassReset, -1, ""},
		{"resets in a chunk", then(read, say(chunkHead+"9\r\nabc"), reset), nil, egress.ClassReset, -1, ""},
		{"resets after 100", then(read, say("HTTP/1.1 100 Continue\r\n\r\n"), reset), nil, egress.ClassReset, 0, ""},
		{"closes after 100", then(read, say("HTTP/1.1 100 Continue\r\n\r\n")), nil, egress.ClassReset, 0, ""},
		{"closes in the request", readHead, large, egress.ClassReset, 0, ""},
		{"switches protocols", then(read, say("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\nxxxx"), hang), nil, egress.ClassProtocol, 0, "switched protocols"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			address, conns := rawServer(t, tt.do)
			if strings.HasPrefix(tt.name, "never reads") {
				t.Cleanup(func() { close(release) })
			}
			c := newClient(t, local(egress.Config{MaxResponse: 1 << 10}))
			request := &egress.Request{URL: parseURL(t, "http://"+address), Body: tt.body}
			if request.Body == nil {
				request.Body = []byte("{}")
			}
			limits := []time.Duration{time.Minute}
			if tt.want == egress.ClassTimeout {
				limits = timeLimits()
			}
			var result egress.Result
			var tries int32
			for _, request.Timeout = range limits {
				tries++
				if result = c.Do(t.Context(), request); result.Err != nil && result.Err.Class == tt.want && result.Status == max(0, tt.status) {
					break
				}
			}
			wantClass(t, result, tt.want)
			if tt.status >= 0 && result.Status != tt.status { // a reset may overtake what was sent before
				t.Errorf("status %d, want %d", result.Status, tt.status)
			}
			if !strings.Contains(result.Err.Detail, tt.detail) || result.Err.Timeout != (tt.want == egress.ClassTimeout) {
				t.Errorf("detail %q, want %q in it; timeout %v", result.Err.Detail, tt.detail, result.Err.Timeout)
			}
			if conns.Load() > tries {
				t.Errorf("%d connections in %d tries", conns.Load(), tries)
			}
		})
	}
}

// Receivers that are odd but answer get what they want: their answer counts.
func TestReceiversThatAreOdd(t *testing.T) {
	release := make(chan struct{})
	large := make([]byte, 8<<20)
	const (
		tooLarge = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nnope"
		// A client that is not told may use the connection at the moment it is closed.
		tooLargeClose = "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnope"
	)
	tests := []struct {
		name   string
		do     act
		size   int // of the request's body
		status int
		body   string
		again  bool // the connection can be used again
	}{
		{"five interim responses", then(read, say(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 5)), say(delivered)), 1, 200, "ok", true},
		{"different interim responses", then(read, say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"+delivered)), 1, 200, "ok", true},
		{"100 before the request is read", then(peek, say("HTTP/1.1 100 Continue\r\n\r\n"), read, say(delivered)), len(large), 200, "ok", true},
		{"bare LF", then(read, say("HTTP/1.1 200 OK\nContent-Length: 2\n\nok")), 1, 200, "ok", true},
		{"no reason", then(read, say("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok")), 1, 200, "ok", true},
		{"unknown status", then(read, say("HTTP/1.1 799 Odd\r\nContent-Length: 2\r\n\r\nok")), 1, 799, "ok", true},
		{"HTTP/1.0", then(read, say("HTTP/1.0 200 OK\r\n\r\nok")), 1, 200, "ok", false},
		{"HTTP/1.0, kept", then(read, say("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok")), 1, 200, "ok", true},
		{"to be closed", then(read, say("HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok"), hang), 1, 200, "ok", false},
		{"chunked with extensions and a trailer", then(read, say(chunkHead+"1;a=b\r\no\r\n1\r\nk\r\n0\r\nA: b\r\n\r\n")), 1, 200, "ok", true},
		{"204 with a length of 0", then(read, say("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")), 1, 204, "", true},
		{"204 with a length", then(read, say("HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n"), hang), 1, 204, "", false},
		{"204 chunked", then(read, say("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"), hang), 1, 204, "", false},
		{"304 chunked", then(read, say("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n")), 1, 304, "", true},
		{"length and chunks", then(read, say(okHead+"Content-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), hang), 1, 200, "ok", false},
		{"more than its length", then(read, say(delivered+"HTTP/1.1 200 OK\r\n\r\n"), hang), 1, 200, "ok", false},
		{"a reset after the answer", then(read, say(okHead+"Connection: close\r\n"), say("Content-Length: 2\r\n\r\nok"), hang), 1, 200, "ok", false},
		{"early answer, then the rest", then(readHead, say(delivered), func(_ net.Conn, r *bufio.Reader) { _, _ = r.Discard(len(large)) }), len(large), 200, "ok", true},
		{"early answer, small request", then(readHead, say(tooLargeClose)), 1, 413, "nope", false},
		{"early answer, never reads on", then(readHead, say(tooLarge), deaf(release)), len(large), 413, "nope", false},
		{"early answer and a close", then(readHead, say(tooLarge)), len(large), 413, "nope", false},
		{"early answer without reading anything", then(say(tooLarge), peek), len(large), 413, "nope", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			address, conns := rawServer(t, func(c net.Conn, r *bufio.Reader) {
				tt.do(c, r)
				if tt.again {
					tt.do(c, r)
					hang(c, r)
				}
			})
			if strings.HasSuffix(tt.name, "never reads on") {
				t.Cleanup(func() { close(release) })
			}
			c := newClient(t, local(egress.Config{}))
			for range 2 {
				result := c.Do(t.Context(), &egress.Request{URL: parseURL(t, "http://"+address), Body: large[:tt.size]})
				if result.Err != nil && strings.HasPrefix(tt.name, "early answer and") {
					// The reset for the unread request may destroy the answer.
					wantClass(t, result, egress.ClassReset)
					continue
				}
				wantStatus(t, result, tt.status)
				if string(result.Body) != tt.body {
					t.Errorf("body %q", result.Body)
				}
			}
			if strings.HasSuffix(tt.name, "then the rest") {
				return // on a busy machine the rest may come too late to keep the connection
			}
			if want := map[bool]int32{true: 1, false: 2}[tt.again]; conns.Load() != want {
				t.Errorf("%d connections, want %d", conns.Load(), want)
			}
		})
	}
}

// A body of 1 GiB is neither read nor held, with a length, in one chunk, in many
// chunks, or until the end of the connection.
func TestGigabyteOfBody(t *testing.T) {
	const size = 1 << 30
	for name, head := range map[string]string{
		"length": fmt.Sprintf("Content-Length: %d\r\n\r\n", size), "one chunk": fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", size),
		"until the end": "\r\n", "chunks": "Transfer-Encoding: chunked\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			var sent atomic.Int64
			address, _ := rawServer(t, func(c net.Conn, r *bufio.Reader) {
				read(c, r)
				say(okHead+head)(c, r)
				block := make([]byte, 64<<10)
				if name == "chunks" {
					copy(block, "fffa\r\n") // 65,530 bytes with the next line
					block = append(block[:6+0xfffa], "\r\n"...)
				}
				for err := error(nil); err == nil && sent.Load() < size; {
					var n int
					n, err = c.Write(block)
					sent.Add(int64(n))
				}
			})
			c := newClient(t, local(egress.Config{}))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			result := send(t, c, "http://"+address)
			runtime.ReadMemStats(&after)
			wantStatus(t, result, 200)
			if len(result.Body) != 8<<10 || !result.Truncated {
				t.Errorf("%d bytes kept, truncated %v", len(result.Body), result.Truncated)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
				t.Errorf("%d bytes of memory used", used)
			}
			if n := sent.Load(); n > 64<<20 { // what fits into the buffers of both kernels
				t.Errorf("the receiver could send %d bytes", n)
			}
		})
	}
}

// A redirect is an answer, also one to a private address: nothing goes there.
func TestRedirectToAPrivateAddress(t *testing.T) {
	private, conns := rawServer(t, answering(delivered))
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, target := range []string{"http://" + private + "/", "http://169.254.169.254/", "//" + private, "/again", "file:///etc/passwd"} {
			address, _ := rawServer(t, then(read, say(fmt.Sprintf("HTTP/1.1 %d x\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n", status, target)), hang))
			wantStatus(t, send(t, newClient(t, local(egress.Config{})), "http://"+address), status)
		}
	}
	if conns.Load() != 0 {
		t.Errorf("%d connections to the target", conns.Load())
	}
}

// Fields that would change the framing are not sent, whatever the case of their
// name; others are sent as they are.
func TestFramingIsNotTheCallers(t *testing.T) {
	got := make(chan http.Header, 1)
	s := httpServer(t, func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if string(body) != "hello" || err != nil || r.Host == "evil" {
			t.Errorf("body %q, %v, host %s", body, err, r.Host)
		}
		got <- r.Header
	})
	c := newClient(t, local(egress.Config{}))
	request := &egress.Request{URL: parseURL(t, s.URL), Body: []byte("hello"), Fields: fields("X-Twice", "1", "X-Twice", "2", "tRANSFER-eNCODING", "chunked")}
	for _, name := range []string{
		"host", "content-length", "TRANSFER-ENCODING", "connection", "Keep-Alive", "proxy-connection", "TE", "trailer", "Upgrade", "expect",
	} {
		request.Fields = append(request.Fields, egress.Field{Name: name, Value: "evil"})
	}
	request.Fields = append(request.Fields, egress.Field{Name: "x-field", Value: "3"}, egress.Field{Name: "user-agent", Value: ""})
	wantStatus(t, c.Do(t.Context(), request), 200)
	header := <-got
	header.Del("Content-Length")
	if text := fmt.Sprint(header); text != "map[X-Field:[3] X-Twice:[1 2]]" {
		t.Errorf("header %s", text)
	}
	for _, bad := range []egress.Field{{Name: "", Value: "x"}, {Name: "A:", Value: "x"}, {Name: "A", Value: "x\r\nB: y"}, {Name: "A", Value: "\x00"}} {
		wantClass(t, c.Do(t.Context(), &egress.Request{URL: request.URL, Fields: []egress.Field{bad}}), egress.ClassInvalidRequest)
	}
	for _, raw := range []string{"http://a b/", "http://[fe80::1%25lo]/", "http://h\u00e9/"} {
		u := parseURL(t, "http://x/")
		u.Host = strings.TrimSuffix(strings.TrimPrefix(raw, "http://"), "/")
		wantClass(t, c.Do(t.Context(), &egress.Request{URL: u}), egress.ClassInvalidRequest)
	}
	u := parseURL(t, s.URL)
	u.RawQuery = "a HTTP/1.1\r\nEvil: x"
	wantClass(t, c.Do(t.Context(), &egress.Request{URL: u}), egress.ClassInvalidRequest)
	var failed *egress.Error
	if err := error(c.Do(t.Context(), &egress.Request{URL: u}).Err); !errors.As(err, &failed) || strings.Contains(err.Error(), "Evil") {
		t.Errorf("error %v", err)
	}
}
