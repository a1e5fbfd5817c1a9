package egress_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/postrider/postrider/internal/egress"
)

// h2Conn is a connection of a server that speaks HTTP/2 by hand.
type h2Conn struct {
	*http2.Framer
	conn   net.Conn
	number int32 // of the connection, from 1
	last   atomic.Uint32
}

// head writes a head made of names and values.
func (c *h2Conn) head(stream uint32, end bool, fields ...string) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	first := block.Next(16 << 10)
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndStream: end, EndHeaders: block.Len() == 0})
	for block.Len() > 0 {
		part := block.Next(16 << 10)
		_ = c.WriteContinuation(stream, block.Len() == 0, part)
	}
}

// h2Server calls handle for each request that has arrived in full, and once for
// each head of one.
func h2Server(t *testing.T, cert tls.Certificate, handle func(c *h2Conn, stream uint32)) (address string, conns *atomic.Int32) {
	t.Helper()
	var number atomic.Int32
	address, _ = rawServer(t, func(raw net.Conn, _ *bufio.Reader) {
		secure := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
		if _, err := io.ReadFull(secure, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		c := &h2Conn{Framer: http2.NewFramer(secure, secure), conn: secure, number: number.Add(1)}
		_ = c.WriteSettings()
		for {
			frame, err := c.ReadFrame()
			if err != nil {
				return
			}
			switch f := frame.(type) {
			case *http2.SettingsFrame:
				if !f.IsAck() {
					_ = c.WriteSettingsAck()
				}
			case *http2.PingFrame:
				if !f.IsAck() {
					_ = c.WritePing(true, f.Data)
				}
			case *http2.DataFrame:
				if f.StreamEnded() {
					handle(c, f.StreamID)
				}
			}
		}
	})
	return address, &number
}

func TestHTTP2ReceiversThatMisbehave(t *testing.T) {
	a := newAuthority(t)
	cert := a.hour(t).tls
	ok := func(c *h2Conn, stream uint32) { c.head(stream, true, ":status", "200") }
	tests := []struct {
		name   string
		do     func(c *h2Conn, stream uint32)
		want   egress.Class // "" for success
		status int
		conns  int32
		detail string
	}{
		{"answers", ok, "", 200, 1, ""},
		{"goes away before the request", func(c *h2Conn, stream uint32) {
			if c.number > 1 {
				ok(c, stream)
				return
			}
			_ = c.WriteGoAway(0, http2.ErrCodeNo, nil)
			_ = c.conn.Close()
		}, "", 200, 2, ""},
		{"goes away in the request", func(c *h2Conn, stream uint32) {
			_ = c.WriteGoAway(stream, http2.ErrCodeInternal, []byte("secret"))
			_ = c.conn.Close()
		}, egress.ClassReset, 0, 1, "closed before"},
		{"goes away after the answer", func(c *h2Conn, stream uint32) {
			ok(c, stream)
			_ = c.WriteGoAway(stream, http2.ErrCodeNo, nil)
		}, "", 200, 1, ""},
		{"refuses the stream", func(c *h2Conn, stream uint32) {
			if c.last.Swap(stream) == 0 && c.number == 1 {
				_ = c.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
				return
			}
			ok(c, stream)
		}, "", 200, 1, ""},
		{"resets the stream", func(c *h2Conn, stream uint32) {
			_ = c.WriteRSTStream(stream, http2.ErrCodeInternal)
		}, egress.ClassReset, 0, 1, "closed before"},
		{"resets the stream in the body", func(c *h2Conn, stream uint32) {
			c.head(stream, false, ":status", "200")
			_ = c.WriteData(stream, false, []byte("abc"))
			_ = c.WriteRSTStream(stream, http2.ErrCodeCancel)
		}, egress.ClassReset, 200, 1, "closed before"},
		{"closes", func(c *h2Conn, _ uint32) { _ = c.conn.Close() }, egress.ClassReset, 0, 1, "closed before"},
		{"closes in the body", func(c *h2Conn, stream uint32) {
			c.head(stream, false, ":status", "200")
			_ = c.WriteData(stream, false, []byte("abc"))
			_ = c.conn.Close()
		}, egress.ClassReset, 200, 1, "closed before"},
		{"hangs", func(*h2Conn, uint32) {}, egress.ClassTimeout, 0, 1, "no complete response in time"},
		{"hangs in the body", func(c *h2Conn, stream uint32) {
			c.head(stream, false, ":status", "200")
			_ = c.WriteData(stream, false, []byte("abc"))
		}, egress.ClassTimeout, 200, 1, "no complete response in time"},
		{"drips", func(c *h2Conn, stream uint32) {
			c.head(stream, false, ":status", "200")
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for err := error(nil); err == nil; <-tick.C {
				err = c.WriteData(stream, false, []byte("x"))
			}
		}, egress.ClassTimeout, 200, 1, "no complete response in time"},
		{"breaks the rules", func(c *h2Conn, stream uint32) {
			_ = c.WriteRawFrame(http2.FrameData, 0, 0, []byte("secret"))
			ok(c, stream)
		}, egress.ClassProtocol, 0, 1, "PROTOCOL_ERROR"},
		{"no status", func(c *h2Conn, stream uint32) { c.head(stream, true, "a", "b") }, egress.ClassProtocol, 0, 1, ""},
		{"large headers", func(c *h2Conn, stream uint32) {
			fields := []string{":status", "200"}
			for range 9 {
				fields = append(fields, "a", strings.Repeat("~", 8<<10))
			}
			c.head(stream, true, fields...)
		}, egress.ClassHeadersTooLarge, 0, 1, "64 KiB"},
		{"endless interim responses", func(c *h2Conn, stream uint32) {
			for range 99 {
				c.head(stream, false, ":status", "103", "a", strings.Repeat("~", 1000))
			}
		}, egress.ClassHeadersTooLarge, 0, 1, "64 KiB"},
		{"redirects", func(c *h2Conn, stream uint32) {
			c.head(stream, true, ":status", "307", "location", "https://127.0.0.1/")
		}, "", 307, 1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			address, conns := h2Server(t, cert, tt.do)
			c := newClient(t, local(egress.Config{Resolver: always("127.0.0.1"), RootCAs: a.pool(), MaxResponse: 1 << 20}))
			request := &egress.Request{URL: parseURL(t, "https://hook.example:"+portOf(t, address)), Body: []byte("x"), Timeout: time.Minute}
			if tt.want == egress.ClassTimeout {
				request.Timeout = 2 * time.Second
			}
			result := c.Do(t.Context(), request)
			if tt.want == "" {
				wantStatus(t, result, tt.status)
			} else {
				wantClass(t, result, tt.want)
				if result.Status != tt.status || !strings.Contains(result.Err.Detail, tt.detail) || strings.Contains(result.Err.Detail, "secret") {
					t.Errorf("status %d, detail %q; want %d and %q in it", result.Status, result.Err.Detail, tt.status, tt.detail)
				}
			}
			if conns.Load() != tt.conns {
				t.Errorf("%d connections, want %d", conns.Load(), tt.conns)
			}
		})
	}
}

