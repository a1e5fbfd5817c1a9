package pipe_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/postrider/postrider/internal/pipe"
	"github.com/postrider/postrider/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBehavesAsAConnection(t *testing.T) {
	nettest.TestConn(t, func() (a, b net.Conn, stop func(), err error) {
		a, b = pipe.New()
		return a, b, func() { _, _ = a.Close(), b.Close() }, nil
	})
}

// A small write must not wait for its reader: peers write requests one after the
// other and read answers later.
func TestWriteDoesNotWaitWithinTheBuffer(t *testing.T) {
	a, b := pipe.New()
	defer b.Close() //nolint:errcheck // an end of the test
	for range 64 {
		if _, err := a.Write(make([]byte, 1<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.SetWriteDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := a.Write(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write over the bound: %d, %v", n, err)
	}
	_ = a.Close()
	if got, err := io.ReadAll(b); err != nil || len(got) != 64<<10 {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

func TestLargeWriteArrivesWhole(t *testing.T) {
	a, b := pipe.New()
	defer b.Close() //nolint:errcheck // an end of the test
	sent := make([]byte, 3<<20+17)
	for i := range sent {
		sent[i] = byte(i * 7 >> 3)
	}
	done := make(chan error, 1)
	go func() {
		_, err := a.Write(sent)
		done <- errors.Join(err, a.Close())
	}()
	got, err := io.ReadAll(b)
	if err := errors.Join(err, <-done); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("read %d of %d bytes, %v", len(got), len(sent), err)
	}
}

func TestListenerTakesBothKinds(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := pipe.NewListener(inner)
	go func() { // an echo server
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	dials := map[string]func() (net.Conn, error){
		"memory": func() (net.Conn, error) { return ln.Dial(t.Context()) },
		"tcp":    func() (net.Conn, error) { return net.Dial("tcp", ln.Addr().String()) },
	}
	for name, dial := range dials {
		c, err := dial()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := c.Write([]byte(name)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := make([]byte, len(name))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != name {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		_ = c.Close()
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ln.Dial(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial after close: %v", err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
}

func TestAcceptOutlastsALackOfFiles(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := pipe.NewListener(&testkit.ShortListener{Listener: inner, Short: 3})
	defer ln.Close() //nolint:errcheck // a listener of the test
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // a connection of the test
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = server.Close()
}

// Without its Close, a listener that was closed by somebody else ends Accept.
func TestAcceptEndsWithTheOtherListener(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := pipe.NewListener(inner)
	_ = inner.Close()
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	_ = ln.Close() // the other one is closed already
}

func TestDialEndsWithItsContext(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := pipe.NewListener(inner)
	defer ln.Close() //nolint:errcheck // a listener of the test
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ln.Dial(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("dial with nobody accepting: %v", err)
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	tcp := func() (net.Conn, net.Conn) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer ln.Close() //nolint:errcheck // a listener of the test
		x, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		y, err := ln.Accept()
		if err != nil {
			b.Fatal(err)
		}
		return x, y
	}
	for name, pair := range map[string]func() (net.Conn, net.Conn){"memory": pipe.New, "tcp": tcp} {
		b.Run(name, func(b *testing.B) {
			x, y := pair()
			done := make(chan struct{})
			go func() {
				defer close(done)
				buf := make([]byte, 16<<10)
				for {
					if _, err := io.ReadFull(y, buf); err != nil {
						return
					}
					if _, err := y.Write(buf[:64]); err != nil {
						return
					}
				}
			}()
			buf := make([]byte, 16<<10)
			for b.Loop() {
				if _, err := x.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(x, buf[:64]); err != nil {
					b.Fatal(err)
				}
			}
			_ = x.Close()
			<-done
			_ = y.Close()
		})
	}
}
