package http1_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/postrider/postrider/internal/egress/http1"
)

// line returns a field line of n bytes with its end.
func line(n int) string { return "A: " + strings.Repeat("a", n-5) + "\r\n" }

// Every part of a response is bounded: what just fits is read, one more is not.
func TestBounds(t *testing.T) {
	const status, end = "HTTP/1.1 200 OK\r\n", "Content-Length: 2\r\n\r\n"
	const chunks = status + "Transfer-Encoding: chunked\r\n\r\n"
	interim := "HTTP/1.1 103 Early Hints\r\n\r\n"
	room := http1.MaxHead - len(status) - len(end)
	for _, tt := range []struct {
		name, fits, toolarge string
		want                 error
	}{
		{"head", status + line(room) + end + "ok", status + line(room+1) + end + "ok", http1.ErrTooLarge},
		{
			"head with interim responses", interim + status + line(room-len(interim)) + end + "ok",
			interim + status + line(room-len(interim)+1) + end + "ok", http1.ErrTooLarge,
		},
		{"interim responses", strings.Repeat(interim, 5) + status + end + "ok", strings.Repeat(interim, 6) + status + end + "ok", http1.ErrTooLarge},
		{
			"trailer", chunks + "2\r\nok\r\n0\r\n" + line(4096-2) + "\r\n", chunks + "2\r\nok\r\n0\r\n" + line(4096-1) + "\r\n",
			http1.MalformedError("chunk line too long, or no end of a chunk"),
		},
		{
			"chunk line", chunks + "2;" + strings.Repeat("x", 4096-4) + "\r\nok\r\n0\r\n\r\n", chunks + "2;" + strings.Repeat("x", 4096-3) + "\r\nok\r\n0\r\n\r\n",
			http1.MalformedError("chunk line too long, or no end of a chunk"),
		},
	} {
		for kind, wrap := range map[string]func(io.Reader) io.Reader{"at once": func(r io.Reader) io.Reader { return r }, "slowly": iotest.OneByteReader} {
			got, err := ours(wrap(strings.NewReader(tt.fits)))
			if err != nil || got.body != "ok" {
				t.Errorf("%s, %s: body %q, %v", tt.name, kind, got.body, err)
			}
			if _, err := ours(wrap(strings.NewReader(tt.toolarge))); !errors.Is(err, tt.want) {
				t.Errorf("%s and a byte, %s: %v", tt.name, kind, err)
			}
		}
	}
}

// The end of a connection is io.EOF only where nothing had come.
func TestEndOfTheConnection(t *testing.T) {
	whole := "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n"
	for n := range len(whole) {
		_, err := ours(strings.NewReader(whole[:n]))
		if want := map[bool]error{true: io.EOF, false: io.ErrUnexpectedEOF}[n == 0]; !errors.Is(err, want) {
			t.Errorf("after %q: %v, want %v", whole[:n], err, want)
		}
	}
	broken := errors.New("broken")
	if _, err := ours(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if _, err := ours(nothing{}); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("got %v", err)
	}
}

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, nil }

// A request without a body in its answer reads none, whatever the head says, and
// leaves what follows.
func TestNoBody(t *testing.T) {
	r := http1.New(strings.NewReader("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nHTTP/1.1 204 x\r\n\r\n"))
	defer r.Release()
	head, err := r.ReadHead(true)
	if err != nil || !r.Complete() || head.Length != 0 || !head.KeepAlive {
		t.Fatalf("%+v, %v", head, err)
	}
	if n, err := r.Read(make([]byte, 9)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read %d, %v", n, err)
	}
	if head, err = r.ReadHead(false); err != nil || head.Status != 204 || r.Buffered() != 0 {
		t.Errorf("%+v, %v", head, err)
	}
}

func TestTokensAndValues(t *testing.T) {
	for text, want := range map[string]bool{"POST": true, "X-a_1!#$%&'*+.^`|~": true, "": false, "a b": false, "a:": false, "\x00": false, "ä": false} {
		if http1.IsToken(text) != want {
			t.Errorf("token %q: %v", text, !want)
		}
	}
	for text, want := range map[string]bool{"": true, "a b\tc ä": true, "a\nb": false, "a\r": false, "\x7f": false, "\x00": false} {
		if http1.IsValue(text) != want {
			t.Errorf("value %q: %v", text, !want)
		}
	}
}

// BenchmarkRead reads a response of the usual kind; it should need no memory.
func BenchmarkRead(b *testing.B) {
	const text = "HTTP/1.1 200 OK\r\nDate: Sat, 28 Nov 2026 03:00:00 GMT\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"
	src, body := strings.NewReader(text), make([]byte, 8)
	b.ReportAllocs()
	for b.Loop() {
		src.Reset(text)
		r := http1.New(src)
		if _, err := r.ReadHead(false); err != nil {
			b.Fatal(err)
		}
		if n, err := r.Read(body); n != 2 || err != nil || !r.Complete() {
			b.Fatalf("%d bytes, %v", n, err)
		}
		r.Release()
	}
}