// A host that chose HTTP/2 and does not any more, for a new server behind the same
// name, gets HTTP/1.1, and HTTP/2 again when it chooses that.
func TestHostChangesItsProtocol(t *testing.T) {
	a := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{a.hour(t).tls}, NextProtos: []string{"h2", "http/1.1"}}
	var protocol atomic.Value
	protocol.Store("h2")
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		one := config.Clone()
		one.NextProtos = []string{protocol.Load().(string)}
		return one, nil
	}
	got := make(chan int, 1)
	s := serveTLS(t, config, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got <- r.ProtoMajor
	})
	c := newClient(t, local(egress.Config{Resolver: always("127.0.0.1"), RootCAs: a.pool()}))
	for _, want := range []int{2, 1, 1, 2, 1} {
		protocol.Store(map[int]string{1: "http/1.1", 2: "h2"}[want])
		s.CloseClientConnections()
		c.CloseIdleConnections()
		result := send(t, c, "https://hook.example:"+portOf(t, s.Listener.Addr().String()))
		wantStatus(t, result, 200)
		if version := <-got; version != want {
			t.Errorf("HTTP/%d, want HTTP/%d", version, want)
		}
	}
}

// Many that want a host of which nothing is known all get an answer, over HTTP/2.
func TestManyBeginOverHTTP2(t *testing.T) {
	s, roots := tlsServer(t, "hook.example", time.Now().Add(time.Hour), func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200 + r.ProtoMajor)
	})
	c := newClient(t, local(egress.Config{Resolver: always("127.0.0.1"), RootCAs: roots}))
	results := make(chan egress.Result)
	for range 50 {
		go func() { results <- send(t, c, "https://hook.example:"+portOf(t, s.Listener.Addr().String())) }()
	}
	for range 50 {
		wantStatus(t, <-results, 202)
	}
}
