package egress

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// AddrClass says what kind of address a blocked one is.
type AddrClass string

// The closed set of address classes.
const (
	AddrLoopback   AddrClass = "loopback"
	AddrPrivate    AddrClass = "private"
	AddrCGNAT      AddrClass = "cgnat"
	AddrLinkLocal  AddrClass = "link_local"
	AddrMulticast  AddrClass = "multicast"
	AddrReserved   AddrClass = "reserved"
	AddrMetadata   AddrClass = "metadata"    // never allowed
	AddrEmbeddedV4 AddrClass = "embedded_v4" // an IPv6 address that leads to a blocked IPv4 one
	AddrPort       AddrClass = "port"        // the port, not the address, is refused
)

// BlockedError says that an address or its port must not be reached.
type BlockedError struct {
	// Addr is the blocked address, without a zone; IPv4 where it was IPv4-mapped. It
	// is not set where a name led to it: who asks may not see that zone.
	Addr netip.Addr
	// Class says why.
	Class AddrClass
	// Embedded is the IPv4 address inside Addr that is blocked, where there is one.
	Embedded netip.Addr
	// Port is the refused port where Class is AddrPort, else 0.
	Port uint16
}

// Error says why the address is blocked, and names it if it is set.
func (e *BlockedError) Error() string {
	switch {
	case e.Class == AddrPort:
		return fmt.Sprintf("port %d is not allowed", e.Port)
	case !e.Addr.IsValid():
		return fmt.Sprintf("the name leads to an address that is not allowed: %s", e.Class)
	case e.Embedded.IsValid():
		return fmt.Sprintf("address %s is not allowed: %s, by %s", e.Addr, e.Class, e.Embedded)
	default:
		return fmt.Sprintf("address %s is not allowed: %s", e.Addr, e.Class)
	}
}

// guard decides which addresses may be dialled. It never changes.
type guard struct {
	allow    []netip.Prefix
	nat64    []nat64
	special4 []specialRange
	special6 []specialRange
	metadata map[netip.Addr]bool
}

func newGuard(allow, gateways []netip.Prefix) (*guard, error) {
	g := &guard{special4: specialRanges4(), special6: specialRanges6(), metadata: metadataAddrs()}
	for _, p := range allow {
		if !p.IsValid() {
			return nil, fmt.Errorf("allowed CIDR %s is not valid", p)
		}
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		g.allow = append(g.allow, p.Masked())
	}
	for _, p := range gateways {
		n, err := newNAT64(p)
		if err != nil {
			return nil, err
		}
		g.nat64 = append(g.nat64, n)
	}
	return g, nil
}

// decode returns the IPv4 addresses inside addr, the operator's NAT64 first.
func (g *guard) decode(addr netip.Addr) embedded {
	for i := range g.nat64 {
		if g.nat64[i].prefix.Contains(addr) {
			return g.nat64[i].decode(addr)
		}
	}
	return decodeV4(addr)
}

// check reports whether addr may be dialled: nil or a *BlockedError. The order
// matters: metadata first, as nothing allows it; then what the operator allows;
// then what an embedded IPv4 address says; then the tables.
func (g *guard) check(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	if g.metadata[addr] {
		return &BlockedError{Addr: addr, Class: AddrMetadata}
	}
	inner := g.decode(addr)
	for _, v4 := range inner.addrs {
		if g.metadata[v4] {
			return &BlockedError{Addr: addr, Class: AddrMetadata, Embedded: v4}
		}
	}
	if g.allowed(addr) {
		return nil
	}
	allAllowed := len(inner.addrs) > 0
	for _, v4 := range inner.addrs {
		if g.allowed(v4) {
			continue
		}
		allAllowed = false
		if g.class(v4) != "" {
			return &BlockedError{Addr: addr, Class: AddrEmbeddedV4, Embedded: v4}
		}
	}
	if len(inner.addrs) > 0 && (inner.form == routed || inner.form == whole && allAllowed) {
		return nil
	}
	if class := g.class(addr); class != "" {
		return &BlockedError{Addr: addr, Class: class}
	}
	return nil
}

// checkPort allows the ports of the web and those that need no privilege.
func checkPort(port uint16) error {
	if port == 80 || port == 443 || port >= 1024 {
		return nil
	}
	return &BlockedError{Class: AddrPort, Port: port}
}

// split returns the addresses of a host that may be dialled, in their order, and
// the error of the first one that may not.
func (g *guard) split(host string, addrs []netip.Addr) (allowed []netip.Addr, blocked error) {
	for _, addr := range addrs {
		err := g.check(addr)
		if err == nil {
			allowed = append(allowed, addr.Unmap())
		} else if blocked == nil {
			blocked = err
		}
	}
	if !isLiteral(host) {
		blocked = nameless(blocked)
	}
	return allowed, blocked
}

func isLiteral(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// nameless returns a blocking error without the address, which only the operator's
// name servers may tell.
func nameless(err error) error {
	var blocked *BlockedError
	if !errors.As(err, &blocked) {
		return err
	}
	return &BlockedError{Class: blocked.Class, Port: blocked.Port}
}

// conceal leaves the address out of a failure to connect where a name led to one
// that is only allowed because the operator says so.
func (g *guard) conceal(host string, err error) error {
	var op *net.OpError
	if isLiteral(host) || !errors.As(err, &op) || op.Addr == nil {
		return err
	}
	if at, bad := netip.ParseAddrPort(op.Addr.String()); bad == nil && g.class(at.Addr().Unmap().WithZone("")) == "" {
		return err
	}
	return op.Err
}

func (g *guard) allowed(addr netip.Addr) bool {
	for _, p := range g.allow {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// class returns the class of an address by the tables, "" for global unicast.
func (g *guard) class(addr netip.Addr) AddrClass {
	list := g.special6
	if addr.Is4() {
		list = g.special4
	}
	for _, r := range list {
		if r.prefix.Contains(addr) {
			return r.class
		}
	}
	if addr.Is4() {
		return ""
	}
	if !addr.Is6() || addr.As16()[0]>>5 != 1 { // not in 2000::/3
		return AddrReserved
	}
	return ""
}
