package egress

import (
	"fmt"
	"net/netip"
)

// form says what an IPv6 address is besides the IPv4 address that it embeds.
type form int

const (
	// partial: the address stands for itself, too, and must pass the tables.
	partial form = iota
	// routed: a gateway takes the packet to the IPv4 address, which decides alone.
	routed
	// whole: nothing but a notation of the IPv4 address, not routed on the internet.
	whole
)

// embedded is what decodeV4 found.
type embedded struct {
	addrs []netip.Addr
	form  form
}

// decodeV4 returns the IPv4 addresses that packets to addr might reach: NAT64
// (RFC 6052, RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380: server and client),
// IPv4-compatible (RFC 4291), IPv4-translated (RFC 2765) and ISATAP (RFC 5214).
// Mapped addresses must be unmapped before.
func decodeV4(addr netip.Addr) embedded {
	if !addr.Is6() {
		return embedded{}
	}
	b := addr.As16()
	switch {
	case b[0] == 0x20 && b[1] == 0x02:
		return embedded{form: routed, addrs: append(isatap(b), at(b, 2, 3, 4, 5))}
	case b[0] == 0x20 && b[1] == 0x01 && b[2] == 0 && b[3] == 0:
		client := netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
		return embedded{form: routed, addrs: []netip.Addr{at(b, 4, 5, 6, 7), client}}
	case b[0] == 0 && b[1] == 0x64 && b[2] == 0xff && b[3] == 0x9b:
		return decodeNAT64(b)
	case zero(b[:12]) && !zero(b[12:15]):
		return embedded{form: whole, addrs: []netip.Addr{last(b)}}
	case zero(b[:8]) && b[8] == 0xff && b[9] == 0xff && b[10] == 0 && b[11] == 0:
		return embedded{form: whole, addrs: []netip.Addr{last(b)}}
	}
	return embedded{form: partial, addrs: isatap(b)}
}

// nat64Layout is where RFC 6052 puts the bytes of the IPv4 address behind a prefix.
func nat64Layout(bits int) (at [4]int, ok bool) {
	at, ok = map[int][4]int{
		32: {4, 5, 6, 7}, 40: {5, 6, 7, 9}, 48: {6, 7, 9, 10}, 56: {7, 9, 10, 11}, 64: {9, 10, 11, 12}, 96: {12, 13, 14, 15},
	}[bits]
	return at, ok
}

// nat64 is a prefix of an operator's own NAT64 gateway.
type nat64 struct {
	prefix netip.Prefix
	at     [4]int
}

func newNAT64(p netip.Prefix) (nat64, error) {
	layout, ok := nat64Layout(p.Bits())
	if !ok || !p.Addr().Is6() || p.Addr().Is4In6() {
		return nat64{}, fmt.Errorf("NAT64 prefix %s is not IPv6 of 32, 40, 48, 56, 64 or 96 bits", p)
	}
	return nat64{p.Masked(), layout}, nil
}

// decode returns the IPv4 address that the gateway takes a packet to addr to.
func (n *nat64) decode(addr netip.Addr) embedded {
	b := addr.As16()
	return embedded{form: routed, addrs: []netip.Addr{at(b, n.at[0], n.at[1], n.at[2], n.at[3])}}
}

// decodeNAT64 reads 64:ff9b::/96, whose layout is fixed, and 64:ff9b:1::/48,
// where an operator chooses one of four: every layout that fits is returned, so
// that an address passes only if all its readings do.
func decodeNAT64(b [16]byte) embedded {
	if zero(b[4:12]) {
		return embedded{form: routed, addrs: []netip.Addr{last(b)}}
	}
	if b[4] != 0 || b[5] != 1 {
		return embedded{}
	}
	found := embedded{form: routed}
	for _, layout := range []struct {
		bits int
		fits bool
	}{
		{48, b[8] == 0 && zero(b[11:])},
		{56, b[8] == 0 && zero(b[12:])},
		{64, b[8] == 0 && zero(b[13:])},
		{96, zero(b[8:12])},
	} {
		if place, _ := nat64Layout(layout.bits); layout.fits {
			found.addrs = append(found.addrs, at(b, place[0], place[1], place[2], place[3]))
		}
	}
	return found
}

// isatap returns the IPv4 address of an ISATAP interface identifier, if b has one.
func isatap(b [16]byte) []netip.Addr {
	if b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
		return []netip.Addr{last(b)}
	}
	return nil
}

func last(b [16]byte) netip.Addr { return at(b, 12, 13, 14, 15) }

func at(b [16]byte, i, j, k, l int) netip.Addr {
	return netip.AddrFrom4([4]byte{b[i], b[j], b[k], b[l]})
}

func zero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
