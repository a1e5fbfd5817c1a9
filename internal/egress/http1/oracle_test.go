package http1_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/postrider/postrider/internal/egress/http1"
)

// answer is what a reader made of the bytes of a connection.
type answer struct {
	status     int
	length     int64
	retryAfter string
	keepAlive  bool
	body       string
	rest       int // bytes after the response
}

// ours reads as this package does.
func ours(src io.Reader) (answer, error) {
	r := http1.New(src)
	defer r.Release()
	head, err := r.ReadHead(false)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: head.Status, length: head.Length, retryAfter: head.RetryAfter, keepAlive: head.KeepAlive}
	body, err := io.ReadAll(r)
	rest, _ := io.ReadAll(src)
	a.body, a.rest = string(body), r.Buffered()+len(rest)
	if err == nil && head.Length >= 0 && int64(len(body)) != head.Length {
		return a, errors.New("length and body differ")
	}
	return a, err
}

// theirs reads as net/http does.
func theirs(raw []byte) (a answer, err error) {
	// Large enough that no bound of the oracle comes from its buffer.
	r := bufio.NewReaderSize(bytes.NewReader(raw), 1<<17)
	for range http1.MaxInterim + 1 {
		resp, err := http.ReadResponse(r, nil) //nolint:bodyclose // there is no connection to close
		if err != nil {
			return answer{}, err
		}
		if resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		a = answer{status: resp.StatusCode, length: resp.ContentLength, keepAlive: !resp.Close}
		if after := resp.Header.Get("Retry-After"); len(after) <= http1.MaxRetryAfter {
			a.retryAfter = after
		}
		body, err := io.ReadAll(resp.Body)
		a.body = string(body)
		rest, _ := io.ReadAll(r)
		a.rest = len(rest)
		return a, err
	}
	return answer{}, errors.New("too many interim responses")
}

// stricter reports whether net/http takes raw although we refuse it on purpose.
func stricter(raw []byte, err error) bool {
	var malformed http1.MalformedError
	if errors.Is(err, http1.ErrTooLarge) {
		return len(raw) > http1.MaxHead || bytes.Count(raw, []byte("HTTP/")) > http1.MaxInterim
	}
	if !errors.As(err, &malformed) {
		return false
	}
	switch malformed {
	case "not HTTP/1": // HTTP/2.0 and up
		return true
	case "bad status line": // +99, 099
		return true
	case "bad continuation of a header field", "bad Content-Length": // a field that matters goes on in the next line
		return bytes.Contains(raw, []byte("\n ")) || bytes.Contains(raw, []byte("\n\t"))
	case "chunk line without CR LF", "bad trailer field": // bare LF, or a continuation in the trailer
		return bytes.Contains(raw, []byte("0"))
	case "chunk line too long, or no end of a chunk":
		return len(raw) > 4000
	}
	return false
}

// FuzzReadResponse compares with net/http. What we accept, it accepts as the
// same; what it accepts, we accept but for the few rules of stricter.
func FuzzReadResponse(f *testing.F) {
	for _, raw := range seeds() {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := ours(bytes.NewReader(raw))
		want, wantErr := theirs(raw)
		switch {
		case err == nil && wantErr != nil:
			if laxer(raw, wantErr) {
				return
			}
			t.Fatalf("%.500q: accepted as %+v; net/http: %v", raw, got, wantErr)
		case err != nil && wantErr == nil:
			if !stricter(raw, err) {
				t.Fatalf("%.500q: %v; net/http accepts %+v", raw, err, want)
			}
		case err == nil:
			compare(t, raw, got, want)
		}
		// However the bytes arrive, the outcome is the same.
		slow, slowErr := ours(iotest.OneByteReader(bytes.NewReader(raw)))
		slow.rest, got.rest = 0, 0 // an error leaves different rests
		if (err == nil) != (slowErr == nil) || err == nil && slow != got {
			t.Fatalf("%.500q: at once %+v, %v; byte by byte %+v, %v", raw, got, err, slow, slowErr)
		}
	})
}

// laxer reports whether we take raw although net/http refuses it: it looks at
// the names that the field Trailer announces, and at Content-Lengths as text.
func laxer(raw []byte, err error) bool {
	lower := bytes.ToLower(raw)
	switch text := err.Error(); {
	case strings.Contains(text, "bad trailer key"):
		return bytes.Contains(lower, []byte("trailer"))
	case strings.Contains(text, "multiple Content-Length"):
		return bytes.Count(lower, []byte("content-length")) > 1
	}
	return false
}

func compare(t *testing.T, raw []byte, got, want answer) {
	t.Helper()
	if got.keepAlive && !want.keepAlive {
		t.Fatalf("%.500q: connection kept, by net/http not", raw)
	}
	if got.status == 101 {
		return // the rest is not HTTP
	}
	lower := bytes.ToLower(raw)
	framed204 := got.status == 204 && bytes.Contains(lower, []byte("content-length"))
	if want.keepAlive && !got.keepAlive && !framed204 && !bytes.Contains(lower, []byte("transfer-encoding")) {
		t.Fatalf("%.500q: connection not kept, by net/http it is", raw)
	}
	got.keepAlive, want.keepAlive = false, false
	if got.length < 0 || want.length < 0 || got.body == "" {
		got.length, want.length = 0, 0 // net/http says -1 or 0 for no body
	}
	if got != want {
		t.Fatalf("%.500q:\n got %+v\nwant %+v", raw, got, want)
	}
}

func seeds() []string {
	list := []string{
		"", "\r\n", "HTTP/1.1 200", "SSH-2.0-OpenSSH_9.6\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\nContent-Length: 2\n\nokHTTP/1.1 400 Bad Request\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nuntil the end", "HTTP/1.0 200\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1  503 x\r\nRetry-After: 7\r\nconnection: foo, CLOSE\r\ncontent-length:0\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
		strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 6) + "HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 204 x\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 101 x\r\nUpgrade: y\r\n\r\nzz", "HTTP/2.0 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\na", "HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\na",
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "HTTP/1.1 200 OK\r\n A: b\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\t\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nContent-Length:\r\n 1\r\n\r\na", "HTTP/1.1 200 OK\r\nA\r\n\r\n", "HTTP/1.1 200 OK\r\nA: \x01\r\n\r\n", "HTTP/1.1 200 OK\r\n: b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 5000) + "\r\nContent-Length: 1\r\n\r\nx",
	}
	for _, head := range []string{"", "Content-Length: 5\r\n", "Transfer-Encoding: gzip\r\n", "Trailer: A\r\n", "Transfer-Encoding: chunked\r\n"} {
		for _, body := range []string{
			"0\r\n\r\n", "2\r\nab\r\n3;x=y\r\ncde\r\n0\r\n\r\n", "A \r\n0123456789\r\n00\r\nA: b\r\n\r\nrest", "2\nab\n0\n\n", "2\r\nabc\r\n0\r\n\r\n",
			"zz\r\n", "\r\n", "11111111111111111\r\n", "5\r\nab", "1\r\na\r\n0\r\n\n", "1\r\na\r\n0\r\nA\r\n\r\n",
			strings.Repeat("1;"+strings.Repeat("x", 4000)+"\r\na\r\n", 5) + "0\r\n\r\n", strings.Repeat("1\r\na\r\n", 200) + "0\r\n\r\n",
		} {
			list = append(list, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"+head+"\r\n"+body)
		}
	}
	return list
}
