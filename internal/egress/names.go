package egress

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxNames bounds how many names are remembered.
	maxNames = 1 << 17
	// maxAnswer bounds the addresses of an answer that are looked at: whose name it
	// is may answer with thousands.
	maxAnswer = 32
)

// names looks host names up and remembers the answers for a while. What it
// returns is checked anew for each connection. Of several that ask for the same
// name at once, one asks the resolver and the others wait.
type names struct {
	resolver Resolver
	ttl      time.Duration // of answers; 0: not remembered
	negative time.Duration // of failures; 0: not remembered

	mu     sync.Mutex
	known  *lru[string, *answer]
	asking map[string]*answer
}

// answer is what a look-up brought; done is closed when it is there.
type answer struct {
	done  chan struct{}
	addrs []netip.Addr
	err   error
	until time.Time
	own   bool // the one who asked gave up: that says nothing about the name
}

func newNames(cfg *Config) *names {
	return &names{
		resolver: cfg.Resolver, ttl: cfg.DNSTTL, negative: cfg.DNSNegativeTTL,
		known: newLRU[string, *answer](maxNames), asking: map[string]*answer{},
	}
}

// lookup returns the addresses of a name, at least one, or the literal address
// itself. The result must not be changed.
func (n *names) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	name := strings.ToLower(host)
	for {
		a, mine := n.ask(name)
		if mine {
			a.addrs, a.err = lookup(ctx, n.resolver, name)
			a.own = a.err != nil && ctx.Err() != nil
			n.settle(name, a)
			return a.addrs, a.err
		}
		select {
		case <-a.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if !a.own {
			return a.addrs, a.err
		}
	}
}

// ask returns the answer that is known or under way, or a new one that the
// caller has to settle.
func (n *names) ask(name string) (a *answer, mine bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a, found := n.known.get(name); found {
		if time.Now().Before(a.until) {
			return a, false
		}
		n.known.remove(name)
	}
	if a, found := n.asking[name]; found {
		return a, false
	}
	a = &answer{done: make(chan struct{})}
	n.asking[name] = a
	return a, true
}

func (n *names) settle(name string, a *answer) {
	ttl := n.ttl
	if a.err != nil {
		ttl = n.negative
	}
	n.mu.Lock()
	delete(n.asking, name)
	if ttl > 0 && !a.own {
		a.until = time.Now().Add(ttl)
		n.known.put(name, a)
	}
	n.mu.Unlock()
	close(a.done)
}

// forget drops what is known of a name: its addresses don't answer.
func (n *names) forget(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known.remove(strings.ToLower(host))
}

// lookup asks the resolver: 1 to maxAnswer addresses, or an error.
func lookup(ctx context.Context, r Resolver, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	addrs, err := r.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	}
	if len(addrs) > maxAnswer {
		addrs = slices.Clone(addrs[:maxAnswer]) // the rest is not held
	}
	return addrs, nil
}
