package egress_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/internal/egress"
)

// The answers lead nowhere, so that no network disturbs the clock of the bubble.
func TestDNSAnswersAreRemembered(t *testing.T) {
	pauses := []time.Duration{0, 0, 4 * time.Second, time.Second, 24 * time.Second, time.Second}
	for _, tt := range []struct {
		name, host string
		cfg        egress.Config
		class      egress.Class
		want       []int // look-ups after each request
	}{
		{"answers", "hook.example", egress.Config{DNSTTL: 30 * time.Second}, egress.ClassBlockedAddress, []int{1, 1, 1, 1, 1, 2}},
		{"answers, not", "hook.example", egress.Config{DNSNegativeTTL: time.Hour}, egress.ClassBlockedAddress, []int{1, 2, 3, 4, 5, 6}},
		{"failures", "missing.example", egress.Config{DNSNegativeTTL: 5 * time.Second}, egress.ClassDNS, []int{1, 1, 1, 2, 3, 3}},
		{"failures, not", "missing.example", egress.Config{DNSTTL: time.Hour}, egress.ClassDNS, []int{1, 2, 3, 4, 5, 6}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := always("10.0.0.1")
				tt.cfg.Resolver = r
				c := newClient(t, tt.cfg)
				var asked []int
				for i, pause := range pauses {
					<-time.After(pause)
					host := []string{tt.host, "Hook.Example"}[i%2] // case does not matter
					if tt.host != "hook.example" {
						host = tt.host
					}
					wantClass(t, send(t, c, "http://"+host), tt.class)
					asked = append(asked, r.asked)
				}
				if diff := cmp.Diff(tt.want, asked); diff != "" {
					t.Errorf("look-ups (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// When nobody answers at the addresses, the name is looked up again at once.
func TestDNSAnswerThatLeadsNowhereIsForgotten(t *testing.T) {
	address, _ := rawServer(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	r := &resolver{answers: map[string][][]netip.Addr{"hook.example": {addrList("127.0.0.2"), addrList("127.0.0.1")}}}
	c := newClient(t, local(egress.Config{DNSTTL: time.Hour, Resolver: r}))
	u := "http://hook.example:" + portOf(t, address)
	wantClass(t, send(t, c, u), egress.ClassConnectRefused)
	wantStatus(t, send(t, c, u), 200)
}

// waitingResolver counts who asks and answers when it is told to.
type waitingResolver struct {
	asked  atomic.Int32
	answer chan struct{}
}

func (r *waitingResolver) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	r.asked.Add(1)
	select {
	case <-r.answer:
		return addrList("10.0.0.1"), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Many that want one name ask once. If the one who asks gives up, another asks.
func TestOneLookUpAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &waitingResolver{answer: make(chan struct{})}
		c := newClient(t, egress.Config{Resolver: r, DNSNegativeTTL: time.Hour})
		do := func(ctx context.Context, results chan<- egress.Result) {
			results <- c.Do(ctx, &egress.Request{URL: parseURL(t, "http://hook.example")})
		}
		first, rest := make(chan egress.Result, 1), make(chan egress.Result, 9)
		ctx, cancel := context.WithCancel(t.Context())
		go do(ctx, first)
		synctest.Wait()
		for range cap(rest) {
			go do(t.Context(), rest)
		}
		synctest.Wait()
		if n := r.asked.Load(); n != 1 {
			t.Errorf("10 requests asked %d times", n)
		}
		cancel()
		wantClass(t, <-first, egress.ClassCanceled)
		synctest.Wait()
		if n := r.asked.Load(); n != 2 {
			t.Errorf("after the first gave up: asked %d times", n)
		}
		close(r.answer)
		for range cap(rest) {
			wantClass(t, <-rest, egress.ClassBlockedAddress)
		}
		if n := r.asked.Load(); n != 2 {
			t.Errorf("at the end: asked %d times", n)
		}
	})
}

// A remembered answer is checked like a new one: only what is allowed of it is
// dialled, and a name that was fine when it was saved is blocked when its answer
// has changed.
func TestRememberedAnswersAreChecked(t *testing.T) {
	closing := "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
	address, conns := rawServer(t, answering(closing))
	mixed := always("127.0.0.2", "10.0.0.1", "127.0.0.1")
	cfg := allowing("127.0.0.1/32")
	cfg.Resolver, cfg.DNSTTL = mixed, time.Hour
	c := newClient(t, cfg)
	for range 3 {
		result := send(t, c, "http://hook.example:"+portOf(t, address))
		wantStatus(t, result, 200)
		if result.RemoteAddr != address {
			t.Errorf("spoke to %s", result.RemoteAddr)
		}
	}
	if mixed.asked != 1 || conns.Load() != 3 {
		t.Errorf("%d look-ups, %d connections", mixed.asked, conns.Load())
	}

	rebound := &resolver{answers: map[string][][]netip.Addr{"hook.example": {addrList("8.8.8.8"), addrList("127.0.0.1")}}}
	c = newClient(t, egress.Config{Resolver: rebound, DNSTTL: time.Hour})
	if err := c.CheckHost(t.Context(), "hook.example"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		wantClass(t, send(t, c, "http://hook.example:"+portOf(t, address)), egress.ClassBlockedAddress)
	}
	var blocked *egress.BlockedError
	if err := c.CheckHost(t.Context(), "hook.example"); !errors.As(err, &blocked) || rebound.asked != 3 {
		t.Errorf("saved again: %v after %d look-ups", err, rebound.asked)
	}
}

// Of a long answer the start is remembered, so that a name can't take much memory.
func TestLongAnswersAreCut(t *testing.T) {
	address, _ := rawServer(t, answering(delivered))
	for place, class := range map[int]egress.Class{31: "", 32: egress.ClassBlockedAddress} {
		long := addrList(strings.Fields(strings.Repeat("10.0.0.1 ", 4000))...)
		long[place] = addrList("127.0.0.1")[0]
		c := newClient(t, local(egress.Config{Resolver: &resolver{answers: map[string][][]netip.Addr{"hook.example": {long}}}}))
		result := send(t, c, "http://hook.example:"+portOf(t, address))
		if class == "" {
			wantStatus(t, result, 200)
		} else {
			wantClass(t, result, class)
		}
	}
}
