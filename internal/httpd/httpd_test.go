package httpd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/testkit"
	"github.com/postrider/postrider/schemas"
)

// running is a server under test.
type running struct {
	addr string
	stop context.CancelFunc
	done chan error
}

// serve starts a server with the routes of the tests; it is stopped at the end.
func serve(t *testing.T, cfg Config, routes func(fiber.Router)) *running {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(cfg)
	if routes != nil {
		routes(s.App())
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{addr: ln.Addr().String(), stop: cancel, done: make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.done <- s.Serve(ctx, ln)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return r
}

// exchange sends raw bytes and returns the first answer, and the connection.
func (r *running) exchange(t *testing.T, raw string) (answered, net.Conn) {
	t.Helper()
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(nc, raw); err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, nc), nc
}

// answered is an answer that was read to its end.
type answered struct {
	status int
	header http.Header
	body   []byte
}

func readAnswer(t *testing.T, nc net.Conn) answered {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("read the answer's body: %v", err)
	}
	return answered{res.StatusCode, res.Header, body}
}

// echoLimit is the largest body that /echo takes.
const echoLimit = 1000

func echoRoutes(r fiber.Router) {
	r.Post("/echo", func(c *fiber.Ctx) error {
		body, err := Body(c, echoLimit)
		if err != nil {
			return err
		}
		return c.Send(body)
	})
	r.Get("/problem", func(*fiber.Ctx) error {
		return &Problem{Status: 503, Code: "away", Detail: "later", EventID: "evt_1", RetryAfter: 1500 * time.Millisecond}
	})
	r.Get("/unauthorized", func(*fiber.Ctx) error { return &Problem{Status: 401, Code: "who"} })
	r.Get("/error", func(*fiber.Ctx) error { return errors.New("the password is hunter2") })
	r.Get("/panic", func(*fiber.Ctx) error { panic("boom") })
}

func TestProblems(t *testing.T) {
	big := strings.Repeat("x", 2000)
	tests := []struct {
		name, raw string
		status    int
		code      string
		header    map[string]string
		closes    bool
	}{
		{"problem", "GET /problem HTTP/1.1\r\nHost: a\r\n\r\n", 503, "away", map[string]string{"Retry-After": "2"}, false},
		{"unauthorized", "GET /unauthorized HTTP/1.1\r\nHost: a\r\n\r\n", 401, "who", map[string]string{"Www-Authenticate": "Bearer"}, false},
		{"error", "GET /error HTTP/1.1\r\nHost: a\r\n\r\n", 500, CodeInternal, nil, false},
		{"panic", "GET /panic HTTP/1.1\r\nHost: a\r\n\r\n", 500, CodeInternal, nil, false},
		{"no route", "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404, CodeNotFound, nil, false},
		{"method", "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 405, CodeMethodNotAllowed, map[string]string{"Allow": "POST"}, false},
		{"unknown method", "BREW /echo HTTP/1.1\r\nHost: a\r\n\r\n", 501, CodeMethodNotAllowed, nil, false},
		{"not HTTP", "hello\r\n\r\n", 400, CodeMalformedRequest, nil, true},
		{"body too large", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n" + big[:1001], 413, CodeTooLarge, nil, false},
		{
			"chunked body too large", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" +
				"1f4\r\n" + big[:500] + "\r\n1f5\r\n" + big[:501] + "\r\n0\r\n\r\n", 413, CodeTooLarge, nil, false,
		},
		{"headers too large", "GET /problem HTTP/1.1\r\nHost: a\r\nX-Long: " + strings.Repeat("x", 5000) + "\r\n\r\n", 431, CodeHeadersTooLarge, nil, true},
		{
			"framed twice", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			400, CodeFraming, nil, true,
		},
		{
			"framed twice, other order", "POST /echo HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
			400, CodeFraming, nil, true,
		},
		{
			"framed twice, identity", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nab",
			400, CodeFraming, nil, true,
		},
		{"blank before colon", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length : 2\r\n\r\n", 400, CodeFraming, nil, true},
	}
	var log bytes.Buffer
	r := serve(t, Config{HeaderLimit: 4096, Logger: slog.New(slog.NewTextHandler(&log, nil))}, echoRoutes)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, nc := r.exchange(t, tt.raw)
			var p Problem
			if err := json.Unmarshal(got.body, &p); err != nil {
				t.Fatalf("body %q: %v", got.body, err)
			}
			if got.status != tt.status || p.Status != tt.status || p.Code != tt.code {
				t.Errorf("status %d, problem %+v, want %d %s", got.status, p, tt.status, tt.code)
			}
			if want := "urn:postrider:problem:" + tt.code; p.Type != want || p.Title != http.StatusText(tt.status) {
				t.Errorf("type %q title %q, want %q %q", p.Type, p.Title, want, http.StatusText(tt.status))
			}
			if ct := got.header.Get("Content-Type"); ct != ContentTypeProblem {
				t.Errorf("content type %q", ct)
			}
			if !bytes.HasSuffix(got.body, []byte("}\n")) {
				t.Errorf("body %q: want one line with its end", got.body)
			}
			if schemas.CheckID("req", p.RequestID) != nil || got.header.Get(HeaderRequestID) != p.RequestID {
				t.Errorf("request id %q, header %q", p.RequestID, got.header.Get(HeaderRequestID))
			}
			for name, want := range tt.header {
				if value := got.header.Get(name); value != want {
					t.Errorf("%s: %q, want %q", name, value, want)
				}
			}
			if bytes.Contains(got.body, []byte("hunter2")) {
				t.Error("the error's text was answered")
			}
			if tt.closes {
				if n, err := nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !isReset(err) {
					t.Errorf("the connection is still open: read %d, %v", n, err)
				}
			}
		})
	}
	for _, want := range []string{"boom", "hunter2", "request_id=req_"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, log.String())
		}
	}
}

