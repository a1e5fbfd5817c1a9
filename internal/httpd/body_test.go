package httpd

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/gofiber/fiber/v2"
)

// talk is a connection on which several requests are made.
type talk struct {
	t  *testing.T
	nc net.Conn
	br *bufio.Reader
	// last says that the last answer announced the end of the connection.
	last bool
}

func (r *running) talk(t *testing.T) *talk {
	t.Helper()
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &talk{t: t, nc: nc, br: bufio.NewReader(nc)}
}

func (k *talk) say(text string) {
	k.t.Helper()
	if _, err := io.WriteString(k.nc, text); err != nil {
		k.t.Fatal(err)
	}
}

// end says that nothing more will come.
func (k *talk) end() {
	k.t.Helper()
	if err := k.nc.(*net.TCPConn).CloseWrite(); err != nil {
		k.t.Fatal(err)
	}
}

// hear reads an answer, which has the status and, if it is a problem, the code.
func (k *talk) hear(status int, code string) answered {
	k.t.Helper()
	res, err := http.ReadResponse(k.br, nil)
	if err != nil {
		k.t.Fatalf("read the answer: %v", err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		k.t.Fatalf("read the answer's body: %v", err)
	}
	var p Problem
	if code != "" {
		if err := json.Unmarshal(body, &p); err != nil {
			k.t.Errorf("body %q: %v", body, err)
		}
	}
	if res.StatusCode != status || p.Code != code {
		k.t.Errorf("status %d: %s; want %d %s", res.StatusCode, body, status, code)
	}
	k.last = res.Close
	return answered{res.StatusCode, res.Header, body}
}

// closed says that the last answer was the last one.
func (k *talk) closed() {
	k.t.Helper()
	if !k.last {
		k.t.Error("the answer has no header Connection: close")
	}
	if more, err := io.ReadAll(k.br); len(more) > 0 || err != nil && !isReset(err) {
		k.t.Errorf("after the last answer came %q, %v", more, err)
	}
}

const (
	smuggled = "GET /problem HTTP/1.1\r\nHost: a\r\n\r\n"
	askOnce  = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
)

func refuseRoutes(r fiber.Router) {
	echoRoutes(r)
	r.Post("/refuse", func(*fiber.Ctx) error { return &Problem{Status: 401, Code: CodeMissingKey} })
	r.Post("/raw", func(c *fiber.Ctx) error { return c.SendString(strconv.Itoa(len(c.BodyRaw()))) })
}

// Who is refused by the headers learns it although the body never comes.
func TestRefusedBeforeTheBody(t *testing.T) {
	r := serve(t, Config{}, refuseRoutes)
	piece := strings.Repeat("x", 8<<10)
	for name, tt := range map[string]struct {
		raw    string
		status int
		code   string
	}{
		"chunked":             {"POST /refuse HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 401, CodeMissingKey},
		"announced":           {"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 268435456\r\n\r\n" + piece, 401, CodeMissingKey},
		"announced too large": {"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 268435456\r\n\r\n" + piece, 413, CodeTooLarge},
		"no route":            {"POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 268435456\r\n\r\n" + piece, 404, CodeNotFound},
		"no body expected":    {"GET /problem HTTP/1.1\r\nHost: a\r\nContent-Length: 268435456\r\n\r\n" + piece, 503, "away"},
		"unknown method":      {"BREW /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 268435456\r\n\r\n" + piece, 501, CodeMethodNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			k := r.talk(t)
			k.say(tt.raw)
			k.hear(tt.status, tt.code)
			// What comes now is still the body, whatever it looks like.
			k.say(smuggled + smuggled)
			k.end()
			k.closed()
		})
	}
}

// A refused body that is there already does not cost the connection.
func TestConnectionOutlastsARefusedBody(t *testing.T) {
	long := strings.Repeat("x", 1001)
	for name, tt := range map[string]struct {
		raw    string
		status int
		code   string
	}{
		"unasked":         {"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n" + long, 401, CodeMissingKey},
		"unasked chunked": {"POST /refuse HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 401, CodeMissingKey},
		"empty":           {"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 401, CodeMissingKey},
		"none":            {"POST /refuse HTTP/1.1\r\nHost: a\r\n\r\n", 401, CodeMissingKey},
		"too large":       {"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n" + long, 413, CodeTooLarge},
		"looks like one":  {"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: " + strconv.Itoa(len(smuggled)) + "\r\n\r\n" + smuggled, 401, CodeMissingKey},
		"with a GET":      {"GET /problem HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 503, "away"},
		"no route":        {"POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 404, CodeNotFound},
		"unknown method":  {"BREW /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 501, CodeMethodNotAllowed},
		"asked for":       {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			k := serve(t, Config{}, refuseRoutes).talk(t)
			k.say(tt.raw + askOnce) // pipelined
			k.hear(tt.status, tt.code)
			if got := k.hear(200, ""); string(got.body) != "hi" {
				t.Errorf("the next request was answered %q", got.body)
			}
			k.say(askOnce)
			k.hear(200, "")
		})
	}
}

func TestExpectContinue(t *testing.T) {
	r := serve(t, Config{}, refuseRoutes)
	t.Run("read", func(t *testing.T) {
		k := r.talk(t)
		for range 2 {
			k.say("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
			k.hear(100, "")
			k.say("ok")
			if got := k.hear(200, ""); string(got.body) != "ok" {
				t.Errorf("body %q", got.body)
			}
		}
	})
	t.Run("refused", func(t *testing.T) {
		k := r.talk(t)
		k.say("POST /refuse HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
		k.hear(100, "")
		k.hear(401, CodeMissingKey)
		k.closed()
	})
	t.Run("too large", func(t *testing.T) {
		k := r.talk(t)
		k.say("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n")
		k.hear(100, "")
		k.say(strings.Repeat("x", 1001))
		k.hear(413, CodeTooLarge)
	})
}

// fasthttp's stream tells the end of a connection and that of a body apart in
// none of these.
func TestBodiesThatDoNotArrive(t *testing.T) {
	const chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	long := "POST /long HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("x", 10000)
	routes := func(r fiber.Router) {
		echoRoutes(r)
		r.Post("/long", func(c *fiber.Ctx) error {
			body, err := Body(c, 1<<20)
			if err != nil {
				return err
			}
			return c.SendString(strconv.Itoa(len(body)))
		})
	}
	cut := serve(t, Config{}, routes)
	slow := serve(t, Config{ReadTimeout: 200 * time.Millisecond}, routes)
	for name, raw := range map[string]string{
		"announced": long, "between chunks": chunked + "5\r\nhello\r\n", "in a chunk": chunked + "5\r\nhel",
		"in a chunk's size": chunked + "5", "after a chunk's size": chunked + "5\r", "after a chunk": chunked + "5\r\nhello",
		"before the trailer": chunked + "5\r\nhello\r\n0\r\n", "in the trailer": chunked + "5\r\nhello\r\n0\r\nX-A: b",
	} {
		t.Run(name, func(t *testing.T) {
			k := cut.talk(t)
			k.say(raw)
			k.end()
			k.hear(400, CodeMalformedRequest)
			k.closed()
			k = slow.talk(t)
			k.say(raw)
			k.hear(408, CodeTimeout)
			k.end()
			k.closed()
		})
	}
	for name, raw := range map[string]string{
		"no size": chunked + "x\r\n", "size too large": chunked + strings.Repeat("f", 20) + "\r\n", "longer than its size": chunked + "2\r\nabc\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			k := cut.talk(t)
			k.say(raw + smuggled)
			k.hear(400, CodeMalformedRequest)
			k.end()
			k.closed()
		})
	}
}

// A handler that goes round Body gets no more than what has arrived.
func TestBodyByOtherMeansIsBounded(t *testing.T) {
	k := serve(t, Config{HeaderLimit: 4 << 10}, refuseRoutes).talk(t)
	k.say("POST /raw HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n" + strings.Repeat("x", 64<<10))
	got := k.hear(200, "")
	var n int
	if _, err := fmt.Sscan(string(got.body), &n); err != nil || n > 12<<10 {
		t.Errorf("read %s bytes, %v", got.body, err)
	}
	k.end()
	k.closed()
}

// holder is a server whose handler keeps each body until it is told to go on.
type holder struct {
	*running
	entered, leave chan struct{}
}

func hold(t *testing.T, cfg Config) *holder {
	t.Helper()
	h := &holder{entered: make(chan struct{}), leave: make(chan struct{})}
	h.running = serve(t, cfg, func(r fiber.Router) {
		echoRoutes(r)
		r.Post("/keep", func(c *fiber.Ctx) error {
			body, err := Body(c, 1<<20)
			if err != nil {
				return err
			}
			again, err := Body(c, 1)
			if err != nil || &again[0] != &body[0] || !bytes.Equal(c.BodyRaw(), body) {
				return errors.New("the second call is answered otherwise")
			}
			h.entered <- struct{}{}
			<-h.leave
			return c.SendString(strconv.Itoa(len(body)))
		})
		r.Post("/unpack", func(c *fiber.Ctx) error { return Hold(c, 200<<10) })
	})
	return h
}

func post(path string, n int) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", path, n, strings.Repeat("x", n))
}

func TestBodyBudget(t *testing.T) {
	h := hold(t, Config{BodyBudget: 400 << 10})
	first := h.talk(t)
	first.say(post("/keep", 200<<10)) // three quarters of the budget are 300 KiB
	<-h.entered

	for name, raw := range map[string]string{
		"another":      post("/keep", 200<<10),
		"decompressed": post("/unpack", 1),
		"chunked":      "POST /keep HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n32000\r\n" + strings.Repeat("x", 0x32000) + "\r\n0\r\n\r\n",
	} {
		k := h.talk(t)
		k.say(raw)
		if got := k.hear(503, CodeOverloaded); got.header.Get("Retry-After") != "2" {
			t.Errorf("%s: Retry-After %q, want 2", name, got.header.Get("Retry-After"))
		}
	}
	small := h.talk(t)
	small.say(askOnce)
	small.hear(200, "")

	close(h.leave)
	if got := first.hear(200, ""); string(got.body) != "204800" {
		t.Errorf("the first one had %s bytes", got.body)
	}
	// The connection is usable, and what it held is free before its answer goes out.
	first.say(post("/keep", 200<<10))
	<-h.entered
	first.hear(200, "")
}

// What bodies announce is not what they cost.
func TestAnnouncedBodiesAreNotCharged(t *testing.T) {
	h := hold(t, Config{BodyBudget: 8 << 20})
	for range 32 { // 32 MiB
		k := h.talk(t)
		k.say("POST /keep HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n" + strings.Repeat("x", 10<<10))
	}
	k := h.talk(t)
	close(h.leave)
	k.say(post("/keep", 1<<20))
	<-h.entered
	k.hear(200, "")
}

// A body takes no more memory than a few times what has arrived of it, and no
// more at its end than it has.
func TestBodyGrowsAsItArrives(t *testing.T) {
	for _, length := range []int{1, 4095, 4096, 4097, smallBody - 1, smallBody, smallBody + 1, 5 << 20} {
		for _, chunked := range []bool{false, true} {
			r := &request{bodies: &budget{max: 64 << 20}, length: length}
			first := min(length, smallBody)
			if chunked {
				r.length, first = -1, firstChunked
			}
			arrived := 0
			src := io.TeeReader(iotest.DataErrReader(io.LimitReader(&xs{}, int64(length))), writerFunc(func(p []byte) {
				// Twice: while a buffer grows there are two.
				if most := first + (growth+1)*arrived; r.held > most || r.held != r.bodies.used {
					t.Fatalf("%d bytes held of %d arrived, want at most %d", r.held, arrived, most)
				}
				arrived += len(p)
			}))
			body, err := r.read(src, 6<<20)
			if err != nil || len(body) != length || strings.Trim(string(body), "x") != "" {
				t.Fatalf("length %d, chunked %t: read %d bytes, %v", length, chunked, len(body), err)
			}
			if r.held != cap(body) || !chunked && cap(body) != length {
				t.Errorf("length %d, chunked %t: %d held, capacity %d", length, chunked, r.held, cap(body))
			}
		}
	}
}

type xs struct{}

func (*xs) Read(p []byte) (int, error) {
	n := min(len(p), 1460)
	for i := range n {
		p[i] = 'x'
	}
	return n, nil
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

func TestBodyOutsideAServer(t *testing.T) {
	app := fiber.New()
	app.Post("/", func(c *fiber.Ctx) error {
		if _, err := Body(c, 1); err == nil {
			t.Error("Body: no error")
		}
		if err := Hold(c, 1); err == nil {
			t.Error("Hold: no error")
		}
		return nil
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader("a"))
	if err != nil {
		t.Fatal(err)
	}
	res, err := app.Test(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
}
