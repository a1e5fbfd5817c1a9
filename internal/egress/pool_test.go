package egress_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/egress"
)

// everywhere answers for all names.
type everywhere struct{}

func (everywhere) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return addrList("127.0.0.1"), nil
}

// counting is a server that keeps connections, with the number of open ones.
func counting(t *testing.T) (port string, opened, open *atomic.Int32) {
	t.Helper()
	open = &atomic.Int32{}
	address, opened := rawServer(t, func(c net.Conn, r *bufio.Reader) {
		open.Add(1)
		defer open.Add(-1)
		for readRequest(r) == nil {
			if _, err := io.WriteString(c, delivered); err != nil {
				return
			}
		}
	})
	return portOf(t, address), opened, open
}

// Over all hosts, the connection that was used longest ago goes first.
func TestIdleConnectionsGoByAge(t *testing.T) {
	port, opened, _ := counting(t)
	c := newClient(t, local(egress.Config{Resolver: everywhere{}, MaxIdleConns: 3}))
	var dials []int32
	for _, host := range []string{"a", "b", "c", "a", "d", "c", "a", "d", "b"} { // d drives b out, b then c
		wantStatus(t, send(t, c, "http://"+host+".example:"+port), 200)
		dials = append(dials, opened.Load())
	}
	if diff := cmp.Diff([]int32{1, 2, 3, 3, 4, 4, 4, 4, 5}, dials); diff != "" {
		t.Errorf("connections opened (-want +got):\n%s", diff)
	}
	wantStatus(t, send(t, c, "http://a.example:"+port), 200)
	if wantStatus(t, send(t, c, "http://c.example:"+port), 200); opened.Load() != 6 {
		t.Errorf("%d connections opened, want 6", opened.Load())
	}
}

// Connections of HTTP/2 count, too, as long as they are open.
func TestHTTP2ConnectionsCount(t *testing.T) {
	port, opened, _ := counting(t)
	s, roots := tlsServer(t, "hook.example", time.Now().Add(time.Hour), func(http.ResponseWriter, *http.Request) {})
	c := newClient(t, local(egress.Config{Resolver: everywhere{}, RootCAs: roots, MaxIdleConns: 3}))
	wantStatus(t, send(t, c, "https://hook.example:"+portOf(t, s.Listener.Addr().String())), 200)
	for _, host := range []string{"a", "b", "c", "b", "c"} { // c drives a out
		wantStatus(t, send(t, c, "http://"+host+".example:"+port), 200)
	}
	if opened.Load() != 3 {
		t.Errorf("%d connections opened, want 3", opened.Load())
	}
	if wantStatus(t, send(t, c, "http://a.example:"+port), 200); opened.Load() != 4 {
		t.Errorf("%d connections opened, want 4: a has lost its own", opened.Load())
	}
}

// Of a host, the connection that was used last is used first, so that the ones
// that are not needed any more get old.
func TestLastConnectionIsUsedFirst(t *testing.T) {
	arrived, both := make(chan struct{}), make(chan struct{})
	address, _ := rawServer(t, func(c net.Conn, r *bufio.Reader) {
		for n := 0; readRequest(r) == nil; n++ {
			if n == 0 {
				arrived <- struct{}{}
				<-both
			}
			_, _ = fmt.Fprintf(c, okHead+"Content-Length: %d\r\n\r\n%s", len(c.RemoteAddr().String()), c.RemoteAddr())
		}
	})
	c := newClient(t, local(egress.Config{}))
	results := make(chan egress.Result, 2)
	for range 2 {
		go func() { results <- send(t, c, "http://"+address) }()
	}
	<-arrived
	<-arrived
	close(both)
	<-results
	<-results
	first := string(send(t, c, "http://"+address).Body)
	for range 10 {
		if from := string(send(t, c, "http://"+address).Body); from != first {
			t.Errorf("request from %s, the last one from %s", from, first)
		}
	}
}

// Thousands of hosts cost no more than the idle connections that are kept.
func TestHostsCostNothingWhenIdle(t *testing.T) {
	const hosts, kept = 3000, 8
	port, opened, open := counting(t)
	c := newClient(t, local(egress.Config{Resolver: everywhere{}, MaxIdleConns: kept}))
	use := func(from, to int) {
		for n := from; n < to; n++ {
			wantStatus(t, send(t, c, fmt.Sprintf("http://host-%d.example:%s", n, port)), 200)
		}
	}
	memory := func() int64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.GC() // what pools held is gone after the second
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	use(0, 100)
	before := memory()
	use(100, hosts)
	for open.Load() > kept { // the server has yet to see that connections end
		runtime.Gosched()
	}
	if grown := memory() - before; grown > hosts*100 {
		t.Errorf("%d hosts cost %d bytes", hosts, grown)
	}
	if opened.Load() != hosts {
		t.Errorf("%d connections to %d hosts", opened.Load(), hosts)
	}
	use(hosts-kept, hosts)
	if opened.Load() != hosts {
		t.Error("the last hosts have lost their connections")
	}
}
