package egress_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/postrider/postrider/internal/egress"
)

func TestMain(m *testing.M) {
	if os.Getenv(sinkVariable) != "" {
		runSink()
		return
	}
	goleak.VerifyTestMain(m)
}

// resolver answers from a map; of several answers the last one stays.
type resolver struct {
	mu      sync.Mutex
	answers map[string][][]netip.Addr
	asked   int
}

func (r *resolver) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	list, found := r.answers[host]
	if !found {
		return nil, &net.DNSError{Err: "no such host", Name: host, Server: "10.96.0.10:53", IsNotFound: true}
	}
	if len(list) > 1 {
		r.answers[host] = list[1:]
	}
	return list[0], nil
}

// always answers for hook.example.
func always(addrs ...string) *resolver {
	return &resolver{answers: map[string][][]netip.Addr{"hook.example": {addrList(addrs...)}}}
}

func addrList(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

func allowing(cidrs ...string) egress.Config {
	var cfg egress.Config
	for _, cidr := range cidrs {
		cfg.AllowCIDRs = append(cfg.AllowCIDRs, netip.MustParsePrefix(cidr))
	}
	return cfg
}

func newClient(tb testing.TB, cfg egress.Config) *egress.Client {
	tb.Helper()
	c, err := egress.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.CloseIdleConnections)
	return c
}

func parseURL(tb testing.TB, raw string) *url.URL {
	tb.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

// classOf returns the class of a *BlockedError, "" for nil.
func classOf(tb testing.TB, err error) egress.AddrClass {
	tb.Helper()
	if err == nil {
		return ""
	}
	var blocked *egress.BlockedError
	if !errors.As(err, &blocked) {
		tb.Fatalf("%v is no BlockedError", err)
	}
	return blocked.Class
}