// A detail is answered as it was written: it may quote a filter or a URL.
func TestEncodeJSON(t *testing.T) {
	got, err := EncodeJSON(Problem{Status: 422, Code: "a", Detail: `data.total > 1 && "<é>"`}.Complete())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"type":"urn:postrider:problem:a","title":"Unprocessable Entity","status":422,"detail":"data.total > 1 && \"<é>\"","code":"a"}` + "\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := EncodeJSON(make(chan int)); err == nil {
		t.Error("a channel was encoded")
	}
}

func isReset(err error) bool {
	return err != nil && strings.Contains(err.Error(), "reset")
}

func TestTruncatedBody(t *testing.T) {
	r := serve(t, Config{}, echoRoutes)
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	_, _ = io.WriteString(nc, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
	if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := readAnswer(t, nc); got.status != 400 || !bytes.Contains(got.body, []byte(CodeMalformedRequest)) {
		t.Errorf("status %d: %s", got.status, got.body)
	}
}

func TestBodyArrivesAsSent(t *testing.T) {
	const part = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n"
	r := serve(t, Config{}, echoRoutes)
	for name, header := range map[string]string{
		"multipart": "Content-Type: multipart/form-data; boundary=x",
		"gzip":      "Content-Encoding: gzip",
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.addr+"/echo", strings.NewReader(part))
			if err != nil {
				t.Fatal(err)
			}
			key, value, _ := strings.Cut(header, ": ")
			req.Header.Set(key, value)
			res, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			got, _ := io.ReadAll(res.Body)
			if diff := cmp.Diff(part, string(got)); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
			for name, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
				"Referrer-Policy": "no-referrer", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
			} {
				if got := res.Header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestTimeouts(t *testing.T) {
	t.Run("read", func(t *testing.T) {
		r := serve(t, Config{ReadTimeout: 500 * time.Millisecond}, echoRoutes)
		got, _ := r.exchange(t, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
		if got.status != http.StatusRequestTimeout || !bytes.Contains(got.body, []byte(CodeTimeout)) {
			t.Errorf("status %d: %s", got.status, got.body)
		}
	})
	t.Run("idle", func(t *testing.T) {
		r := serve(t, Config{IdleTimeout: 500 * time.Millisecond}, echoRoutes)
		got, nc := r.exchange(t, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na")
		if got.status != http.StatusOK {
			t.Fatalf("status %d", got.status)
		}
		if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("an idle connection: %v, want EOF", err)
		}
	})
	t.Run("write", func(t *testing.T) {
		near, far := net.Pipe()
		defer func() { _ = far.Close() }()
		c := &conn{Conn: near, from: &listener{timeout: time.Millisecond}}
		if _, err := c.Write([]byte("nobody reads this")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %v, want a deadline error", err)
		}
	})
}

func TestMaxConnections(t *testing.T) {
	r := serve(t, Config{MaxConnections: 1}, echoRoutes)
	const one = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na"
	if got, _ := r.exchange(t, one); got.status != 200 {
		t.Fatalf("first connection: status %d", got.status)
	}
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	if got := readAnswer(t, nc); got.status != 503 {
		t.Errorf("second connection: status %d, want 503", got.status)
	}
}

func TestDrain(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	routes := func(r fiber.Router) {
		r.Get("/slow", func(c *fiber.Ctx) error {
			close(entered)
			<-leave
			return c.SendString("done")
		})
	}
	r := serve(t, Config{}, routes)
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	_, _ = io.WriteString(nc, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-entered
	r.stop()
	refused := false
	for deadline := time.Now().Add(20 * time.Second); !refused && time.Now().Before(deadline); {
		other, err := net.Dial("tcp", r.addr)
		if refused = err != nil; !refused {
			_ = other.Close()
		}
	}
	if !refused {
		t.Error("new connections are still let in")
	}
	close(leave)
	if got := readAnswer(t, nc); got.status != 200 || string(got.body) != "done" {
		t.Errorf("status %d, body %q: the request under way did not finish", got.status, got.body)
	}
	if err := <-r.done; err != nil {
		t.Errorf("Serve: %v, want nil", err)
	}
}

// A connection that was opened ahead and never used holds up no end, and is no
// request that was cut off.
func TestSilentConnectionsAreClosedAtTheEnd(t *testing.T) {
	r := serve(t, Config{}, func(r fiber.Router) {
		r.Get("/", func(c *fiber.Ctx) error { return c.SendStatus(http.StatusNoContent) })
	})
	silent, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	// A later one is answered: the silent one was accepted, too.
	later, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = later.Close() }()
	_, _ = io.WriteString(later, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := later.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

func TestServeOutlastsALackOfFiles(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- New(Config{}).Serve(ctx, &testkit.ShortListener{Listener: ln, Short: 3}) }()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if answer, err := io.ReadAll(nc); err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 404")) {
		t.Errorf("%q, %v", answer, err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDrainTimeout(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	defer close(leave)
	r := serve(t, Config{DrainTimeout: 10 * time.Millisecond}, func(r fiber.Router) {
		r.Get("/hang", func(*fiber.Ctx) error {
			close(entered)
			<-leave
			return nil
		})
	})
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	_, _ = io.WriteString(nc, "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
	<-entered
	r.stop()
	if err := <-r.done; !errors.Is(err, ErrDrain) {
		t.Errorf("Serve: %v, want ErrDrain", err)
	}
	if _, err := nc.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
}

func TestServeAfterTheEnd(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := New(Config{}).Serve(ctx, ln); err != nil {
		t.Errorf("Serve with an ended context: %v", err)
	}
}

func TestServeListenerFails(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	if err := New(Config{}).Serve(t.Context(), ln); err == nil {
		t.Error("Serve on a closed listener: no error")
	}
}

func FuzzCheckFraming(f *testing.F) {
	f.Add([]byte("Host: a\r\nContent-Length: 1\r\n\r\n"))
	f.Add([]byte("content-length: 1\nTRANSFER-ENCODING: chunked"))
	f.Add([]byte(":\r\n\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		err := checkFraming(raw)
		lower := bytes.ToLower(raw)
		if err == nil && bytes.HasPrefix(lower, []byte("content-length:")) && bytes.Contains(lower, []byte("\ntransfer-encoding:")) {
			t.Errorf("%q: framed twice, not refused", raw)
		}
	})
}
